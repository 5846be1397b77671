//! The vocabulary of Virtual Cluster, shared by every node, the CLI and the browser.
//!
//! Pure: nothing here does I/O, reads a clock or draws randomness. Encodings are fixed here and nowhere else:
//! CBOR between nodes ([`wire`]), JSON towards users ([`control`]), JWT for credentials ([`token`]).

mod address;
pub mod auth;
pub mod change;

pub mod control;
pub mod error;
pub mod exec;
pub mod gossip;
pub mod http;
mod id;
pub mod instance;
pub mod log;
pub mod node;
mod resources;
pub mod route;
pub mod spec;
pub mod token;
pub mod wire;

pub use address::AddressKind;
pub use error::{ApiError, ErrorCode};
pub use id::{ClusterId, IdError, InstanceId, Name, NodeId, ServiceKey, Slot, VolumeKey};
pub use libp2p_identity::{Keypair, PeerId};
pub use multiaddr::Multiaddr;
pub use resources::{ParseResourceError, Resources, parse_cpus, parse_memory};

/// Milliseconds since the Unix epoch. Every duration and instant in the workspace is in milliseconds.
pub type Millis = u64;

/// TCP and QUIC port of a node unless told otherwise.
pub const DEFAULT_PORT: u16 = 4777;
