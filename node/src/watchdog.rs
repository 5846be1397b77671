//! The watchdog of this node, a process of the same program: see `vc_watchdog`.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use vc_runtime::Watchdog;
use vc_runtime::watchdog::Config;

use crate::VERSION;
use crate::driver_message::DriverMessage;

/// Returns the handle to the watchdog of a data directory.
///
/// # Errors
/// The working directory is not known.
pub(crate) fn start(dir: &Path) -> io::Result<Watchdog> {
    let dir = std::path::absolute(dir)?;
    let of = dir.clone();
    let command = move || {
        // Not by its path: there may be another version by now.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("vc-node").args(["watchdog", "--data-dir"]).arg(&of);
        command
    };
    Ok(Watchdog::start(Config { dir, version: VERSION.to_owned(), command: Arc::new(command) }))
}

/// Reports to the driver when the watchdog is needed and does not run, and when it does again.
pub(crate) async fn report_problems(
    mut problem: watch::Receiver<Option<String>>,
    driver: mpsc::Sender<DriverMessage>,
) {
    while problem.changed().await.is_ok() {
        let why = problem.borrow_and_update().clone();
        if driver.send(DriverMessage::WatchdogProblem(why)).await.is_err() {
            return;
        }
    }
}
