//! Whole clusters of real `vc-node` processes on loopback, driven by the real `vc`. Each file is a
//! subject, each test states a fact.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's way to say what must not fail"
)]

#[allow(dead_code, reason = "each program of tests uses a part of it")]
#[path = "../harness/mod.rs"]
mod harness;

mod byzantine_member;
mod concurrency;
mod death;
mod deploy;
mod durability;
mod events;
mod hostile;
mod join;
mod logging;
mod logs;
mod multiplex;
mod trust;
mod unauthenticated_peer;
