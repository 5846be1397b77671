//! Drives the real programs: `vc-node` processes on loopback, and `vc` against them.
//!
//! Nothing here sleeps for a fixed time: a node is awaited by its `ready` line, everything else by asking `vc` until it
//! is so or a deadline has passed. When a [`Cluster`] goes, what it started goes with it, and its logs are read: an
//! ERROR that the test did not announce fails it, and so does a panic or a secret.

pub mod cluster;
pub mod command;
pub mod journal;
pub mod lab;
pub mod load;
pub mod node;
pub mod ports;
pub mod processes;
pub mod rows;
pub mod stories;

use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use node::Node;
pub use rows::running;
pub use stories::sleepers;

/// How long anything may take that is expected to happen. Nodes that compile are slow.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);

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

/// Asks until the answer is `Ok`, and says how long that took. Panics with the last answer after `patience`.
pub fn until<T>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Result<T, String>,
) -> (T, Duration) {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return (answer, start.elapsed()),
            Err(last) if start.elapsed() > patience => {
                panic!("not in {} s: {what}; at last: {last}", patience.as_secs())
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// A figure for the report. Tests do not judge by time, people do.
pub fn measured(what: &str, took: Duration) {
    println!("measured: {what}: {:.2} s", took.as_secs_f64());
}
