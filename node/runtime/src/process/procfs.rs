//! Identifying processes by /proc, since a process id is reused.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::watchdog::Target;

/// The environment variable of every process with the directory of its instance.
pub(super) const DIRECTORY_VARIABLE: &str = "VC_INSTANCE_DIR";

/// How often a process is polled that cannot be waited for.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A process, distinguished from others with the same id by its start time, in clock ticks since the boot, and the
/// boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessIdentity {
    pub(super) pid: i32,
    start_ticks: u64,
    boot: String,
}

/// Returns the id of the host's current boot (`proc_sys_kernel(5)`).
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl ProcessIdentity {
    /// Returns the identity of the process that has this id now.
    pub(super) fn of(pid: i32, boot: &str) -> Option<Self> {
        stat(pid).map(|(ticks, _)| Self { pid, start_ticks: ticks, boot: boot.to_owned() })
    }

    /// Returns what the watchdog is to kill of it.
    pub(super) fn target(&self) -> Target {
        Target::Process { pid: self.pid, start: self.start_ticks }
    }

    /// Reports whether it runs, in the current boot.
    pub(super) fn is_alive(&self, boot: &str) -> bool {
        self.boot == boot
            && stat(self.pid).is_some_and(|(ticks, ended)| ticks == self.start_ticks && !ended)
    }

    /// Reports whether the id is still its own: it runs, or has not been reaped.
    fn holds_pid(&self) -> bool {
        stat(self.pid).is_some_and(|(ticks, _)| ticks == self.start_ticks)
    }

    /// Signals its process group. A group may outlive its first process, and prevents reuse of the id; so only another
    /// process with that id shows that the group is gone.
    pub(super) fn signal_group(&self, signal: Signal) {
        if !self.holds_pid() && stat(self.pid).is_some() {
            return;
        }
        let signalled =
            Pid::from_raw(self.pid).map(|pid| rustix::process::kill_process_group(pid, signal));
        if let Some(Err(error)) = signalled.filter(|result| *result != Err(rustix::io::Errno::SRCH))
        {
            tracing::warn!(pid = self.pid, %error, "cannot signal a process group");
        }
    }

    /// Waits until it has exited, whether or not it is a child of this process.
    pub(super) async fn wait_exit(&self) {
        if let Some(fd) = self.pidfd().and_then(|fd| async_fd(fd).ok())
            && fd.readable().await.is_ok()
        {
            return;
        }
        // It has exited, or the node is out of file descriptors.
        let boot = boot_id();
        while self.is_alive(&boot) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn pidfd(&self) -> Option<OwnedFd> {
        let fd = rustix::process::pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Checked after opening: only then the descriptor is known to be of this process.
        self.holds_pid().then_some(fd)
    }
}

/// Registers a file descriptor for readiness to read.
#[allow(
    deprecated,
    reason = "unsound only for types that close or change their descriptor; the new one is unsafe"
)]
pub(super) fn async_fd(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Returns a process's start time in clock ticks since the boot, and whether it has exited but was not reaped
/// (`proc_pid_stat(5)`).
fn stat(pid: i32) -> Option<(u64, bool)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may contain any character.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?; // the third field
    let ticks = fields.nth(18)?.parse().ok()?; // the 22nd field
    Some((ticks, matches!(state, "Z" | "X")))
}

/// Returns the oldest process that was started for an instance's directory.
pub(super) fn find_by_directory(directory: &Path, boot: &str) -> Option<ProcessIdentity> {
    let variable_of_directory = format!("{DIRECTORY_VARIABLE}={}", directory.display());
    let entries = std::fs::read_dir("/proc").ok()?;
    let pids =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let matching = pids.filter(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&b| b == 0).any(|variable| variable == variable_of_directory.as_bytes())
    });
    matching
        .filter_map(|pid| ProcessIdentity::of(pid, boot).filter(|process| process.is_alive(boot)))
        .min_by_key(|process| (process.start_ticks, process.pid))
}
