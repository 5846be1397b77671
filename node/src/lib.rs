//! The node: performs what the engine ([`vc_engine`]) decides, over libp2p, Docker and the disk.

mod admin_token;
mod alerts;
mod api;
pub mod args;
mod audit;
mod auth;
mod backups;
pub mod bandwidth;
mod clock;
mod commands;
mod console;
mod credentials;
mod data_dir;
mod disk;
pub mod dns;
mod driver;
mod driver_message;
mod duplicate;
mod engine_rules;
mod events;
mod exec;
mod files;
#[cfg(test)]
mod fixture_tests;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod handover;
mod host;
mod http;
mod identity;
mod images;
mod iptables;
mod join;
mod join_token;
mod limiter;
pub mod log_writer;
mod logs;
mod member_request;
mod member_server;
mod metrics;
mod network;
mod node_info;
#[cfg(feature = "otlp")]
pub mod otlp;
mod previous_runtime;
pub mod proxy;
mod readiness;
mod restart;
pub mod restore;
mod run;
mod seal;
mod secrets;
mod service_manager;
pub mod settings;
mod setup;
mod snapshot;
mod socket_holder;
mod stop_signals;
mod trust;
mod uninstall;
mod upgrade;
mod usage;
mod volumes;
mod watchdog;

pub use commands::start;
pub use join_token::hide_token;
pub use upgrade::Switch;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
pub(crate) use vc_client::frames;
