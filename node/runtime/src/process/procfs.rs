//! Telling processes apart: a process id alone is used again and again.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The environment variable that every process carries: the directory of its instance.
pub(super) const HOME_VARIABLE: &str = "VC_INSTANCE_DIR";

/// How often a process is looked at that cannot be waited for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One process, told from any other that ever had its id: by its start (in ticks since the boot), and the boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) pid: i32,
    ticks: u64,
    boot: String,
}

/// Which boot of the node this is.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl Mark {
    /// Of the process that has this id now.
    pub(super) fn of(pid: i32, boot: &str) -> Option<Self> {
        stat(pid).map(|(ticks, _)| Self { pid, ticks, boot: boot.to_owned() })
    }

    /// Whether it runs, in this boot.
    pub(super) fn lives(&self, boot: &str) -> bool {
        self.boot == boot
            && stat(self.pid).is_some_and(|(ticks, ended)| ticks == self.ticks && !ended)
    }

    /// Whether its id is still its own: it runs, or has not been reaped.
    fn holds_its_id(&self) -> bool {
        stat(self.pid).is_some_and(|(ticks, _)| ticks == self.ticks)
    }

    /// Signals its process group. When it has ended and was reaped, its group may still exist, and keeps the id from
    /// being used again; so only a new process with that id tells that the group is gone.
    pub(super) fn signal_group(&self, signal: Signal) {
        if !self.holds_its_id() && stat(self.pid).is_some() {
            return;
        }
        let outcome =
            Pid::from_raw(self.pid).map(|pid| rustix::process::kill_process_group(pid, signal));
        if let Some(Err(error)) = outcome.filter(|outcome| *outcome != Err(rustix::io::Errno::SRCH))
        {
            tracing::warn!(pid = self.pid, %error, "cannot signal a process group");
        }
    }

    /// Waits until it has ended, whether or not it is a child of ours.
    pub(super) async fn ended(&self) {
        if let Some(fd) = self.pidfd().and_then(|fd| awaitable(fd).ok())
            && fd.readable().await.is_ok()
        {
            return;
        }
        // It has ended, or the node is out of descriptors.
        let boot = boot_id();
        while self.lives(&boot) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn pidfd(&self) -> Option<OwnedFd> {
        let fd = rustix::process::pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Only now is it sure that the descriptor is that of our process.
        self.holds_its_id().then_some(fd)
    }
}

/// A descriptor of which the runtime tells when it is readable.
#[allow(
    deprecated,
    reason = "unsound only for types that close or change their descriptor; the new one is unsafe"
)]
pub(super) fn awaitable(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// The start of a process in ticks since the boot, and whether it has ended and waits for its parent.
fn stat(pid: i32) -> Option<(u64, bool)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?; // The third.
    let ticks = fields.nth(18)?.parse().ok()?; // The 22nd.
    Some((ticks, matches!(state, "Z" | "X")))
}

/// The oldest process that was started for an instance's directory.
pub(super) fn find_by_home(home: &Path, boot: &str) -> Option<Mark> {
    let wanted = format!("{HOME_VARIABLE}={}", home.display());
    let entries = std::fs::read_dir("/proc").ok()?;
    let pids =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = pids.filter(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&b| b == 0).any(|variable| variable == wanted.as_bytes())
    });
    ours.filter_map(|pid| Mark::of(pid, boot).filter(|mark| mark.lives(boot)))
        .min_by_key(|mark| (mark.ticks, mark.pid))
}
