//! Protocol names, size limits, and the CBOR encoding (RFC 8949) of messages between nodes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

/// The largest frame on a stream between nodes, and between a client and a node, in bytes.
pub const MAX_FRAME: usize = 4 * 1024 * 1024;
/// The largest gossip message, in bytes. A larger change is sent by anti-entropy.
pub const MAX_GOSSIP: usize = 64 * 1024;
/// The largest batch of changes in one frame, in bytes; a larger change is sent alone.
pub const MAX_BATCH: usize = 512 * 1024;
/// The largest change, in bytes. A deployment with its secrets and configs is one change. A frame has room for it and
/// the certificates of all members.
pub const MAX_CHANGE: usize = 2 * 1024 * 1024;

/// Protocol name: authentication; all other protocols are closed until it succeeds.
pub const AUTH_PROTOCOL: &str = "/vc/auth/1";
/// Protocol name: members check that only one process runs with the identity of each.
pub const IDENTITY_PROTOCOL: &str = "/vc/identity/1";
/// Protocol name: anti-entropy between members, one stream per direction.
pub const SYNC_PROTOCOL: &str = "/vc/sync/1";
/// Protocol name: a member reads the log of an instance on another member.
pub const LOGS_PROTOCOL: &str = "/vc/logs/1";
/// Protocol name: a member runs a command in an instance on another member, for a user.
pub const EXEC_PROTOCOL: &str = "/vc/exec/1";
/// Protocol name: a member forwards a connection to an instance on another member.
pub const ROUTE_PROTOCOL: &str = "/vc/route/1";
/// Protocol name: a member fetches images from another.
pub const IMAGE_PROTOCOL: &str = "/vc/image/1";
/// Protocol name: a member asks a server for the content of a secret or config.
pub const FILES_PROTOCOL: &str = "/vc/files/1";
/// Records of the audit log, between members: see [`crate::audit`].
pub const AUDIT_PROTOCOL: &str = "/vc/audit/1";
/// Protocol name: a member asks for the events that it has missed: see [`crate::event`].
pub const EVENTS_PROTOCOL: &str = "/vc/events/1";
/// Protocol name: a member asks what the instances of another use. The request is an empty JSON object, the answer one
/// [`Reply::Usage`](crate::control::Reply::Usage).
pub const USAGE_PROTOCOL: &str = "/vc/usage/1";
/// Protocol name: members ask the voters for leases: see [`crate::lease`].
pub const LEASE_PROTOCOL: &str = "/vc/lease/1";
/// Protocol name: a member gets a snapshot of a volume from another: see [`crate::volume`].
pub const VOLUME_PROTOCOL: &str = "/vc/volume/1";
/// Protocol name: a server gets the private keys that a rotation has made from another server.
pub const TRUST_PROTOCOL: &str = "/vc/trust/1";

/// Bytes that do not decode to the expected value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct WireError(String);

/// Encodes a value as CBOR.
///
/// # Panics
/// Never for the types of this crate: all of them have a CBOR encoding.
#[allow(clippy::expect_used, reason = "writing plain data to memory cannot fail")]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("plain data");
    bytes
}

/// Returns 64 bits of SHA-256 over the CBOR encoding of a value, to compare values in heartbeats.
pub fn fingerprint<T: Serialize>(value: &T) -> u64 {
    let hash = Sha256::digest(encode(value));
    hash[..8].iter().fold(0, |sum, &byte| (sum << 8) | u64::from(byte))
}

/// Decodes a value from CBOR. Fails if the bytes are not exactly one value of this type, or nested deeper than 64 levels.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, 64)
        .map_err(|e| WireError(e.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(WireError("trailing bytes".to_owned())) }
}
