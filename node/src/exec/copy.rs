//! Copies files between an instance of this node and a stream, as a tar archive.

use futures::{AsyncRead, AsyncWrite, Stream, StreamExt as _};
use libp2p::bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use vc_protocol::exec::{ExecFrame, IDLE_TIMEOUT, KEEPALIVE_INTERVAL, MAX_EXEC_CHUNK};

use super::finish;
use crate::frames::{FrameError, Frames, FramesIn, FramesOut};
use vc_protocol::ApiError;
use vc_runtime::docker::Upload;

/// Chunks of an archive that may wait for Docker.
const MAX_PENDING_CHUNKS: usize = 4;

/// Sends an archive.
pub(super) async fn send<S: AsyncRead + AsyncWrite + Unpin, E: Into<ApiError>>(
    mut archive: impl Stream<Item = Result<Bytes, E>> + Unpin,
    frames: &mut Frames<S>,
) -> Result<(), FrameError> {
    let last = {
        let (mut to, mut from) = frames.split();
        tokio::select! {
            last = send_chunks(&mut archive, &mut to) => last?,
            closed = wait_closed(&mut from) => return Err(closed),
        }
    };
    finish(last, frames).await
}

/// Sends an archive's bytes. Returns the frame that tells how it ended.
async fn send_chunks<S: AsyncRead + AsyncWrite + Unpin, E: Into<ApiError>>(
    archive: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    to: &mut FramesOut<'_, S>,
) -> Result<ExecFrame, FrameError> {
    loop {
        match timeout(KEEPALIVE_INTERVAL, archive.next()).await {
            Ok(Some(Ok(bytes))) => {
                for chunk in bytes.chunks(MAX_EXEC_CHUNK) {
                    to.send_bytes(ExecFrame::Stdout(chunk.to_vec()).encode()).await?;
                }
            }
            Ok(Some(Err(error))) => return Ok(ExecFrame::Failed(error.into())),
            Ok(None) => return Ok(ExecFrame::Exit(0)),
            Err(_) => to.send_bytes(ExecFrame::Stdout(Vec::new()).encode()).await?,
        }
    }
}

/// Drops incoming frames until the stream is closed or idle for [`IDLE_TIMEOUT`]; returns how it ended.
async fn wait_closed<S: AsyncRead + AsyncWrite + Unpin>(from: &mut FramesIn<'_, S>) -> FrameError {
    loop {
        match timeout(IDLE_TIMEOUT, from.receive_bytes()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error,
            Err(_) => return FrameError::Closed,
        }
    }
}

/// Receives an archive and unpacks it into an instance.
pub(super) async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    upload: Upload,
    frames: &mut Frames<S>,
) -> Result<(), FrameError> {
    let root = ExecFrame::Stdout(upload.root.clone().into_bytes());
    frames.send_bytes(root.encode()).await?;
    let (chunks, pending) = mpsc::channel(MAX_PENDING_CHUNKS);
    let last = {
        let (mut to, mut from) = frames.split();
        let unpacked = upload.unpack(ReceiverStream::new(pending));
        tokio::pin!(unpacked);
        let receiving = receive_chunks(&mut from, chunks);
        tokio::pin!(receiving);
        let mut keepalive = interval(KEEPALIVE_INTERVAL);
        loop {
            tokio::select! {
                // A client that closes the stream truncates the archive as well: that is the cause to report, not Docker's
                // error about it.
                biased;
                closed = &mut receiving => return Err(closed),
                unpacked = &mut unpacked => break match unpacked {
                    Ok(()) => ExecFrame::Exit(0),
                    Err(error) => ExecFrame::Failed(error.into()),
                },
                _ = keepalive.tick() => to.send_bytes(ExecFrame::Stdout(Vec::new()).encode()).await?,
            }
        }
    };
    finish(last, frames).await
}

/// Passes an archive's bytes on; after its end waits until the stream is closed. Returns how the stream ended.
async fn receive_chunks<S: AsyncRead + AsyncWrite + Unpin>(
    from: &mut FramesIn<'_, S>,
    chunks: mpsc::Sender<std::io::Result<Bytes>>,
) -> FrameError {
    loop {
        let error = match timeout(IDLE_TIMEOUT, from.receive_bytes()).await {
            Ok(Ok(bytes)) => match ExecFrame::decode(&bytes) {
                Some(ExecFrame::Stdin(bytes)) if bytes.is_empty() => continue,
                // A failed send means that Docker refused the archive; its error arrives on its own.
                Some(ExecFrame::Stdin(bytes)) => {
                    let _ = chunks.send(Ok(bytes.into())).await;
                    continue;
                }
                Some(ExecFrame::StdinEnd) => break,
                _ => FrameError::Closed,
            },
            Ok(Err(error)) => error,
            Err(_) => FrameError::Closed,
        };
        // Keeps Docker from taking a truncated archive for a complete one.
        let truncated =
            std::io::Error::other("the archive is truncated: its sender closed the stream");
        let _ = chunks.send(Err(truncated)).await;
        return error;
    }
    drop(chunks);
    wait_closed(from).await
}
