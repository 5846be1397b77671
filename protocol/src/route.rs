//! How a member forwards a connection to an instance of another: [`ROUTE_PROTOCOL`](crate::wire::ROUTE_PROTOCOL).
//!
//! Who opens the stream sends one [`RouteRequest`], CBOR behind its length as 4 bytes, big endian. The other connects to
//! the instance and answers one byte, [`ACCEPTED`] or [`REFUSED`]. Then records go both ways: 2 bytes of length, big
//! endian, and so many bytes. For TCP the records together are the bytes of the connection, and an empty one says that
//! no more follow, while the other direction goes on. For UDP a record is a datagram.
//!
//! The end of the stream says nothing but that it is over: multiplexers report a stream that was reset as one that has
//! ended. So a TCP connection whose stream ends before the empty record was cut, and is reset at the other end too.

use serde::{Deserialize, Serialize};

use crate::InstanceId;
use crate::spec::PortProtocol;

/// The largest request, in bytes.
pub const MAX_REQUEST: usize = 1024;
/// The largest content of a record, in bytes.
pub const MAX_RECORD: usize = u16::MAX as usize;
/// Answer: the instance is connected.
pub const ACCEPTED: u8 = 0;
/// Answer: it is not here, or takes no connections, or takes none at this port.
pub const REFUSED: u8 = 1;

/// Where a connection is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRequest {
    /// To which instance.
    pub instance: InstanceId,
    /// To which port of it.
    pub port: u16,
    /// By which protocol.
    pub protocol: PortProtocol,
}
