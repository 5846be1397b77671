//! The peer-to-peer network: connections, gossip, discovery and streams over libp2p.

pub(crate) mod addresses;
mod backoff;
mod behaviour;
mod bridges;
mod circuits;
mod config;
pub(crate) mod connection_gater;
mod connection_limiter;
mod connections;
mod duplicates;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
pub(crate) mod inbound;
mod limited_transport;
mod listen;
pub(crate) mod message_streams;
mod muxer;
mod swarm;

pub(crate) use behaviour::MAX_STREAMS;
pub(crate) use config::Config;
pub(crate) use swarm::{CLOSE_TIMEOUT, Command, Network};
