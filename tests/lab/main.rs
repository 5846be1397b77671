//! Tests of clusters on several simulated hosts, each with its own network namespace and Docker engine (`scripts/lab`).
//! Need root. Nodes run with the defaults: all transports, mDNS, the Docker runtime.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "../harness/mod.rs"]
mod harness;

mod backup;
mod client_addresses;
mod containers;
mod dns;
mod docker_failure;
mod documents;
mod engines;
mod example_shop;
mod host_failure;
mod images;
mod leases;
mod nat;
mod network;
mod networks;
mod node_faults;
mod ports;
mod preparation;
mod prometheus;
mod restarts;
mod secrets;
mod uninstall;
mod updates;
mod upgrade;
mod uploads;
mod volume_archives;
mod volume_replicas;
mod volumes;

/// Makes instances without a healthcheck available after 500 ms instead of 5 s.
const SHORT_MONITOR: &str = "    deploy: {update_config: {monitor: 500ms}}\n";
