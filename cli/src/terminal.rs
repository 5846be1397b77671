//! The terminal and the pipes that a command in an instance is given as its own.

use std::io::{self, Read as _};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use vc_protocol::exec::MAX_EXEC_CHUNK;

use crate::app::Stop;

/// Pieces that may wait between a pipe and the network, in either direction.
const PIECES: usize = 8;

/// As long as it lives the terminal passes on every key as it is, and shows bytes as they come. Whatever ends it (an
/// error, a panic, a signal that [`Ending`] sees) puts the terminal back as it was.
pub(crate) struct RawMode(());

impl RawMode {
    pub(crate) fn enter() -> io::Result<Self> {
        crossterm::terminal::enable_raw_mode()?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // It fails where the terminal is gone: then there is nothing to put back.
        let _ = crossterm::terminal::disable_raw_mode();
    }
}

/// Columns and rows of the terminal, if there is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    crossterm::terminal::size().ok()
}

/// Tells when the terminal has another size.
pub(crate) fn resized() -> io::Result<Signal> {
    signal(SignalKind::window_change())
}

/// The signals that ask a program to end.
pub(crate) struct Ending {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Ending {
    /// From now on they end nothing by themselves.
    pub(crate) fn watch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The exit code of the first that comes, as a shell reports it.
    pub(crate) async fn signalled(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupted,
            _ = self.terminate.recv() => Stop::Exit(128 + 15),
            _ = self.hang_up.recv() => Stop::Exit(128 + 1),
        }
    }
}

/// Standard input, piece by piece. It is read on a thread, which may wait for ever: nobody waits for it.
pub(crate) fn input() -> mpsc::Receiver<Vec<u8>> {
    let (to, pieces) = mpsc::channel(PIECES);
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
                // A terminal that is gone is an end, too.
                _ => return,
            }
        }
    });
    pieces
}

/// Where a piece goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pipe {
    Stdout,
    Stderr,
}

/// Standard output and standard error, written on a thread: who does not read them must not halt the connection.
pub(crate) struct Output {
    pieces: mpsc::Sender<(Pipe, Vec<u8>)>,
    writing: JoinHandle<io::Result<()>>,
}

impl Output {
    pub(crate) fn new() -> Self {
        let (pieces, mut waiting) = mpsc::channel::<(Pipe, Vec<u8>)>(PIECES);
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

    /// Takes a piece, once there is room for it; `false`: nobody takes them any more, and [`finish`](Self::finish)
    /// tells why.
    pub(crate) async fn write(&self, pipe: Pipe, bytes: Vec<u8>) -> bool {
        self.pieces.send((pipe, bytes)).await.is_ok()
    }

    /// Waits until all is written.
    pub(crate) async fn finish(self) -> anyhow::Result<()> {
        drop(self.pieces);
        match self.writing.await? {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(Stop::OutputClosed.into())
            }
            result => Ok(result?),
        }
    }
}

fn write(mut to: impl io::Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}
