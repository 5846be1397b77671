//! The process: one thread that waits for the next deadline, and for the node.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};

use crate::clock::{Timer, boottime};
use crate::connection::{Closed, Connection};
use crate::message::{Reply, parse_request};
use crate::state::State;
use crate::{host, kill, socket};

/// Why the watchdog could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Processes cannot be killed by pidfds.
    #[error("cannot kill processes by pidfds, which need Linux 5.3 and /proc: {0}")]
    Pidfd(#[source] io::Error),
    /// There is no timer, or signals cannot be read.
    #[error("cannot create a timer: {0}")]
    Timer(#[source] io::Error),
    /// It cannot listen in the data directory.
    #[error("cannot listen in the data directory: {0}")]
    Listen(#[source] io::Error),
    /// Its standard input is no socket.
    #[error("it is started by vc-node, not by hand: {0}")]
    Input(#[source] io::Error),
}

/// Runs the watchdog of a data directory, whose node is connected to standard input. Returns when no node is connected and nothing
/// has a deadline, or when another watchdog holds its state. To be called before the process has another thread.
///
/// # Errors
/// It could not be started.
pub fn run(dir: &Path, version: &str) -> Result<(), StartError> {
    let signals = host::signals().map_err(|error| StartError::Timer(error.into()))?;
    let timer = Timer::new().map_err(|error| StartError::Timer(error.into()))?;
    let node = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let node = node.and_then(Connection::new).map_err(StartError::Input)?;
    let listener = socket::bind(dir).map_err(StartError::Listen)?;
    host::isolate();
    kill::rehearse().map_err(StartError::Pidfd)?;
    let version = version.to_owned();
    let mut this =
        Watchdog { state: State::default(), version, timer, signals, listener, node: None };
    this.accept(node);
    if let Err(error) = host::close_output() {
        return Err(StartError::Input(error));
    }
    this.watch();
    Ok(())
}

struct Watchdog {
    state: State,
    version: String,
    timer: Timer,
    signals: SignalFd,
    listener: UnixListener,
    /// The newest connection: a node has one.
    node: Option<Connection>,
}

impl Watchdog {
    fn watch(&mut self) {
        let mut asked_to_end = false;
        loop {
            // First of all after a pause, and before any request: what is past its deadline was not renewed in time.
            self.kill();
            self.report();
            let now = boottime();
            if self.node.is_none() && !self.state.is_needed(now, asked_to_end) {
                return;
            }
            // On an error the last setting holds, and the searches of another wake-up.
            let _ = self.timer.set(self.state.poll_timeout());
            let mut sources = vec![
                PollFd::new(&self.timer, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(&self.listener, PollFlags::IN),
            ];
            sources.extend(self.node.as_ref().map(|node| PollFd::new(node, PollFlags::IN)));
            // Interrupted, if at all, by SIGCONT.
            let _ = poll(&mut sources, None);
            let ready: Vec<bool> = sources.iter().map(|it| !it.revents().is_empty()).collect();
            drop(sources);
            self.kill();
            let is_ready = |source: usize| ready.get(source).copied().unwrap_or(false);
            if is_ready(1) {
                asked_to_end |= matches!(self.signals.read_signal(), Ok(Some(_)));
            }
            if is_ready(3) && self.receive() == Next::End {
                return;
            }
            if is_ready(2)
                && let Ok((stream, _)) = self.listener.accept()
                && let Ok(node) = Connection::new(stream)
            {
                self.accept(node);
            }
        }
    }

    /// Kills what is past its deadline.
    fn kill(&mut self) {
        let now = boottime();
        let targets = self.state.expire(now);
        if targets.is_empty() {
            return;
        }
        let found = kill::kill(&targets).unwrap_or_else(|_| vec![1; targets.len()]);
        self.state.searched(now, boottime(), &found);
    }

    /// Tells the node what was killed.
    fn report(&mut self) {
        let Some(node) = &mut self.node else { return };
        let killed = self.state.take_killed();
        if killed.into_iter().any(|killed| node.send(&Reply::Killed(killed)).is_err()) {
            self.node = None;
        }
    }

    /// Takes a connection in place of the one before.
    fn accept(&mut self, mut node: Connection) {
        let hello = self.state.hello(&self.version, std::process::id().cast_signed());
        self.node = node.send(&Reply::Hello(hello)).is_ok().then_some(node);
    }

    /// Handles the requests that have arrived.
    fn receive(&mut self) -> Next {
        let Some(node) = &mut self.node else { return Next::Continue };
        let Ok(lines) = node.receive() else {
            self.node = None;
            return Next::Continue;
        };
        for line in lines {
            let reply = match parse_request(&line) {
                Ok(request) if request.end => return Next::End,
                Ok(request) => self.state.handle(boottime(), request),
                Err((number, reason)) => Reply::Refused { number, reason },
            };
            if let Err(Closed) = node.send(&reply) {
                self.node = None;
                break;
            }
        }
        Next::Continue
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    Continue,
    End,
}
