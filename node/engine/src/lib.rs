//! The node's state machine: it decides, the shell acts.
//!
//! [`Engine::handle`] takes one [`Input`] and the time, and returns [`Output`]s to be carried out in their order. It
//! never waits, reads no clock and draws no randomness, so the very same engine runs in a node and, by the dozen under
//! virtual time, in the simulator. When nothing comes in, [`Engine::deadline`] says when to call it again and why.

mod anti_entropy;
mod detector;
mod diff;
mod engine;
pub mod events;
mod exchange;
mod interface;
mod mutation;
mod reconcile;
pub mod report;
pub mod rollout;
pub mod routes;
pub mod runtime;
mod verdict;
mod workload;

pub use diff::diff;
pub use engine::Engine;
pub use interface::{Config, Durable, Input, Output, Timing};
pub use mutation::{FindError, Mutation, MutationError, find_node, find_service, find_services};
