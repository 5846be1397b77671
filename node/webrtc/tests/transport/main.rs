//! The transport as browsers and others meet it: over UDP on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's way to say what must not fail"
)]

mod browser;
mod dial;
mod floods;
mod node;
mod strangers;
