//! `vc exec`: runs a command in an instance.

use std::io::{self, IsTerminal as _};

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::timeout;
use vc_protocol::control::{ExecRequest, Reply, Request};
use vc_protocol::exec::{ExecFrame, IDLE_TIMEOUT, KEEPALIVE_INTERVAL};

use super::target::{Target, choose_replica};
use crate::app::App;
use crate::error::{Result, Stop};
use crate::terminal::{self, Output, Pipe, RawMode, StopSignals};
use libp2p::Stream;
use vc_client::frames::{FramesIn, FramesOut};
use vc_client::{Session, SessionError};
use vc_protocol::{ApiError, ErrorCode};

/// Arguments of `vc exec`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc exec -it web -- sh                      a shell in the first running instance
  vc exec web --replica 2 -- env             in replica 2; the same as web.2
  vc exec -i db -- psql < dump.sql           with input from a file
  vc exec web -- cat /data/file > copy       output is copied byte by byte
  vc exec -u root -w /srv -e DEBUG=1 web -- make

The exit code is that of the command; 126 or 127 if the program cannot be run, 1 if there is no such instance.")]
pub(crate) struct Args {
    /// Pass standard input to the command
    #[arg(short, long)]
    interactive: bool,
    /// Allocate a terminal for the command
    #[arg(short, long)]
    tty: bool,
    /// Run in this replica [default: the first that runs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replica: Option<u32>,
    /// Set an environment variable; KEY alone takes the value it has here; may be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = variable)]
    environment: Vec<String>,
    /// Run as this user: NAME, UID, or either with :GROUP
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Run in this directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Service: web, or shop/web
    #[arg(value_name = "SERVICE[.N]")]
    target: Target,
    /// Command and its arguments
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

/// The text does not set an environment variable.
#[derive(Debug, thiserror::Error)]
enum VariableError {
    #[error("write KEY=VALUE")]
    NoName,
    #[error("'{0}' is not set here: write {0}=VALUE")]
    NotSet(String),
}

/// Parses `KEY=value`; `KEY` alone takes the value from the environment of this program.
fn variable(text: &str) -> std::result::Result<String, VariableError> {
    match text.split_once('=') {
        Some(("", _)) => Err(VariableError::NoName),
        Some(_) => Ok(text.to_owned()),
        None => match std::env::var(text) {
            Ok(value) => Ok(format!("{text}={value}")),
            Err(_) => Err(VariableError::NotSet(text.to_owned())),
        },
    }
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let own_terminal = self.interactive && self.tty;
        check_terminal(own_terminal)?;
        let mut exec = ExecRequest {
            replica: self.target.replica_or(self.replica)?,
            service: self.target.service,
            command: self.command,
            tty: self.tty,
            stdin: self.interactive,
            environment: self.environment,
            user: self.user,
            working_dir: self.workdir,
            size: if self.tty { terminal::size() } else { None },
            attach: false,
        };
        let code = app
            .in_session(async |session| {
                exec.replica = choose_replica(session, &exec.service, exec.replica).await?;
                let Reply::Ready = session.ask(&Request::Exec(exec)).await? else {
                    return Err(SessionError::Unexpected.into());
                };
                let mut signals = StopSignals::subscribe()?;
                let input = self.interactive.then(terminal::input);
                let relayed = relay_terminal(session, input, own_terminal);
                tokio::select! {
                    code = relayed => code,
                    stop = signals.receive() => Err(stop.into()),
                }
            })
            .await?;
        exit_with(code)
    }
}

/// Errors: the code of a command that failed, as this program's.
pub(super) fn exit_with(code: i64) -> Result {
    match u8::try_from(code) {
        Ok(0) => Ok(()),
        Ok(code) => Err(Stop::Exit(code).into()),
        // Exit codes of this system are at most 255; it must not look like success.
        Err(_) => Err(Stop::Exit(u8::MAX).into()),
    }
}

/// Errors: the input is to be a terminal, and is none.
pub(super) fn check_terminal(own_terminal: bool) -> Result {
    if own_terminal && !io::stdin().is_terminal() {
        let error = ApiError::new(ErrorCode::InvalidArgument, "the input is not a terminal");
        return Err(error.with_hint("omit -t").into());
    }
    Ok(())
}

/// Forwards input and output until the command has ended; returns its exit code. With `own_terminal` the terminal of this program is
/// the command's meanwhile.
pub(super) async fn relay_terminal(
    session: &mut Session,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    own_terminal: bool,
) -> Result<i64> {
    let _raw = if own_terminal { Some(RawMode::enter()?) } else { None };
    let resized = if own_terminal { Some(terminal::resized()?) } else { None };
    relay(session, input, resized).await
}

/// Forwards input and output until the command has ended; returns its exit code.
async fn relay(
    session: &mut Session,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    resized: Option<Signal>,
) -> Result<i64> {
    let (mut to, mut from) = session.split();
    let output = Output::new();
    let ended = tokio::select! {
        ended = receive(&mut from, &output) => ended,
        never = send(&mut to, input, resized) => match never {},
    };
    output.finish().await?;
    ended
}

/// Writes what the command writes; returns its exit code at the end.
async fn receive(from: &mut FramesIn<'_, Stream>, output: &Output) -> Result<i64> {
    loop {
        let (pipe, bytes) = match receive_frame(from).await? {
            ExecFrame::Stdout(bytes) => (Pipe::Stdout, bytes),
            ExecFrame::Stderr(bytes) => (Pipe::Stderr, bytes),
            ExecFrame::Exit(code) => return Ok(code),
            _ => return Err(SessionError::Unexpected.into()),
        };
        if !bytes.is_empty() && !output.write(pipe, bytes).await {
            return Err(Stop::OutputClosed.into());
        }
    }
}

/// Receives the next frame. Errors: the node reports that the command failed, sends nothing for [`IDLE_TIMEOUT`], or sends
/// what this version cannot decode.
pub(super) async fn receive_frame(from: &mut FramesIn<'_, Stream>) -> Result<ExecFrame> {
    let silent = |_| SessionError::Lost("no data for 60 s".to_owned());
    let frame = timeout(IDLE_TIMEOUT, from.receive_bytes())
        .await
        .map_err(silent)?
        .map_err(SessionError::from)?;
    match ExecFrame::decode(&frame) {
        Some(ExecFrame::Failed(error)) => Err(error.into()),
        Some(frame) => Ok(frame),
        None => Err(SessionError::Unexpected.into()),
    }
}

/// Sends input, terminal sizes and keepalives. A lost connection is reported by the receiving side.
async fn send(
    to: &mut FramesOut<'_, Stream>,
    mut input: Option<mpsc::Receiver<Vec<u8>>>,
    mut resized: Option<Signal>,
) -> std::convert::Infallible {
    loop {
        let frame = tokio::select! {
            piece = async { input.as_mut()?.recv().await }, if input.is_some() => {
                piece.map_or_else(|| { input = None; ExecFrame::StdinEnd }, ExecFrame::Stdin)
            }
            _ = async { resized.as_mut()?.recv().await }, if resized.is_some() => {
                let Some((columns, rows)) = terminal::size() else { continue };
                ExecFrame::Resize(columns, rows)
            }
            () = tokio::time::sleep(KEEPALIVE_INTERVAL) => ExecFrame::Stdin(Vec::new()),
        };
        if to.send_bytes(frame.encode()).await.is_err() {
            return std::future::pending().await;
        }
    }
}
