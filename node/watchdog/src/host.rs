//! Being independent of the state of the host: its memory, its processor, its disk.

use std::fs::{self, File};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::mm::{MlockAllFlags, mlockall};

/// The highest priority (`setpriority(2)`).
const PRIORITY: i32 = -20;
/// Never killed for want of memory (`proc_pid_oom_score_adj(5)`).
const OOM_SCORE: &str = "-1000";

/// Leaves the session of the node, and takes what root may have: memory that stays, priority, exemption from the OOM killer.
/// Whatever is not permitted is left out, for the watchdog is better than none.
pub(crate) fn isolate() {
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let _ = rustix::process::setpriority_process(None, PRIORITY);
    // Only with both: later mappings alone would count against the limit of users, and fail.
    let lock = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    let _ = mlockall(lock);
}

/// Blocks the signals by which a process is asked to end, and returns a descriptor on which they are read. To be called before any
/// thread is started.
pub(crate) fn signals() -> nix::Result<SignalFd> {
    let mut asked: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    asked.add(Signal::SIGQUIT);
    asked.thread_block()?;
    SignalFd::with_flags(&asked, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Lets go of the node's log, which may be a pipe that is not read, or that something waits for the end of.
pub(crate) fn close_output() -> std::io::Result<()> {
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(rustix::stdio::dup2_stdout(&null)?)
}
