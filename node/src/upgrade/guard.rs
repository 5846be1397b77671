//! The guard of an upgrade: a process of the program before, which puts that back if the node does not become ready with the new one.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use rustix::process::{PidfdFlags, Signal};

use super::install::previous;
use super::program::RUNNING;
use super::record::Record;
use super::switch;
use crate::args::LogFormat;

/// A node that is not ready after this time is taken for one that hangs.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a killed process to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// A supervisor other than systemd starts the node within this time after its process has ended, or there is none.
const SUPERVISOR_TIMEOUT: Duration = Duration::from_secs(3);
/// What guard and node say: that they are there.
const READY: u8 = 1;

/// The connection of a node that was upgraded to its guard: the standard input of the process. The guard goes back when the process ends
/// before it is ready.
#[derive(Debug)]
pub(crate) struct Guarded(());

impl Guarded {
    /// Returns the connection of this process, if it was started with `--upgraded`.
    pub(crate) fn new(upgraded: bool) -> Option<Self> {
        upgraded.then_some(Self(()))
    }

    /// Says that the node is ready.
    pub(crate) fn ready(self) {
        let stdin = std::io::stdin();
        let said = rustix::net::send(&stdin, &[READY], SendFlags::NOSIGNAL)
            .and_then(|_| rustix::net::shutdown(&stdin, Shutdown::Both));
        if let Err(error) = said {
            tracing::warn!(%error, "cannot tell the guard of the upgrade that the node is ready");
        }
    }
}

/// Waits for the node, which connects to this process by its standard input, to become ready. Blocks.
///
/// # Errors
/// The node is not ready, and the program before cannot be put back or executed.
pub(crate) fn guard(dir: &Path, format: LogFormat) -> anyhow::Result<()> {
    let mut record = Record::load(dir).context("cannot read the record of the upgrade")?;
    let node = rustix::process::getppid().context("the node has ended")?;
    let node = rustix::process::pidfd_open(node, PidfdFlags::empty())?;
    let stdin = std::io::stdin();
    rustix::net::send(&stdin, &[READY], SendFlags::NOSIGNAL)?;
    let reason = match receive(READY_TIMEOUT)? {
        Received::Byte => {
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
    end(&node)?;
    record.reason = Some(reason);
    // The node has to run, whether or not it can say why it went back.
    if let Err(error) = record.save(dir) {
        tracing::warn!(%error, "cannot write why the upgrade failed");
    }
    let mut program = record.path.as_path();
    if let Err(error) = put_back(program) {
        tracing::warn!(%error, path = %program.display(), "cannot put the program before back");
        program = Path::new(RUNNING);
    }
    // systemd starts it.
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        return Ok(());
    }
    std::thread::sleep(SUPERVISOR_TIMEOUT);
    // If a supervisor has started it meanwhile, the data directory is locked, and this process ends.
    let mut run = switch::run(program, dir, format);
    Err(run.stdin(std::process::Stdio::null()).exec()).context("cannot start the node again")
}

/// What arrives from the node.
enum Received {
    Byte,
    /// Its process has ended.
    End,
    Nothing,
}

fn receive(within: Duration) -> io::Result<Received> {
    let stdin = std::io::stdin();
    sockopt::set_socket_timeout(&stdin, sockopt::Timeout::Recv, Some(within))?;
    let mut byte = [0];
    match rustix::net::recv(&stdin, &mut byte, RecvFlags::empty()) {
        Ok((_, 0)) | Err(Errno::CONNRESET) => Ok(Received::End),
        Ok(_) => Ok(Received::Byte),
        Err(Errno::AGAIN) => Ok(Received::Nothing),
        Err(error) => Err(error.into()),
    }
}

/// Kills the process of the node, if it has not ended by itself, and waits for its end.
fn end(node: &OwnedFd) -> anyhow::Result<()> {
    match rustix::process::pidfd_send_signal(node.as_fd(), Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => return Err(error).context("cannot end the node"),
    }
    match receive(END_TIMEOUT)? {
        Received::End => Ok(()),
        Received::Byte | Received::Nothing => anyhow::bail!("the node does not end"),
    }
}

/// Puts the program before in place of the one that failed.
fn put_back(path: &Path) -> io::Result<()> {
    fs::rename(previous(path), path)?;
    switch::sync_directory(path)
}
