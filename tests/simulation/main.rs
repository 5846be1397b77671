//! The deterministic simulator: runs any number of production engines in one process under virtual time. Network, disks,
//! runtimes and operators are simulated; their faults are drawn from a seed, so that every failure can be repeated.
//!
//! As in FoundationDB's simulation (Zhou et al. 2021).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod check;
mod disk;
mod faults;
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
mod versions;
mod world;
