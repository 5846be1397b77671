//! The vocabulary of Virtual Cluster, shared by nodes, the CLI and browsers: ids, specs, credentials, and the messages of
//! all protocols.
//!
//! Pure: nothing here does I/O, reads a clock or draws randomness. All encodings are defined here: CBOR for state between
//! nodes ([`wire`], [`gossip`], [`change`], [`route`]); JSON to clients and for requests that a node passes on
//! ([`auth`], [`control`], [`exec`], [`mod@file`], [`log`], [`image`]); JWT for credentials ([`token`]). `docs/formats.md` describes them.

mod address;
pub mod alert;
pub mod audit;
pub mod auth;
pub mod backup;
pub mod change;
pub mod control;
pub mod error;
pub mod event;
pub mod exec;
pub mod file;
pub mod gossip;
pub mod http;
mod id;
pub mod identity;
pub mod image;
pub mod instance;
pub mod lease;
pub mod log;
pub mod node;
#[doc(hidden)]
pub mod planted;
mod resources;
pub mod route;
pub mod run;
pub mod spec;
mod stored;
mod time;
pub mod token;
mod trace;
mod version;
pub mod volume;
pub mod wire;

pub use address::{AddressKind, DEFAULT_PORT};
pub use error::{ApiError, ErrorCode};
pub use id::{
    ClusterId, IdError, InstanceId, Name, NetworkKey, NodeId, ServiceKey, Slot, VolumeKey,
};
pub use libp2p_identity::{Keypair, PeerId};
pub use multiaddr::Multiaddr;
pub use resources::{ParseResourceError, Resources, parse_cpus, parse_memory};
pub use stored::Stored;
pub use time::{DurationError, Lamport, Millis, in_words, parse_duration, rfc3339};
pub use trace::{ParseTraceIdError, TraceId};
pub use version::{ProtocolVersions, Supports};
