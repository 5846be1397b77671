//! Tests of clusters of real `vc-node` processes on loopback, driven by the real `vc`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "../harness/mod.rs"]
mod harness;

mod alerts;
mod audit;
mod backup;
mod backup_s3;
mod byzantine_member;
mod clocks;
mod completion;
mod concurrency;
mod connection_floods;
mod death;
mod deploy;
mod duplicates;
mod durability;
mod events;
mod hostile;
mod housekeeping;
mod jobs;
mod join;
mod logging;
mod logs;
mod metrics;
mod multiplex;
#[cfg(feature = "otlp")]
mod otlp;
mod projects;
mod raw_api;
mod secrets;
mod settings;
mod systemd;
mod tracing;
mod trust;
mod trust_rotation;
mod unauthenticated_peer;
mod upgrade;
mod usage;
mod voters;
