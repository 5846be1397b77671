//! The guard of an upgrade: a process of the program before, which puts that back if the node does not become ready with the new one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::signal::unix::{SignalKind, signal};

use super::install::previous;
use super::program::{RUNNING, identify_blocking};
use super::record::Record;
use super::switch;
use crate::args::LogFormat;

/// A node that is not ready after this time is taken for one that hangs.
pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a killed process to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// A supervisor other than systemd starts the node within this time after its process has ended, or there is none.
const SUPERVISOR_TIMEOUT: Duration = Duration::from_secs(3);
/// What guard and node say: that they are there.
const READY: u8 = 1;
/// What a node says that ends, or goes on with the program before, for another reason than its program.
const STOPPED: u8 = 2;

/// The connection of a node that was upgraded to its guard: the standard input of the process. The guard goes back when the process ends
/// before it is ready.
#[derive(Debug)]
pub(crate) struct Guarded(());

impl Guarded {
    /// Returns the connection of this process, which was started with `--upgraded`.
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Says that the node is ready.
    pub(crate) fn ready(self) {
        if let Err(error) = say(std::io::stdin(), READY) {
            tracing::warn!(%error, "cannot tell the guard of the upgrade that the node is ready");
        }
    }

    /// Says that the node ends before it is ready, and that its program is not why.
    pub(crate) fn stopped(self) {
        if let Err(error) = dismiss(std::io::stdin()) {
            tracing::warn!(%error, "cannot tell the guard of the upgrade that the node stops");
        }
    }
}

/// Says at the other end of a guard's connection that there is nothing to go back from.
pub(super) fn dismiss(guard: impl AsFd) -> rustix::io::Result<()> {
    say(guard, STOPPED)
}

fn say(to: impl AsFd, byte: u8) -> rustix::io::Result<()> {
    rustix::net::send(&to, &[byte], SendFlags::NOSIGNAL)?;
    rustix::net::shutdown(&to, Shutdown::Both)
}

/// Waits for the node, which connects to this process by its standard input, to become ready. Blocks.
///
/// # Errors
/// The node is not ready, and the program before cannot be put back or executed.
pub(crate) fn guard(dir: &Path, format: LogFormat) -> anyhow::Result<()> {
    // What stops the node may signal all processes of it. The handlers stay, and do nothing: the node says why it ends.
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        let _ = signal(kind).context("cannot ignore signals")?;
    }
    let mut record = Record::load(dir).context("cannot read the record of the upgrade")?;
    let node = rustix::process::getppid().context("the node has ended")?;
    let supervised = is_of_systemd(node, |name| std::env::var(name).ok());
    let node = rustix::process::pidfd_open(node, PidfdFlags::empty())?;
    let stdin = std::io::stdin();
    rustix::net::send(&stdin, &[READY], SendFlags::NOSIGNAL)?;
    let reason = match receive(&stdin, READY_TIMEOUT)? {
        Received::Ready | Received::Stopped => {
            Record::remove(dir);
            return Ok(());
        }
        Received::End => "it ended before it was ready".to_owned(),
        Received::Nothing => format!("it was not ready within {} s", READY_TIMEOUT.as_secs()),
    };
    tracing::warn!(
        version = record.version,
        digest = record.digest,
        reason,
        "the upgrade has failed: going back to the program before"
    );
    // First of all: from now on, whatever starts the node starts this.
    let mut program = record.path.as_path();
    match put_back(&record) {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!(path = %program.display(), "another program is there by now: leaving it");
        }
        Err(error) => {
            tracing::warn!(%error, path = %program.display(), "cannot put the program before back");
            program = Path::new(RUNNING);
        }
    }
    if let Err(error) = end(&node) {
        tracing::warn!(%error, "cannot end the node");
    }
    // Not before: a node removes it at its start.
    record.reason = Some(reason);
    if let Err(error) = record.save(dir) {
        tracing::warn!(%error, "cannot write why the upgrade failed");
    }
    if supervised {
        return Ok(());
    }
    std::thread::sleep(SUPERVISOR_TIMEOUT);
    // If a supervisor has started it meanwhile, the data directory is locked, and this process ends.
    let mut run = switch::run(program, dir, format);
    Err(run.stdin(std::process::Stdio::null()).exec()).context("cannot start the node again")
}

/// What arrives from the node.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    Ready,
    Stopped,
    /// Its process has ended.
    End,
    Nothing,
}

