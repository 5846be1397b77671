//! The task that starts the watchdog, and tells it what it is to hold.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use vc_watchdog::message::{Hello, Killed, MAX_MESSAGE, Reply, Request, line, parse_reply};
use vc_watchdog::{boottime, socket};

use super::handle::{Shared, WatchdogError};
use super::wanted::Batch;

/// How long a process may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the watchdog may take to answer. It is killed then, and another one started.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The first and the longest time between attempts to start it.
const RETRY_INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How the watchdog is started.
#[derive(Clone)]
pub struct Config {
    /// The node's data directory.
    pub dir: PathBuf,
    /// The version of this program: a watchdog of another one is replaced.
    pub version: String,
    /// Returns the command of the process.
    pub command: Arc<dyn Fn() -> Command + Send + Sync>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Why there is no watchdog, or not any more.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot start it: {0}")]
    Start(#[source] io::Error),
    #[error("it ended at its start; its error is in the log of vc-node")]
    NoHello,
    #[error("it has ended")]
    Ended,
    #[error("it does not answer")]
    Timeout,
    #[error("it sends what is not understood: {0}")]
    Malformed(String),
}

/// A connection to a watchdog.
struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    /// Of the process at the other end.
    process: Option<OwnedFd>,
    hello: Hello,
}

/// Keeps the watchdog running while it is needed.
pub(super) async fn run(config: Config, shared: Arc<Shared>) {
    let (mut pause, mut number) = (RETRY_INTERVAL.0, 0);
    let mut connection = connect(&config).await;
    if let Some(connection) = &connection {
        shared.wanted().inherit(connection.hello.deadlines.clone());
    }
    shared.asked.send_replace(true);
    loop {
        let mut current = match connection.take() {
            Some(current) => current,
            None => {
                while !shared.wanted().needs_watchdog() {
                    shared.changed.notified().await;
                }
                match start(&config).await {
                    Ok(started) => started,
                    Err(failure) => {
                        tracing::error!(%failure, "the watchdog does not run: no exclusive service is started here");
                        fail(&shared, &failure);
                        sleep(pause).await;
                        pause = RETRY_INTERVAL.1.min(pause * 2);
                        continue;
                    }
                }
            }
        };
        shared.wanted().connected(&current.hello);
        let result = match replace(&config, &mut current).await {
            Ok(()) => serve(&shared, &mut current, &mut number).await,
            Err(failure) => Err(failure),
        };
        let Err(failure) = result;
        if shared.wanted().needs_watchdog() {
            tracing::warn!(%failure, "the watchdog is lost: starting another one");
            shared.problem.send_replace(Some(failure.to_string()));
        }
        if matches!(failure, Failure::Timeout | Failure::Malformed(_)) {
            current.kill();
            sleep(pause).await;
            pause = RETRY_INTERVAL.1.min(pause * 2);
        } else {
            pause = RETRY_INTERVAL.0;
            // It closes a connection that is not read.
            connection = connect(&config).await;
        }
    }
}

fn fail(shared: &Shared, failure: &Failure) {
    shared.problem.send_replace(Some(failure.to_string()));
    shared.wanted().fail(&WatchdogError::NotRunning(failure.to_string()));
}

/// Connects to a watchdog that runs already.
async fn connect(config: &Config) -> Option<Connection> {
    match socket::connect(&config.dir) {
        Ok(Some(stream)) => {
            let peer = rustix::net::sockopt::socket_peercred(&stream).map(|it| it.pid);
            match Connection::new(stream, peer.ok(), ANSWER_TIMEOUT).await {
                Ok(connection) => Some(connection),
                Err(failure) => {
                    tracing::warn!(%failure, "cannot use the watchdog that runs: its deadlines are lost");
                    None
                }
            }
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(%error, "cannot connect to the watchdog");
            None
        }
    }
}

/// Starts a process.
async fn start(config: &Config) -> Result<Connection, Failure> {
    let (ours, theirs) = StdStream::pair().map_err(Failure::Start)?;
    let mut command = (config.command)();
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
    let mut child = tokio::process::Command::from(command).spawn().map_err(Failure::Start)?;
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    tokio::spawn(async move {
        if let Ok(status) = child.wait().await {
            tracing::debug!(%status, "a watchdog has ended");
        }
    });
    Connection::new(ours, pid, START_TIMEOUT).await
}

