//! Runs instances on this node: as containers of a Docker engine ([`docker`]), or as plain child processes
//! ([`process`]). Both perform the [`RuntimeAction`](vc_engine::runtime::RuntimeAction)s of the engine and report
//! [`RuntimeEvent`](vc_engine::runtime::RuntimeEvent)s; neither decides anything. [`images`] brings the images that
//! containers need.
//!
//! Each runtime has one loop (`instance_queue`) that owns the last observations and performs at most one action per
//! instance at a time. An event from outside (of Docker, or the end of a process) is only a hint to inspect an instance,
//! and only what is found then is reported. So late, repeated or lost events cannot leave a wrong picture.
//!
//! The crate knows no libp2p: streams to other members, DNS servers and views are passed in.

pub mod clock;
pub mod docker;
mod docker_error;
mod drain;
mod engine_info;
mod error;
mod identity;
pub mod images;
mod instance_queue;
mod log;
mod one_line;
pub mod process;
mod raw_http;
mod read_ahead;
mod runtime;
mod usage;
pub mod watchdog;

pub use docker_error::{DockerError, RULES_GONE, UnsupportedEngine};
pub use drain::{Drain, NoDrain};
pub use error::RuntimeError;
pub use identity::Identity;
pub use instance_queue::{MAX_ACTIVE_INSTANCES, MAX_PENDING_ACTIONS};
pub use log::{LogLine, LogLines, LogQuery, MAX_LINE};
pub use runtime::{Config, Runtime};
pub use usage::{DiskTraffic, InstanceUsage, Limits, NetworkTraffic};
pub use vc_protocol::control::LogStream;
pub use watchdog::Watchdog;
