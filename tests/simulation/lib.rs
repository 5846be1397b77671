//! The deterministic simulator: runs any number of production engines in one process under virtual time. Network, disks,
//! runtimes and operators are simulated; their faults are drawn from a seed, so that every failure can be repeated.
//!
//! As in FoundationDB's simulation (Zhou et al. 2021).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed run")]

#[doc(hidden)]
pub mod check;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod disk;
mod explore;
#[doc(hidden)]
pub mod faults;
#[doc(hidden)]
pub mod history;
#[doc(hidden)]
pub mod invariants;
mod kind;
mod marks;
#[doc(hidden)]
pub mod network;
#[doc(hidden)]
pub mod node;
#[doc(hidden)]
pub mod operators;
mod plan;
#[doc(hidden)]
pub mod rng;
mod runner;
#[doc(hidden)]
pub mod runtime;
pub mod seeds;
#[doc(hidden)]
pub mod services;
mod settings;
mod shrink;
mod swarm;
#[doc(hidden)]
pub mod trace;
#[doc(hidden)]
pub mod versions;
#[doc(hidden)]
pub mod volumes;
#[doc(hidden)]
pub mod watch;
#[doc(hidden)]
pub mod watchdog;
#[doc(hidden)]
pub mod workloads;
#[doc(hidden)]
pub mod world;

pub use explore::{Exploration, Totals};
pub use kind::Kind;
pub use marks::{MANY_RUNS, Mark, missing};
pub use runner::{Failure, Outcome, run};
pub use settings::{Events, Settings};
pub use shrink::shrink;
pub use trace::print_trace;
