//! Clusters on hosts with networks and Docker engines of their own, by `scripts/lab`. Needs root. With the defaults:
//! all protocols, mDNS, the Docker runtime.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's way to say what must not fail"
)]

#[allow(dead_code, reason = "each program of tests uses a part of it")]
#[path = "../harness/mod.rs"]
mod harness;

mod containers;
mod death;
mod engine;
mod files;
mod images;
mod names;
mod nat;
mod network;
mod ports;
mod shop;
mod updates;
mod volumes;
