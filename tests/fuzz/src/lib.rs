//! Fuzz targets: functions that feed bytes of an unauthenticated or byzantine peer, a client, a container or an operator's
//! file to the code that reads them, and panic where it breaks what it promises.
//!
//! `scripts/fuzz` runs them under libFuzzer. `corpus/` has inputs that reach different code, and `crashes/` those that
//! once broke something; `tests/replay.rs` runs all of them, with no fuzzer.

mod batch;
mod compose;
mod docker;
mod frames;
mod keys;
mod node;
mod pieces;
mod signed_change;
mod token;
mod webrtc;

/// A function that takes any bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name, and that of its directories in `corpus/` and `crashes/`.
    pub name: &'static str,
    /// Runs one input. Panics if the code under test breaks a promise.
    pub run: fn(&[u8]),
    /// Returns inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "compose", run: compose::run, seeds: compose::seeds },
    Target { name: "token", run: token::run, seeds: token::seeds },
    Target { name: "batch", run: batch::run, seeds: batch::seeds },
    Target { name: "signed_change", run: signed_change::run, seeds: signed_change::seeds },
    Target { name: "frames", run: frames::run, seeds: frames::seeds },
    Target { name: "webrtc", run: webrtc::run, seeds: webrtc::seeds },
    Target { name: "sctp", run: webrtc::sctp, seeds: webrtc::sctp_seeds },
    Target { name: "hijack", run: docker::hijack, seeds: docker::hijack_seeds },
    Target { name: "archive", run: docker::archive, seeds: docker::archive_seeds },
    Target { name: "dns", run: node::dns, seeds: node::dns_seeds },
    Target { name: "http", run: node::http, seeds: node::http_seeds },
    Target { name: "connection", run: node::connection, seeds: node::connection_seeds },
];

/// Returns the target with a name.
///
/// # Panics
/// There is none.
#[expect(clippy::expect_used, reason = "names are literals")]
pub fn target(name: &str) -> Target {
    *TARGETS.iter().find(|target| target.name == name).expect("a target")
}
