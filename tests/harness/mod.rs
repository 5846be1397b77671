//! Drives the real programs: `vc-node` processes, and `vc` commands against them.
//!
//! Nothing here sleeps for a fixed time: a node is awaited by its `ready` lines, everything else by polling up to a
//! deadline. Dropping a [`cluster::Cluster`] ends its processes and checks its logs: an unexpected ERROR, a panic or a
//! secret fails the test.

pub mod cluster;
pub mod command;
pub mod fixtures;
pub mod lab;
pub mod load;
pub mod log_check;
pub mod node;
pub mod ports;
pub mod processes;
pub mod rows;

use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use fixtures::sleeping_service;
pub use node::Node;
pub use rows::running;

/// Deadline of every awaited event; generous, because builds may run on the same host.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two polls of [`until`].
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Returns the path of a program of this workspace: in `$VC_BIN`, else beside the test. Panics when it has not been built by
/// `cargo build --workspace --bins`.
pub fn program(name: &str) -> PathBuf {
    // target/PROFILE/deps/TEST
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("a target directory");
    let program = std::env::var_os("VC_BIN").map_or(profile.to_owned(), PathBuf::from).join(name);
    assert!(
        program.is_file(),
        "no {}: run 'cargo build --workspace --bins' first",
        program.display()
    );
    program
}

/// Polls `check` until it returns `Ok`. Returns the value and the time it took. Panics with the last error after `deadline`.
pub fn until<T, E: std::fmt::Debug>(
    what: &str,
    deadline: Duration,
    mut check: impl FnMut() -> Result<T, E>,
) -> (T, Duration) {
    let start = Instant::now();
    loop {
        match check() {
            Ok(value) => return (value, start.elapsed()),
            Err(last) if start.elapsed() > deadline => {
                panic!("not within {} s: {what}; last error: {last:?}", deadline.as_secs())
            }
            Err(_) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

/// Prints a duration. Tests assert no durations.
pub fn measured(what: &str, took: Duration) {
    println!("measured: {what}: {:.2} s", took.as_secs_f64());
}
