//! The node's side of the watchdog (`vc_watchdog`): starts the process, and keeps telling it what this node must not run any more,
//! and when.
//!
//! The process outlives this one. The next one connects to it and takes over the deadlines that it holds: an instance keeps the
//! deadline that it had until the engine gives it another one or the instance is removed.

mod client;
mod handle;
mod wanted;

pub use client::Config;
pub use handle::{Watchdog, WatchdogError};
pub use vc_watchdog::{Target, boottime};
