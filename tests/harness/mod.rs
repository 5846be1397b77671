//! Drives the real programs: `vc-node` processes on loopback, and `vc` against them.
//!
//! Nothing here sleeps for a fixed time: a node is awaited by its `ready` line, everything else by polling `vc` up to a
//! deadline. Dropping a [`Cluster`] ends all processes it started and checks its logs: an ERROR that the test did not
//! expect, a panic or a secret fails the test.

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

/// Deadline of anything that is expected to happen; generous, because builds may run on the same host.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Interval of polling.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A program of this workspace: in `$VC_BIN`, else where the test was built. It is built before the tests run:
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

/// Polls `ask` until it returns `Ok`. Returns the value and the time it took; panics with the last error after `deadline`.
pub fn until<T, E: std::fmt::Debug>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> Result<T, E>,
) -> (T, Duration) {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return (answer, start.elapsed()),
            Err(last) if start.elapsed() > deadline => {
                panic!("not in {} s: {what}; at last: {last:?}", deadline.as_secs())
            }
            Err(_) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

/// Prints a duration for the report. Tests do not assert durations.
pub fn measured(what: &str, took: Duration) {
    println!("measured: {what}: {:.2} s", took.as_secs_f64());
}
