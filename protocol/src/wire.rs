//! How values become bytes between nodes: CBOR (RFC 8949), bounded before it is read.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest frame on a stream between nodes, and between a client and a node, in bytes.
pub const MAX_FRAME: usize = 4 * 1024 * 1024;
/// The largest gossip message, in bytes. A change that does not fit travels by anti-entropy.
pub const MAX_GOSSIP: usize = 64 * 1024;
/// The largest set of changes in one frame, in bytes; a larger change travels alone.
pub const MAX_BATCH: usize = 512 * 1024;
/// The largest change, in bytes: a deployment with the secrets and configs that it brings along is one, all or nothing.
/// A frame holds it beside the certificates of all members.
pub const MAX_CHANGE: usize = 2 * 1024 * 1024;

/// Protocol name: proving who one is; every other protocol is closed until that has happened.
pub const AUTH_PROTOCOL: &str = "/vc/auth/1";
/// Protocol name: anti-entropy between members, one stream a direction.
pub const SYNC_PROTOCOL: &str = "/vc/sync/1";
/// Protocol name: a member asks another for the log of an instance it runs.
pub const LOGS_PROTOCOL: &str = "/vc/logs/1";
/// Protocol name: a member runs a command in an instance of another, for a user.
pub const EXEC_PROTOCOL: &str = "/vc/exec/1";
/// Protocol name: a member forwards a connection to an instance of another.
pub const ROUTE_PROTOCOL: &str = "/vc/route/1";
/// Protocol name: a member fetches images from another.
pub const IMAGE_PROTOCOL: &str = "/vc/image/1";

/// Why bytes are not a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct WireError(String);

/// A value as CBOR.
///
/// # Panics
/// Never for the types of this crate: they have no map keys or numbers that CBOR cannot hold.
#[allow(clippy::expect_used, reason = "writing plain data to memory cannot fail")]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("plain data");
    bytes
}

/// A value from CBOR. Errors: not one whole value of this type; deeper than 64 levels.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, 64)
        .map_err(|e| WireError(e.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(WireError("bytes after its end".to_owned())) }
}
