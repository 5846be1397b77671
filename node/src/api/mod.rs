//! The control protocol's server: answers the requests of clients, checked against the role in their token.
//!
//! [`ControlService`] holds what requests need and has the one `match` over [`Request`]; each group of requests has a file.
//! A stream carries one request after another, or many streams of its own ([`multiplex`]).
//!
//! [`Request`]: vc_protocol::control::Request

mod adopt;
mod backup;
mod cluster;
mod compose;
mod directories;
mod disk_usage;
mod events;
mod forward;
mod images;
mod live;
mod mask;
mod multiplex;
mod new_volumes;
mod nodes;
mod plan;
mod projects;
mod receivers;
mod reports;
mod roles;
mod scope;
mod service;
mod services;
mod session;
mod tokens;
mod trust;
mod upgrade;
mod uploads;
mod usage;
mod volume_archives;
mod volume_error;
mod volumes;
mod watch;

pub(crate) use cluster::Cluster;
pub(crate) use forward::Forwarder;
pub(crate) use new_volumes::FIRST_EPOCH;
pub(crate) use plan::Planner;
pub use service::ControlService;
