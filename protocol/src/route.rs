//! Forwarding of connections between members: [`ROUTE_PROTOCOL`](crate::wire::ROUTE_PROTOCOL).
//!
//! The opener of the stream sends one [`RouteRequest`], CBOR behind its length as 4 bytes, big endian. The receiver connects
//! to the instance and answers one byte, [`ACCEPTED`] or [`REFUSED`]. Then both sides send records: the length as 2 bytes,
//! big endian, and the content. For TCP the records are consecutive bytes of the connection, and an empty record ends one
//! direction (half-close). For UDP each record is one datagram.
//!
//! Multiplexers report a reset stream as ended, so the end of the stream alone is no clean end: a TCP connection whose
//! stream ends without the empty record is reset on the other side too.

use serde::{Deserialize, Serialize};

use crate::InstanceId;
use crate::spec::PortProtocol;

/// The largest request, in bytes.
pub const MAX_REQUEST: usize = 1024;
/// The largest content of a record, in bytes.
pub const MAX_RECORD: usize = u16::MAX as usize;
/// Answer: the instance is connected.
pub const ACCEPTED: u8 = 0;
/// Answer: the instance is not on this node, or does not accept connections at this port.
pub const REFUSED: u8 = 1;

/// The target of a forwarded connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRequest {
    /// The instance to connect to.
    pub instance: InstanceId,
    /// Port of the instance.
    pub port: u16,
    /// Transport protocol of the port.
    pub protocol: PortProtocol,
}
