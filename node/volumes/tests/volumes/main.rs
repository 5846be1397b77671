//! Volumes with the real rsync and tar. As root, so that owners, devices and privileged attributes are covered.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod archive;
mod create;
mod faults;
mod fidelity;
mod hostile;
mod snapshots;
mod support;
mod transfers;
mod uploads;
mod working;
