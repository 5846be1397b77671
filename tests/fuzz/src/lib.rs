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
    /// Whether the code under test catches panics: those of Automerge. Others may be of a task, which the target does not see.
    pub catches_panics: bool,
}

/// Returns a target whose code panics never.
const fn target_of(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds, catches_panics: false }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target_of("compose", compose::run, compose::seeds),
    target_of("token", token::run, token::seeds),
    Target { catches_panics: true, ..target_of("batch", batch::run, batch::seeds) },
    Target {
        catches_panics: true,
        ..target_of("signed_change", signed_change::run, signed_change::seeds)
    },
    target_of("frames", frames::run, frames::seeds),
    target_of("webrtc", webrtc::run, webrtc::seeds),
    target_of("sctp", webrtc::sctp, webrtc::sctp_seeds),
    target_of("hijack", docker::hijack, docker::hijack_seeds),
    target_of("archive", docker::archive, docker::archive_seeds),
    target_of("dns", node::dns, node::dns_seeds),
    target_of("http", node::http, node::http_seeds),
    target_of("connection", node::connection, node::connection_seeds),
];

/// Returns the target with a name.
///
/// # Panics
/// There is none.
#[expect(clippy::expect_used, reason = "names are literals")]
pub fn target(name: &str) -> Target {
    *TARGETS.iter().find(|target| target.name == name).expect("a target")
}