/// Starts a watchdog of this version in place of one of another version, which ends when the new one holds its state.
async fn replace(config: &Config, current: &mut Connection) -> Result<(), Failure> {
    if current.hello.version == config.version {
        return Ok(());
    }
    let mut next = match start(config).await {
        Ok(next) => next,
        Err(failure) => {
            tracing::error!(%failure, version = current.hello.version, "cannot start a watchdog of this version: the one that runs stays");
            return Ok(());
        }
    };
    let state = Request {
        deadlines: Some(current.hello.deadlines.clone()),
        targets: current.hello.targets.clone(),
        expired: current.hello.expired.clone(),
        ..Request::default()
    };
    next.ask(&state).await?;
    let _ = current.send(&Request { end: true, ..Request::default() }).await;
    let (before, now) = (current.hello.version.as_str(), config.version.as_str());
    tracing::info!(before, now, "the watchdog of another version was replaced");
    next.hello = std::mem::take(&mut current.hello);
    *current = next;
    Ok(())
}

/// Tells a watchdog what it is to hold, until it ends.
async fn serve(
    shared: &Shared,
    connection: &mut Connection,
    number: &mut u64,
) -> Result<std::convert::Infallible, Failure> {
    loop {
        *number += 1;
        let batch = shared.wanted().take_batch(*number, boottime());
        if let Some(batch) = batch {
            match connection.ask(&batch.request).await {
                Ok(reply) => {
                    answer(batch, reply);
                    shared.problem.send_if_modified(|problem| problem.take().is_some());
                }
                Err(failure) => {
                    shared.wanted().undo(batch);
                    return Err(failure);
                }
            }
        }
        tokio::select! {
            () = shared.changed.notified() => {}
            reply = connection.receive() => log(reply?),
        }
    }
}

/// Answers the callers that wait for a request.
fn answer(batch: Batch, reply: Reply) {
    if let Reply::Refused { reason, .. } = &reply {
        tracing::error!(reason, "the watchdog refuses a request");
    }
    for waiter in batch.waiters {
        let held = match &reply {
            Reply::Refused { reason, .. } => Err(WatchdogError::Refused(reason.clone())),
            Reply::Done { expired, .. } if expired.contains(&waiter.instance) => {
                Err(WatchdogError::Expired)
            }
            _ => Ok(()),
        };
        // The caller may wait no more.
        let _ = waiter.answer.send(held);
    }
}

fn log(reply: Reply) {
    if let Reply::Killed(Killed { instance, processes, deadline, first, last }) = reply {
        let (late_ms, took_ms) = (first.saturating_sub(deadline), last.saturating_sub(first));
        tracing::warn!(
            instance,
            processes,
            late_ms,
            took_ms,
            "the watchdog killed an instance: its lease had ended"
        );
    }
}

impl Connection {
    /// Waits for the first message of a process. One that does not send it in time is killed: it would wake up with its deadlines.
    async fn new(stream: StdStream, pid: Option<Pid>, wait: Duration) -> Result<Self, Failure> {
        let process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        stream.set_nonblocking(true).map_err(Failure::Start)?;
        let stream = UnixStream::from_std(stream).map_err(Failure::Start)?;
        let hello = Hello::default();
        let mut this = Self { stream, received: Vec::new(), process, hello };
        match timeout(wait, this.receive()).await {
            Ok(Ok(Reply::Hello(hello))) => this.hello = hello,
            Ok(Ok(other)) => return Err(Failure::Malformed(format!("{other:?}"))),
            Ok(Err(Failure::Ended)) => return Err(Failure::NoHello),
            Ok(Err(failure)) => return Err(failure),
            Err(_) => {
                this.kill();
                return Err(Failure::Timeout);
            }
        }
        Ok(this)
    }

    /// Sends a request, and returns its answer.
    async fn ask(&mut self, request: &Request) -> Result<Reply, Failure> {
        let answered = async {
            self.send(request).await?;
            loop {
                match self.receive().await? {
                    Reply::Done { number, expired } if number == request.number => {
                        return Ok(Reply::Done { number, expired });
                    }
                    Reply::Refused { number, reason } if number == request.number => {
                        return Ok(Reply::Refused { number, reason });
                    }
                    other => log(other),
                }
            }
        };
        timeout(ANSWER_TIMEOUT, answered).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn send(&mut self, request: &Request) -> Result<(), Failure> {
        self.stream.write_all(&line(request)).await.map_err(|_| Failure::Ended)
    }

    /// Receives a message. Cancel safe.
    async fn receive(&mut self) -> Result<Reply, Failure> {
        loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let rest = self.received.split_off(end + 1);
                let line = std::mem::replace(&mut self.received, rest);
                match parse_reply(&line) {
                    Ok(Some(reply)) => return Ok(reply),
                    Ok(None) => continue,
                    Err(error) => return Err(Failure::Malformed(error.to_string())),
                }
            }
            if self.received.len() > MAX_MESSAGE {
                return Err(Failure::Malformed("a message without an end".to_owned()));
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return Err(Failure::Ended),
                Ok(_) => {}
            }
        }
    }

    /// Ends a process that does not answer: it may hold deadlines that have been renewed since.
    fn kill(&self) {
        if let Some(process) = &self.process {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
}
