//! The terminal and the pipes that a remote command uses as its own.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use vc_protocol::exec::MAX_EXEC_CHUNK;

use crate::error::{Result, Stop, SystemError};

/// The most chunks buffered between a pipe and the network, in either direction.
const CHUNKS: usize = 8;

/// Keeps the terminal in raw mode until it is dropped, also by an error, a panic or a signal that [`StopSignals`]
/// receives.
pub(crate) struct RawMode(());

impl RawMode {
    /// Puts the terminal into raw mode.
    pub(crate) fn enter() -> Result<Self> {
        crossterm::terminal::enable_raw_mode()
            .map_err(SystemError::doing("set up the terminal"))?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // It fails when the terminal was closed: then there is nothing to restore.
        let _ = crossterm::terminal::disable_raw_mode();
    }
}

/// Whether a command asks before it removes something.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Confirmation {
    /// Do not ask; without a terminal nothing is asked
    #[arg(long, short)]
    yes: bool,
}

impl Confirmation {
    /// Returns whether to ask: standard input and standard error are a terminal, and `--yes` was not given.
    pub(crate) fn is_needed(self) -> bool {
        !self.yes && io::stdin().is_terminal() && io::stderr().is_terminal()
    }
}

/// Asks for a confirmation on the terminal; returns whether the answer is yes.
pub(crate) fn confirmed(question: &str) -> Result<bool> {
    let mut answer = String::new();
    write!(io::stderr(), "{question} [y/N] ")
        .and_then(|()| io::stdin().lock().read_line(&mut answer))
        .map_err(SystemError::doing("ask on the terminal"))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Returns the columns and rows of the terminal; `None` without one.
pub(crate) fn size() -> Option<(u16, u16)> {
    crossterm::terminal::size().ok()
}

/// Returns the signal that reports a new size of the terminal.
pub(crate) fn resized() -> Result<Signal> {
    Ok(signal(SignalKind::window_change()).map_err(SystemError::doing("wait for signals"))?)
}

/// The signals that ask this program to stop: SIGINT, SIGTERM and SIGHUP.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl StopSignals {
    /// Receives the signals from now on; they no longer end the process by themselves.
    pub(crate) fn subscribe() -> Result<Self> {
        let signal = |kind| signal(kind).map_err(SystemError::doing("wait for signals"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal; returns the exit code that a shell reports for it.
    pub(crate) async fn receive(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupted,
            _ = self.terminate.recv() => Stop::Exit(128 + 15),
            _ = self.hang_up.recv() => Stop::Exit(128 + 1),
        }
    }
}

/// Returns standard input in chunks. A thread reads it, which may block forever: it is not joined.
pub(crate) fn input() -> mpsc::Receiver<Vec<u8>> {
    let (to, pieces) = mpsc::channel(CHUNKS);
    spawn_blocking(move || {
        let mut stdin = io::stdin().lock();
        let mut bytes = vec![0; MAX_EXEC_CHUNK];
        loop {
            match stdin.read(&mut bytes) {
                Ok(count) if count > 0 => {
                    if to.blocking_send(bytes[..count].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A closed terminal is an end of input too.
                _ => return,
            }
        }
    });
    pieces
}

/// A standard stream of this program.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pipe {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Writes standard output and standard error on a thread, so that a reader that is slow does not block the connection.
pub(crate) struct Output {
    pieces: mpsc::Sender<(Pipe, Vec<u8>)>,
    writing: JoinHandle<io::Result<()>>,
}

impl Output {
    /// Starts the thread.
    pub(crate) fn new() -> Self {
        let (pieces, mut waiting) = mpsc::channel::<(Pipe, Vec<u8>)>(CHUNKS);
        let writing = spawn_blocking(move || {
            while let Some((pipe, bytes)) = waiting.blocking_recv() {
                match pipe {
                    Pipe::Stdout => write(io::stdout().lock(), &bytes)?,
                    Pipe::Stderr => write(io::stderr().lock(), &bytes)?,
                }
            }
            Ok(())
        });
        Self { pieces, writing }
    }

    /// Queues a chunk, once there is room for it. Returns `false` when writing has failed; [`finish`](Self::finish)
    /// returns why.
    pub(crate) async fn write(&self, pipe: Pipe, bytes: Vec<u8>) -> bool {
        self.pieces.send((pipe, bytes)).await.is_ok()
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) -> Result {
        drop(self.pieces);
        match self.writing.await.unwrap_or_else(|error| Err(error.into())) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(Stop::OutputClosed.into())
            }
            result => Ok(result.map_err(SystemError::doing("write the output"))?),
        }
    }
}

fn write(mut to: impl io::Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}