fn receive(from: impl AsFd, within: Duration) -> io::Result<Received> {
    let deadline = Instant::now() + within;
    let mut byte = [0];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Received::Nothing);
        }
        sockopt::set_socket_timeout(&from, sockopt::Timeout::Recv, Some(left))?;
        match rustix::net::recv(&from, &mut byte, RecvFlags::empty()) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(Received::End),
            Ok(_) => match byte {
                [READY] => return Ok(Received::Ready),
                [STOPPED] => return Ok(Received::Stopped),
                // A later version says more.
                _ => {}
            },
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns whether systemd has started a process itself, and so starts it again (`systemd.exec(5)`). A variable alone does not say that: the
/// processes of a desktop have most of them.
fn is_of_systemd(process: Pid, variable: impl Fn(&str) -> Option<String>) -> bool {
    let executed = variable("SYSTEMD_EXEC_PID").and_then(|pid| pid.parse().ok());
    executed == Some(process.as_raw_nonzero().get()) || variable("NOTIFY_SOCKET").is_some()
}

/// Kills the process of the node, if it has not ended by itself, and waits for its end.
fn end(node: &OwnedFd) -> io::Result<()> {
    match rustix::process::pidfd_send_signal(node.as_fd(), Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => return Err(error.into()),
    }
    loop {
        match receive(std::io::stdin(), END_TIMEOUT)? {
            Received::End => return Ok(()),
            Received::Nothing => return Err(io::ErrorKind::TimedOut.into()),
            // It was said before the node was killed.
            Received::Ready | Received::Stopped => {}
        }
    }
}

/// Puts the program before in place of the one that failed. Returns `false` if that is not there: the switch did not come so far, or
/// something else has installed a program meanwhile.
fn put_back(record: &Record) -> io::Result<bool> {
    let path = &record.path;
    if identify_blocking(path)?.digest != record.digest {
        return Ok(false);
    }
    fs::rename(previous(path), path)?;
    switch::sync_directory(path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_the_program_that_failed_is_replaced_by_the_one_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("vc-node");
        fs::write(&path, "new").expect("written");
        let digest = identify_blocking(&path).expect("read").digest;
        let record =
            Record { path: path.clone(), version: "0.2.0".to_owned(), digest, reason: None };
        fs::write(previous(&path), "before").expect("written");
        fs::write(&path, "of a package").expect("written");
        assert!(!put_back(&record).expect("compared"));
        assert_eq!(fs::read_to_string(&path).expect("read"), "of a package");
        fs::write(&path, "new").expect("written");
        assert!(put_back(&record).expect("renamed"));
        assert_eq!(fs::read_to_string(&path).expect("read"), "before");
        assert!(put_back(&record).is_ok_and(|it| !it), "it is back already");
    }

    #[test]
    fn systemd_starts_what_it_has_executed_or_what_notifies_it() {
        let node = Pid::from_raw(7).expect("a process");
        let is_supervised = |set: (&str, &str)| {
            is_of_systemd(node, |name| (name == set.0).then(|| set.1.to_owned()))
        };
        assert!(is_supervised(("NOTIFY_SOCKET", "/run/systemd/notify")));
        assert!(is_supervised(("SYSTEMD_EXEC_PID", "7")));
        assert!(!is_supervised(("SYSTEMD_EXEC_PID", "8")), "it is of a parent");
        assert!(!is_supervised(("INVOCATION_ID", "1")), "a shell of a desktop has it");
    }

    #[test]
    fn a_guard_tells_a_node_that_is_ready_from_one_that_stops_and_one_that_ends() {
        let long = Duration::from_secs(30);
        let received = |bytes: &[u8]| {
            let (node, guard) = UnixStream::pair().expect("a pair");
            for &byte in bytes {
                rustix::net::send(&node, &[byte], SendFlags::NOSIGNAL).expect("sent");
            }
            drop(node);
            receive(&guard, long).expect("received")
        };
        assert_eq!(received(&[READY]), Received::Ready);
        assert_eq!(received(&[STOPPED]), Received::Stopped);
        assert_eq!(received(&[]), Received::End);
        assert_eq!(received(&[99, READY]), Received::Ready, "what it does not know says nothing");
        let (_node, guard) = UnixStream::pair().expect("a pair");
        let short = Duration::from_millis(1);
        assert_eq!(receive(&guard, short).expect("waited"), Received::Nothing);
    }
}
