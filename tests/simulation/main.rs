//! The seeded simulator: the very engine that a node runs, any number of them in one process, under virtual time. The
//! network, the disks, the runtimes and the operators around them are made up and misbehave by a seed, so that every
//! failure can be run again.
//!
//! In the manner of FoundationDB's simulation (Zhou et al. 2021).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's way to say what must not fail"
)]

mod disk;
mod history;
mod invariants;
mod network;
mod node;
mod operators;
mod rng;
mod runtime;
mod scenarios;
mod services;
mod swarm;
mod trace;
mod world;
