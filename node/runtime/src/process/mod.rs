//! Instances as plain child processes, for demos, tests and nodes without Docker (Nomad's `raw_exec`).
//!
//! No isolation and no image: `entrypoint` and `command` run as the node's user, or the numeric user of the spec, in a
//! process group of their own. Resource limits, published ports, the platform and healthchecks are ignored. The output
//! goes to files, so that processes outlive the node; the next node on this directory adopts them. Only a parent learns
//! an exit code, so that of an adopted process is reported as [`UNKNOWN_CODE`].
//!
//! Linux only: it needs pidfds and /proc.

mod backend;
mod children;
mod handle;
mod launch;
mod log_rotation;
mod logs;
mod output;
mod procfs;
mod state;
mod usage;

pub use handle::{Config, Process};
pub use state::UNKNOWN_CODE;
