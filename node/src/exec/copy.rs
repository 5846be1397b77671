//! Files on their way between an instance here and the one who asked for them.

use futures::{AsyncRead, AsyncWrite, StreamExt as _};
use libp2p::bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use vc_protocol::exec::{ExecFrame, IDLE_TIMEOUT, KEEPALIVE_INTERVAL, MAX_EXEC_CHUNK};

use super::say_goodbye;
use crate::frames::{FrameError, Frames, FramesIn, FramesOut};
use crate::runtime::{Archive, Upload};

/// Pieces of an archive that may wait for Docker.
const PIECES: usize = 4;

/// Sends an archive.
pub(super) async fn out<S: AsyncRead + AsyncWrite + Unpin>(
    mut archive: Archive,
    frames: &mut Frames<S>,
) -> Result<(), FrameError> {
    let last = {
        let (mut to, mut from) = frames.split();
        tokio::select! {
            last = send(&mut archive, &mut to) => last?,
            gone = heard(&mut from) => return Err(gone),
        }
    };
    say_goodbye(last, frames).await
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    archive: &mut Archive,
    to: &mut FramesOut<'_, S>,
) -> Result<ExecFrame, FrameError> {
    loop {
        match timeout(KEEPALIVE_INTERVAL, archive.next()).await {
            Ok(Some(Ok(bytes))) => {
                for piece in bytes.chunks(MAX_EXEC_CHUNK) {
                    to.send_bytes(ExecFrame::Stdout(piece.to_vec()).encode()).await?;
                }
            }
            Ok(Some(Err(error))) => return Ok(ExecFrame::Failed(error.to_string())),
            Ok(None) => return Ok(ExecFrame::Exit(0)),
            Err(_) => to.send_bytes(ExecFrame::Stdout(Vec::new()).encode()).await?,
        }
    }
}

/// Comes when nobody is there any more.
async fn heard<S: AsyncRead + AsyncWrite + Unpin>(from: &mut FramesIn<'_, S>) -> FrameError {
    loop {
        match timeout(IDLE_TIMEOUT, from.receive_bytes()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error,
            Err(_) => return FrameError::Closed,
        }
    }
}

/// Takes an archive and unpacks it.
pub(super) async fn take<S: AsyncRead + AsyncWrite + Unpin>(
    upload: Upload,
    frames: &mut Frames<S>,
) -> Result<(), FrameError> {
    let root = ExecFrame::Stdout(upload.root.clone().into_bytes());
    frames.send_bytes(root.encode()).await?;
    let (pieces, waiting) = mpsc::channel(PIECES);
    let last = {
        let (mut to, mut from) = frames.split();
        let unpacked = upload.unpack(ReceiverStream::new(waiting));
        tokio::pin!(unpacked);
        let receiving = receive(&mut from, pieces);
        tokio::pin!(receiving);
        let mut alive = interval(KEEPALIVE_INTERVAL);
        loop {
            tokio::select! {
                // A user who goes has broken off the archive, too: that is his word, not Docker's.
                biased;
                gone = &mut receiving => return Err(gone),
                unpacked = &mut unpacked => break match unpacked {
                    Ok(()) => ExecFrame::Exit(0),
                    Err(error) => ExecFrame::Failed(error.to_string()),
                },
                _ = alive.tick() => to.send_bytes(ExecFrame::Stdout(Vec::new()).encode()).await?,
            }
        }
    };
    say_goodbye(last, frames).await
}

/// Passes an archive on; after its end waits for that of its sender.
async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    from: &mut FramesIn<'_, S>,
    pieces: mpsc::Sender<std::io::Result<Bytes>>,
) -> FrameError {
    loop {
        let gone = match timeout(IDLE_TIMEOUT, from.receive_bytes()).await {
            Ok(Ok(bytes)) => match ExecFrame::decode(&bytes) {
                Some(ExecFrame::Stdin(bytes)) if bytes.is_empty() => continue,
                // Docker has refused the rest: what it says comes at once.
                Some(ExecFrame::Stdin(bytes)) => {
                    let _ = pieces.send(Ok(bytes.into())).await;
                    continue;
                }
                Some(ExecFrame::StdinEnd) => break,
                _ => FrameError::Closed,
            },
            Ok(Err(error)) => error,
            Err(_) => FrameError::Closed,
        };
        let broken = std::io::Error::other("the archive broke off");
        let _ = pieces.send(Err(broken)).await; // Nobody takes it: nobody is misled.
        return gone;
    }
    drop(pieces);
    heard(from).await
}
