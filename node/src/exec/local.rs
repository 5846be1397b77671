//! A command that runs here, and the one who asked for it.

use std::pin::Pin;

use futures::{AsyncRead, AsyncWrite};
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Handle;
use tokio::time::timeout;
use vc_protocol::exec::{ExecFrame, IDLE_TIMEOUT, KEEPALIVE_INTERVAL};

use super::say_goodbye;
use crate::frames::{FrameError, Frames, FramesIn, FramesOut};
use crate::runtime::{Exec, ExecOutput, ExecProcess, LogStream};

type Input = Pin<Box<dyn tokio::io::AsyncWrite + Send>>;

/// Passes on input and output until the command has ended or its user has gone.
pub(super) async fn attend<S: AsyncRead + AsyncWrite + Unpin>(
    exec: Exec,
    tty: bool,
    frames: &mut Frames<S>,
) -> Result<(), FrameError> {
    let Exec { mut input, mut output, process } = exec;
    let mut terminal = Terminal(tty.then(|| process.clone()));
    let ended = {
        let (mut to, mut from) = frames.split();
        let ended = tokio::select! {
            ended = send(&mut output, &process, &mut to) => ended,
            gone = take(&mut from, &mut input, &process, tty) => Err(gone),
        };
        ended
    };
    match ended {
        Ok(last) => {
            terminal.0 = None;
            say_goodbye(last, frames).await
        }
        Err(gone) => {
            tracing::debug!(%gone, "the user of a command has gone");
            Err(gone)
        }
    }
}

/// A terminal with a command on it, which is hung up when this is dropped: also when nobody waits for that, as when the user's
/// token ends.
struct Terminal(Option<ExecProcess>);

impl Drop for Terminal {
    fn drop(&mut self) {
        if let (Some(process), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move { process.hang_up().await });
        }
    }
}

/// Sends what the command writes; at its end gives the frame that tells it.
async fn send<S: AsyncRead + AsyncWrite + Unpin>(
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
                return Ok(ExecFrame::Failed(format!("its output broke off: {error}")));
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
            Ok(Err(error)) => return Ok(ExecFrame::Failed(error.to_string())),
            Err(_) => to.send_bytes(ExecFrame::Stdout(Vec::new()).encode()).await?,
        }
    }
}

/// Gives the command what comes for it, until nobody is there any more.
async fn take<S: AsyncRead + AsyncWrite + Unpin>(
    from: &mut FramesIn<'_, S>,
    input: &mut Input,
    process: &ExecProcess,
    tty: bool,
) -> FrameError {
    // A command that reads no more may still write: what comes for it is dropped then.
    let mut reads = true;
    loop {
        let bytes = match timeout(IDLE_TIMEOUT, from.receive_bytes()).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => return error,
            Err(_) => return FrameError::Closed,
        };
        match ExecFrame::decode(&bytes) {
            Some(ExecFrame::Stdin(bytes)) if reads && !bytes.is_empty() => {
                let given = async {
                    input.write_all(&bytes).await?;
                    input.flush().await
                };
                reads = given.await.is_ok();
            }
            Some(ExecFrame::Stdin(_)) => {}
            // A terminal has no end of input but the end of itself.
            Some(ExecFrame::StdinEnd) if tty => process.hang_up().await,
            Some(ExecFrame::StdinEnd) => {
                reads = false;
                let _ = input.shutdown().await; // It has ended: then it needs no end of input.
            }
            Some(ExecFrame::Resize(columns, rows)) => process.resize(columns, rows).await,
            _ => return FrameError::Closed,
        }
    }
}
