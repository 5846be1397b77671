//! Children of the program before: the same process had them, and they end as its children.

use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::signal::unix::{SignalKind, signal};

/// Waits for the ends of the children that this process has now, so that they do not stay as zombies. To be called before it starts any
/// itself. Completes when all of them have ended.
pub(crate) fn reap() -> impl Future<Output = ()> + Send {
    let mut children = children();
    async move {
        let Ok(mut ended) = signal(SignalKind::child()) else { return };
        loop {
            children.retain(|&pid| matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None)));
            if children.is_empty() || ended.recv().await.is_none() {
                return;
            }
        }
    }
}

/// Returns the children of this process (`proc_pid_task(5)`); none where the kernel does not list them.
fn children() -> Vec<Pid> {
    let list = format!("/proc/self/task/{}/children", std::process::id());
    let text = std::fs::read_to_string(list).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}
