//! Receiving an image that a client pushes.

use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;
use vc_frames::{FrameError, Frames};
use vc_protocol::control::{ImagePush, Reply};
use vc_protocol::image::Digest;

use super::blocking::blocking;
use super::error::{ExportError, PushError, StoreError};
use super::node_images::Images;
use super::pipe::{CHANNEL_CHUNKS, Chunk};
use super::reference;
use super::serve::KEEPALIVE;
use super::singleflight::Update;

/// How long a client may send nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A pushed image, which is in the store.
#[derive(Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The canonical reference.
    pub reference: String,
    /// The image's id.
    pub id: Digest,
    /// Total length of the uncompressed layers in bytes.
    pub size: u64,
}

impl Images {
    /// Takes a pushed image into the store: from this node's Docker engine where that has it, else from the client. The
    /// session must end after an error, since the client may still be sending.
    ///
    /// # Errors
    /// [`PushError::Stream`] when the client has disconnected; any other error can be sent to it.
    pub async fn receive_push<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        push: &ImagePush,
        frames: &mut Frames<S>,
    ) -> Result<Pushed, PushError> {
        let reference = reference::canonical(&push.reference)?;
        let id = push.id.parse::<Digest>()?;
        let size = if self.present(vec![id.clone()]).await.contains_key(&id) {
            self.export_for_push(&id, frames).await?
        } else {
            self.receive_archive(&id, push.size, frames).await?
        };
        Ok(Pushed { reference, id, size })
    }

    async fn export_for_push<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        id: &Digest,
        frames: &mut Frames<S>,
    ) -> Result<u64, PushError> {
        let mut export = self.export(id);
        let mut keepalive = tokio::time::interval(KEEPALIVE);
        loop {
            let update = tokio::select! {
                update = export.next() => update,
                _ = keepalive.tick() => Some(Update::Progress(String::new())),
            };
            match update {
                Some(Update::Progress(_)) => frames.send(&Reply::KeepAlive).await?,
                Some(Update::Done(Ok(manifest))) => return Ok(manifest.size()),
                Some(Update::Done(Err(error))) => return Err(PushError::Export(error)),
                None => return Err(ExportError::Interrupted.into()),
            }
        }
    }

    async fn receive_archive<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        id: &Digest,
        size: u64,
        frames: &mut Frames<S>,
    ) -> Result<u64, PushError> {
        let _permit = self.0.export_permits.try_acquire().map_err(|_| PushError::Busy)?;
        let store = Arc::clone(&self.0.store);
        let space = blocking(move || Ok(store.check_space(size))).await;
        space.map_err(StoreError::from).flatten().map_err(ExportError::from)?;
        frames.send(&Reply::Ready).await?;
        let (chunks, received) = mpsc::channel::<Chunk>(CHANNEL_CHUNKS);
        let mut packing = std::pin::pin!(self.pack_archive(id.clone(), received, |_| {}));
        let mut packed = None;
        let forwarded = {
            let mut forwarding = std::pin::pin!(forward(frames, chunks));
            loop {
                tokio::select! {
                    forwarded = &mut forwarding => break forwarded,
                    result = &mut packing, if packed.is_none() => packed = Some(result),
                }
            }
        };
        if let Err(error) = forwarded {
            if packed.is_none() {
                // It sees the end of its input, and removes what it wrote.
                let _ = packing.await;
            }
            return Err(error.into());
        }
        // Everything was received, but is not yet durable.
        let mut keepalive = tokio::time::interval(KEEPALIVE);
        let packed = loop {
            if let Some(packed) = packed {
                break packed;
            }
            tokio::select! {
                result = &mut packing => packed = Some(result),
                _ = keepalive.tick() => frames.send(&Reply::KeepAlive).await?,
            }
        };
        Ok(packed?.size())
    }
}

/// Forwards the frames of a client up to the empty one that ends the archive, or until the receiver stops.
async fn forward<S: AsyncRead + AsyncWrite + Unpin>(
    frames: &mut Frames<S>,
    chunks: mpsc::Sender<Chunk>,
) -> Result<(), FrameError> {
    loop {
        let chunk = match timeout(IDLE_TIMEOUT, frames.receive_bytes()).await {
            Ok(chunk) => chunk?,
            Err(_) => return Err(FrameError::Closed),
        };
        let last = chunk.is_empty();
        if chunks.send(Ok(chunk)).await.is_err() || last {
            return Ok(());
        }
    }
}
