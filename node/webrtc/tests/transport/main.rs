//! Tests of the transport over UDP on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests assert by panicking")]

mod browser;
mod dial;
mod floods;
mod injection;
mod node;
mod unauthenticated_peers;
mod wire;
