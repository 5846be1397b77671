//! Taking an image that a user pushes.

use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;
use vc_protocol::control::{ImagePush, Reply};

use super::fetch::blocking;
use super::flight::News;
use super::manifest::Digest;
use super::pipe::{PIECES, Piece};
use super::serve::SIGN_OF_LIFE;
use super::{Images, reference};
use vc_frames::{FrameError, Frames};

/// A user who sends nothing for so long has gone.
const IDLE: Duration = Duration::from_secs(60);

/// An image that is in the store.
#[derive(Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The reference, canonical.
    pub reference: String,
    /// Which image.
    pub id: Digest,
    /// Bytes, uncompressed.
    pub size: u64,
}

impl Images {
    /// Takes an image into the store: from this node's Docker where that has it, else from the user. The inner error is
    /// for him, and the session must end after it. Nothing of what failed is left.
    pub async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        push: &ImagePush,
        frames: &mut Frames<S>,
    ) -> Result<Result<Pushed, String>, FrameError> {
        let checked = reference::canonical(&push.reference)
            .and_then(|name| Ok((name, push.id.parse::<Digest>().map_err(|it| it.to_string())?)));
        let (reference, id) = match checked {
            Ok(checked) => checked,
            Err(why) => return Ok(Err(why)),
        };
        let manifest = if self.here(vec![id.clone()]).await.contains_key(&id) {
            let mut packing = self.pack(&id);
            let mut pace = tokio::time::interval(SIGN_OF_LIFE);
            loop {
                let news = tokio::select! {
                    news = packing.next() => news,
                    _ = pace.tick() => Some(News::Progress(String::new())),
                };
                match news {
                    Some(News::Progress(_)) => frames.send(&Reply::KeepAlive).await?,
                    Some(News::Outcome(packed)) => break packed.map(|manifest| manifest.size()),
                    None => break Err("the image could not be taken out of Docker".to_owned()),
                }
            }
        } else {
            self.take(&id, push.size, frames).await?
        };
        Ok(manifest.map(|size| Pushed { reference, id, size }))
    }

    async fn take<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        id: &Digest,
        size: u64,
        frames: &mut Frames<S>,
    ) -> Result<Result<u64, String>, FrameError> {
        let Ok(_permit) = self.0.packs.try_acquire() else {
            return Ok(Err("this node takes other images right now: try again".to_owned()));
        };
        let store = std::sync::Arc::clone(&self.0.store);
        match blocking(move || Ok(store.room_for(size))).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Ok(Err(why)),
            Err(error) => return Ok(Err(error.to_string())),
        }
        frames.send(&Reply::Ready).await?;
        let (pieces, arriving) = mpsc::channel::<Piece>(PIECES);
        let mut packing = std::pin::pin!(self.pack_from(id.clone(), arriving, |_| {}));
        let mut packed = None;
        let received = {
            let mut receiving = std::pin::pin!(forward(frames, pieces));
            loop {
                tokio::select! {
                    received = &mut receiving => break received,
                    outcome = &mut packing, if packed.is_none() => packed = Some(outcome),
                }
            }
        };
        if let Err(error) = received {
            if packed.is_none() {
                // It has lost its stream, and cleans up.
                let _ = packing.await;
            }
            return Err(error);
        }
        // It is all here, but not yet on the disk.
        let mut pace = tokio::time::interval(SIGN_OF_LIFE);
        let packed = loop {
            if let Some(packed) = packed {
                break packed;
            }
            tokio::select! {
                outcome = &mut packing => packed = Some(outcome),
                _ = pace.tick() => frames.send(&Reply::KeepAlive).await?,
            }
        };
        Ok(packed.map(|manifest| manifest.size()))
    }
}

/// Hands on what a user sends, until the empty frame that ends it or until nobody takes it: the packer says why.
async fn forward<S: AsyncRead + AsyncWrite + Unpin>(
    frames: &mut Frames<S>,
    pieces: mpsc::Sender<Piece>,
) -> Result<(), FrameError> {
    loop {
        let piece = match timeout(IDLE, frames.receive_bytes()).await {
            Ok(Ok(piece)) => piece,
            // Without its end, what has come so far is nothing.
            broken => return broken.unwrap_or(Err(FrameError::Closed)).map(drop),
        };
        let last = piece.is_empty();
        if pieces.send(Ok(piece)).await.is_err() || last {
            return Ok(());
        }
    }
}
