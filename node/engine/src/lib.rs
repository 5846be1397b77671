//! The state machine of a node: it decides, the shell (vc-node) acts.
//!
//! [`Engine::handle`] takes one [`Input`] and the time, and returns [`Output`]s to be carried out in their order. It
//! never waits, reads no clock and draws no randomness, so the same engine runs in a node and, many at once under virtual
//! time, in the simulator. When nothing comes in, [`Engine::poll_timeout`] says when to call it again.

mod accusation;
pub mod alerts;
mod anti_entropy;
mod audit;
mod desired;
mod diff;
mod downtime;
mod dynamic_ports;
mod engine;
pub mod events;
mod failure_detector;
mod file_access;
mod heartbeat;
pub mod history;
mod identity;
mod interface;
mod isolation;
mod job_report;
mod lease;
mod mutation;
mod node_faults;
mod output;
mod partition;
mod port_report;
mod problem;
mod problems;
mod reconcile;
pub mod report;
pub mod rollout;
pub mod routes;
mod runs;
pub mod runtime;
mod runtime_health;
mod schedule;
mod silence;
mod startup_hold;
mod volume_report;
pub mod volumes;
pub mod voters;
mod workload;

pub use diff::{diff, mask_environment};
pub use dynamic_ports::{NoFreePort, choose as choose_ports};
pub use engine::{Engine, WITNESS};
pub use file_access::{FileRefusal, file_access};
pub use identity::Process;
pub use interface::{
    Clock, Config, Durable, HISTORY, Input, MIN_CLOCK_OFFSET, Output, Timing, Vitals, WallClocks,
};
pub use lease::Votes;
pub use mutation::volumes::mounting;
pub use mutation::{
    FindError, MAX_RECEIVERS, Mutation, MutationError, NewSigningKey, check_all_readable,
    find_node, find_service, find_services,
};
pub use output::remove_output;
pub use problem::Problem;
