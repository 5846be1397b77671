//! Answering other members.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use vc_protocol::wire::MAX_FRAME;

use super::Images;
use super::flight::News;
use super::manifest::Digest;
use super::wire::{Answer, FRAME, MAX_IDS, Request, WINDOW};
use vc_frames::{Duplex, FrameError, Frames};
use vc_protocol::PeerId;

/// Requests that are answered at a time.
const SERVES: usize = 64;
/// Who waits for work is told so often that it goes on: Docker may be silent for long before it gives an image out.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// Frames of a blob that are read ahead.
const AHEAD: usize = 4;

impl Images {
    /// Answers until nobody can ask any more.
    pub(super) async fn serve<S: Duplex>(&self, mut streams: mpsc::Receiver<(PeerId, S)>) {
        let room = Arc::new(Semaphore::new(SERVES));
        while let Some((peer, stream)) = streams.recv().await {
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                tracing::warn!(%peer, "too many ask for images; this one is turned away");
                continue;
            };
            let images = self.clone();
            tokio::spawn(async move {
                if let Err(error) = images.answer(stream).await {
                    tracing::debug!(%peer, %error, "a request for an image ended");
                }
                drop(permit);
            });
        }
    }

    /// Answers one request.
    pub(super) async fn answer(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Result<(), FrameError> {
        let mut frames = Frames::new(stream, MAX_FRAME);
        let answer = match frames.receive::<Request>().await? {
            Request::Have(mut ids) => {
                ids.truncate(MAX_IDS);
                Answer::Have(self.here(ids).await)
            }
            Request::Resolve(reference) => Answer::Image(self.local_id(&reference).await),
            Request::Manifest(id) => {
                let mut packing = self.pack(&id);
                let mut pace = tokio::time::interval(SIGN_OF_LIFE);
                let mut progress = String::new();
                loop {
                    let news = tokio::select! {
                        news = packing.next() => news,
                        _ = pace.tick() => Some(News::Progress(progress.clone())),
                    };
                    match news {
                        Some(News::Progress(now)) => {
                            frames.send(&Answer::Working(now.clone())).await?;
                            progress = now;
                        }
                        Some(News::Outcome(Ok(manifest))) => {
                            break Answer::Manifest(Box::new((*manifest).clone()));
                        }
                        Some(News::Outcome(Err(why))) => break Answer::No(why),
                        None => break Answer::No("it could not be taken out of Docker".to_owned()),
                    }
                }
            }
            Request::Blob { blob, offset, length } => {
                return self.send_blob(&mut frames, blob, offset, length.min(WINDOW)).await;
            }
        };
        frames.send(&answer).await?;
        frames.close().await
    }

    async fn send_blob<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        frames: &mut Frames<S>,
        blob: Digest,
        offset: u64,
        length: u64,
    ) -> Result<(), FrameError> {
        let store = Arc::clone(&self.0.store);
        let (pieces, mut ready) = mpsc::channel::<io::Result<Vec<u8>>>(AHEAD);
        tokio::task::spawn_blocking(move || {
            let read = || -> io::Result<()> {
                let mut file = store.blob(&blob)?;
                file.seek(SeekFrom::Start(offset))?;
                let mut left = length;
                while left > 0 {
                    let mut piece = Vec::with_capacity(FRAME);
                    let most = left.min(FRAME as u64);
                    file.by_ref().take(most).read_to_end(&mut piece)?;
                    if piece.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    left -= piece.len() as u64;
                    if pieces.blocking_send(Ok(piece)).is_err() {
                        break;
                    }
                }
                Ok(())
            };
            if let Err(error) = read() {
                let _ = pieces.blocking_send(Err(error));
            }
        });
        let mut begun = false;
        while let Some(piece) = ready.recv().await {
            match piece {
                Ok(piece) => {
                    if !std::mem::replace(&mut begun, true) {
                        frames.send(&Answer::Bytes).await?;
                    }
                    frames.send_bytes(piece).await?;
                }
                Err(_) if !begun => {
                    return frames.send(&Answer::No("it is not here".to_owned())).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        frames.close().await
    }
}
