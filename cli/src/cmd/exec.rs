//! `vc exec`: runs a command in an instance, as if it ran here.

use std::io::{self, IsTerminal as _};

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::timeout;
use vc_protocol::control::{ExecRequest, Reply, Request};
use vc_protocol::exec::{ExecFrame, IDLE_TIMEOUT, KEEPALIVE_INTERVAL};

use super::target::Target;
use crate::app::{App, Stop};
use crate::terminal::{self, Ending, Output, Pipe, RawMode};
use libp2p::Stream;
use vc_client::frames::{FramesIn, FramesOut};
use vc_client::{Session, SessionError};
use vc_protocol::{ApiError, ErrorCode};

/// Arguments of `vc exec`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc exec -it web -- sh                      a shell in the first instance that runs
  vc exec web --replica 2 -- env             in that one; web.2 says the same
  vc exec -i db -- psql < dump.sql           input from a file
  vc exec web -- cat /data/file > copy       bytes come as they are
  vc exec -u root -w /srv -e DEBUG=1 web -- make

The exit code is that of the command; 126 or 127 where there is no such program, 1 where there is no such instance.")]
pub(crate) struct Args {
    /// Give it standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// In this replica; else in the first that runs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replica: Option<u32>,
    /// Set an environment variable; KEY alone takes its value from here. May be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = variable)]
    environment: Vec<String>,
    /// Run as this user: NAME, UID, or either with :GROUP
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Run in this directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Service: web, or shop/web
    #[arg(value_name = "SERVICE")]
    target: Target,
    /// The command and its arguments
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

/// `KEY=value`; of `KEY` alone the value that it has here.
fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err("write KEY=VALUE".to_owned()),
        Some(_) => Ok(text.to_owned()),
        None => match std::env::var(text) {
            Ok(value) => Ok(format!("{text}={value}")),
            Err(_) => Err(format!("'{text}' is not set here: write {text}=VALUE")),
        },
    }
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        let own_terminal = self.interactive && self.tty;
        anyhow::ensure!(
            !own_terminal || io::stdin().is_terminal(),
            "the input is not a terminal: leave -t away"
        );
        let request = Request::Exec(ExecRequest {
            replica: self.target.replica_or(self.replica)?,
            service: self.target.service,
            command: self.command,
            tty: self.tty,
            stdin: self.interactive,
            environment: self.environment,
            user: self.user,
            working_dir: self.workdir,
            size: if self.tty { terminal::size() } else { None },
        });
        let code = app
            .in_session(async |session| {
                let Reply::Ready = session.ask(&request).await? else {
                    return Err(SessionError::Unexpected.into());
                };
                let mut ending = Ending::watch()?;
                let _raw = if own_terminal { Some(RawMode::enter()?) } else { None };
                let input = self.interactive.then(terminal::input);
                let resized = if own_terminal { Some(terminal::resized()?) } else { None };
                tokio::select! {
                    code = attend(session, input, resized) => code,
                    stop = ending.signalled() => Err(stop.into()),
                }
            })
            .await?;
        match u8::try_from(code) {
            Ok(0) => Ok(()),
            Ok(code) => Err(Stop::Exit(code).into()),
            // No exit code here is larger; it is none of success.
            Err(_) => Err(Stop::Exit(u8::MAX).into()),
        }
    }
}

/// Passes on input and output until the command has ended; gives its exit code.
async fn attend(
    session: &mut Session,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    resized: Option<Signal>,
) -> anyhow::Result<i64> {
    let (mut to, mut from) = session.split();
    let output = Output::new();
    let ended = tokio::select! {
        ended = receive(&mut from, &output) => ended,
        never = send(&mut to, input, resized) => match never {},
    };
    output.finish().await?;
    ended
}

/// Takes what the command writes; at its end gives its exit code.
async fn receive(from: &mut FramesIn<'_, Stream>, output: &Output) -> anyhow::Result<i64> {
    loop {
        let silent = |_| SessionError::Lost("nothing was heard of it".to_owned());
        let frame = timeout(IDLE_TIMEOUT, from.receive_bytes())
            .await
            .map_err(silent)?
            .map_err(SessionError::from)?;
        let (pipe, bytes) = match ExecFrame::decode(&frame) {
            Some(ExecFrame::Stdout(bytes)) => (Pipe::Stdout, bytes),
            Some(ExecFrame::Stderr(bytes)) => (Pipe::Stderr, bytes),
            Some(ExecFrame::Exit(code)) => return Ok(code),
            Some(ExecFrame::Failed(reason)) => {
                return Err(SessionError::Refused(ApiError::new(
                    ErrorCode::FailedPrecondition,
                    reason,
                ))
                .into());
            }
            _ => return Err(SessionError::Unexpected.into()),
        };
        if !bytes.is_empty() && !output.write(pipe, bytes).await {
            return Err(Stop::OutputClosed.into());
        }
    }
}

/// Sends input, sizes and signs of life. What ends the session shows where output is awaited.
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
