//! The tests that run simulated clusters.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod planted;
mod replay;
mod scenarios;
