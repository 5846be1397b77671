//! The answering side of the image protocol ([`vc_protocol::image`]).

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use vc_frames::{Duplex, FrameError, Frames};
use vc_protocol::PeerId;
use vc_protocol::image::{BLOB_FRAME, Digest, MAX_IDS, MAX_RANGE, Request, Response};
use vc_protocol::wire::MAX_FRAME;

use super::node_images::Images;
use super::singleflight::Update;

/// How many requests are answered at a time; further ones are rejected.
const MAX_REQUESTS: usize = 64;
/// How often a requester that waits is sent a frame. Docker may take long before it begins to export an image.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(1);
/// How many frames of a blob are read ahead.
const READ_AHEAD: usize = 4;

impl Images {
    /// Answers requests until `streams` is closed.
    pub(super) async fn serve<S: Duplex>(&self, mut streams: mpsc::Receiver<(PeerId, S)>) {
        let permits = Arc::new(Semaphore::new(MAX_REQUESTS));
        while let Some((peer, stream)) = streams.recv().await {
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                tracing::warn!(%peer, limit = MAX_REQUESTS, "image request rejected: too many at a time");
                continue;
            };
            let images = self.clone();
            tokio::spawn(async move {
                let is_server = images.is_server(peer);
                if let Err(error) = images.answer(stream, is_server).await {
                    tracing::debug!(%peer, %error, "an image request failed");
                }
                drop(permit);
            });
        }
    }

    fn is_server(&self, peer: PeerId) -> bool {
        self.0.peers.borrow().servers.iter().any(|server| server.peer_id() == peer)
    }

    /// Answers one request, of a server or another member.
    pub(super) async fn answer(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        is_server: bool,
    ) -> Result<(), FrameError> {
        let mut frames = Frames::new(stream, MAX_FRAME);
        let response = match frames.receive::<Request>().await? {
            Request::Has(mut ids) => {
                ids.truncate(MAX_IDS);
                Response::Has(self.present(ids).await)
            }
            Request::Resolve(reference) => Response::Resolved(self.local_id(&reference).await),
            Request::InRegistry(name) => Response::InRegistry(self.in_registry(&name).await),
            Request::MissingPaths(paths) if is_server => {
                Response::MissingPaths(self.missing_paths(paths).await)
            }
            Request::HostPaths(paths) if is_server => {
                Response::HostPaths(self.kinds_of_paths(paths).await)
            }
            Request::MissingPaths(_) | Request::HostPaths(_) => {
                Response::Error("only servers may ask for paths of the host".to_owned())
            }
            Request::Manifest(id) => self.answer_manifest(&id, &mut frames).await?,
            Request::Blob { blob, offset, length } => {
                return self.send_blob(&mut frames, blob, offset, length.min(MAX_RANGE)).await;
            }
        };
        frames.send(&response).await?;
        frames.close().await
    }

    async fn answer_manifest<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        id: &Digest,
        frames: &mut Frames<S>,
    ) -> Result<Response, FrameError> {
        let mut export = self.export(id);
        let mut keepalive = tokio::time::interval(KEEPALIVE);
        let mut progress = String::new();
        loop {
            let update = tokio::select! {
                update = export.next() => update,
                _ = keepalive.tick() => Some(Update::Progress(progress.clone())),
            };
            match update {
                Some(Update::Progress(text)) => {
                    frames.send(&Response::Progress(text.clone())).await?;
                    progress = text;
                }
                Some(Update::Done(Ok(manifest))) => {
                    return Ok(Response::Manifest(Box::new((*manifest).clone())));
                }
                Some(Update::Done(Err(error))) => return Ok(Response::Error(error.to_string())),
                None => {
                    return Ok(Response::Error("the export from Docker was interrupted".into()));
                }
            }
        }
    }

    async fn send_blob<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        frames: &mut Frames<S>,
        blob: Digest,
        offset: u64,
        length: u64,
    ) -> Result<(), FrameError> {
        let store = Arc::clone(&self.0.store);
        let (chunks, mut ready) = mpsc::channel::<io::Result<Vec<u8>>>(READ_AHEAD);
        tokio::task::spawn_blocking(move || {
            let read = || -> io::Result<()> {
                let mut file = store.blob(&blob)?;
                file.seek(SeekFrom::Start(offset))?;
                let mut left = length;
                while left > 0 {
                    let mut chunk = Vec::with_capacity(BLOB_FRAME);
                    let most = left.min(BLOB_FRAME as u64);
                    file.by_ref().take(most).read_to_end(&mut chunk)?;
                    if chunk.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    left -= chunk.len() as u64;
                    if chunks.blocking_send(Ok(chunk)).is_err() {
                        break;
                    }
                }
                Ok(())
            };
            if let Err(error) = read() {
                let _ = chunks.blocking_send(Err(error)); // The requester has gone.
            }
        });
        let mut started = false;
        while let Some(chunk) = ready.recv().await {
            match chunk {
                Ok(chunk) => {
                    if !std::mem::replace(&mut started, true) {
                        frames.send(&Response::Blob).await?;
                    }
                    let length = chunk.len();
                    frames.send_bytes(chunk).await?;
                    self.0.traffic.sent(length);
                }
                Err(_) if !started => {
                    let response = Response::Error("the blob is not on this node".to_owned());
                    return frames.send(&response).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        frames.close().await
    }
}
