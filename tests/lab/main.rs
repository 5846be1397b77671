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
mod dns;
mod docker_failure;
mod example_shop;
mod host_failure;
mod images;
mod nat;
mod network;
mod ports;
mod secrets;
mod updates;
mod volumes;
