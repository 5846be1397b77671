//! Attaches a stream to a command that runs on this node.

use std::pin::Pin;

use futures::{AsyncRead, AsyncWrite};
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Handle;
use tokio::time::timeout;
use vc_protocol::exec::{ExecFrame, IDLE_TIMEOUT, KEEPALIVE_INTERVAL};
use vc_protocol::{ApiError, ErrorCode};

use super::finish;
use crate::frames::{FrameError, Frames, FramesIn, FramesOut};
use vc_runtime::LogStream;
use vc_runtime::docker::{Exec, ExecOutput, ExecProcess};

type Input = Pin<Box<dyn tokio::io::AsyncWrite + Send>>;

/// Passes input and output on until the command has ended or the stream is closed, which ends a command with a terminal (`tty`) and
/// one that belongs to its client (`owns`).
pub(super) async fn attach<S: AsyncRead + AsyncWrite + Unpin>(
    exec: Exec,
    (tty, owns): (bool, bool),
    frames: &mut Frames<S>,
) -> Result<(), FrameError> {
    let Exec { mut input, mut output, process } = exec;
    let mut terminal = Terminal((tty || owns).then(|| process.clone()));
    let ended = {
        let (mut to, mut from) = frames.split();
        let ended = tokio::select! {
            ended = send_output(&mut output, &process, &mut to) => ended,
            closed = receive_input(&mut from, &mut input, &process, tty) => Err(closed),
        };
        ended
    };
    match ended {
        Ok(last) => {
            terminal.0 = None;
            finish(last, frames).await
        }
        Err(error) => {
            tracing::debug!(%error, "exec stream closed before the command ended");
            Err(error)
        }
    }
}

/// What a command loses with its client. Dropping it hangs its terminal up, also when the session is aborted because its token expired.
struct Terminal(Option<ExecProcess>);

impl Drop for Terminal {
    fn drop(&mut self) {
        if let (Some(process), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move { process.hang_up().await });
        }
    }
}

/// Sends what the command writes. Returns the frame that tells how it ended.
async fn send_output<S: AsyncRead + AsyncWrite + Unpin>(
    output: &mut ExecOutput,
    process: &ExecProcess,
    to: &mut FramesOut<'_, S>,
) -> Result<ExecFrame, FrameError> {
    loop {
        let frame = match timeout(KEEPALIVE_INTERVAL, output.next()).await {
            Ok(Ok(Some((LogStream::Stdout, bytes)))) => ExecFrame::Stdout(bytes),
            Ok(Ok(Some((LogStream::Stderr, bytes)))) => ExecFrame::Stderr(bytes),
            Ok(Ok(None)) => break,
            Ok(Err(error)) => {
                return Ok(ExecFrame::Failed(ApiError::new(
                    ErrorCode::Unavailable,
                    format!("cannot read the command's output: {error}"),
                )));
            }
            Err(_) => ExecFrame::Stdout(Vec::new()),
        };
        to.send_bytes(frame.encode()).await?;
    }
    let exit = process.exit_code();
    tokio::pin!(exit);
    loop {
        match timeout(KEEPALIVE_INTERVAL, &mut exit).await {
            Ok(Ok(code)) => return Ok(ExecFrame::Exit(code)),
            Ok(Err(error)) => return Ok(ExecFrame::Failed(error.into())),
            Err(_) => to.send_bytes(ExecFrame::Stdout(Vec::new()).encode()).await?,
        }
    }
}

/// Passes incoming frames to the command. Returns how the stream ended.
async fn receive_input<S: AsyncRead + AsyncWrite + Unpin>(
    from: &mut FramesIn<'_, S>,
    input: &mut Input,
    process: &ExecProcess,
    tty: bool,
) -> FrameError {
    // A command that has closed its input may still write: further input is dropped.
    let mut open = true;
    loop {
        let bytes = match timeout(IDLE_TIMEOUT, from.receive_bytes()).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => return error,
            Err(_) => return FrameError::Closed,
        };
        match ExecFrame::decode(&bytes) {
            Some(ExecFrame::Stdin(bytes)) if open && !bytes.is_empty() => {
                let written = async {
                    input.write_all(&bytes).await?;
                    input.flush().await
                };
                open = written.await.is_ok();
            }
            Some(ExecFrame::Stdin(_)) => {}
            // A terminal's input cannot be closed apart from its output.
            Some(ExecFrame::StdinEnd) if tty => process.hang_up().await,
            Some(ExecFrame::StdinEnd) => {
                open = false;
                let _ = input.shutdown().await; // Fails when the command has ended, which its exit code tells.
            }
            Some(ExecFrame::Resize(columns, rows)) => process.resize(columns, rows).await,
            _ => return FrameError::Closed,
        }
    }
}
