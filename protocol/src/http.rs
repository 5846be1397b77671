//! HTTP requests and WebSockets to the instances of a service, through any node: [`Request::Fetch`] and
//! [`Request::Socket`].
//!
//! The node selects an instance as it does for a published port, sends the request over HTTP/1.1 and forwards the
//! response. Only TCP ports that a service publishes on addresses other than loopback are reachable, for users of any
//! role; that includes ports bound to one address.
//!
//! [`Request::Fetch`]: crate::control::Request::Fetch
//! [`Request::Socket`]: crate::control::Request::Socket

use serde::{Deserialize, Serialize};

use crate::{InstanceId, NodeId};

/// The largest frame of a body, in bytes.
pub const MAX_BODY_FRAME: usize = 64 * 1024;
/// The largest WebSocket message, in bytes.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// The most headers of one request.
pub const MAX_HEADERS: usize = 128;

/// An HTTP request to an instance.
///
/// If `body` is set, the body follows immediately in frames of bytes, the last of them empty. The answer is
/// [`Reply::Response`](crate::control::Reply::Response) followed by its body in the same form, or
/// [`Reply::Error`](crate::control::Reply::Error). A stream that ends without the empty frame was interrupted. The node
/// closes the stream after one exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchRequest {
    /// The service: `web` or `shop/web`.
    pub service: String,
    /// The published port; `None` for the only one.
    pub port: Option<u16>,
    /// Request method, such as `GET`.
    pub method: String,
    /// Path and query, starting with a slash.
    pub target: String,
    /// Names and values, in order. Non-ASCII bytes of a value are Latin-1. Hop-by-hop headers (`connection`,
    /// `transfer-encoding`, …) are dropped: the node sets its own.
    pub headers: Vec<(String, String)>,
    /// Whether a body follows.
    #[serde(default)]
    pub body: bool,
}

/// Status and headers of an instance's response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseHead {
    /// HTTP status code.
    pub status: u16,
    /// Names and values, in order, as in [`FetchRequest::headers`].
    pub headers: Vec<(String, String)>,
    /// The instance that answered.
    pub instance: InstanceId,
    /// The node that runs it.
    pub node: NodeId,
}

/// A request for a WebSocket (RFC 6455) to an instance.
///
/// The answer is [`Reply::Response`](crate::control::Reply::Response): with status 101 and the selected subprotocol among
/// its headers, after which both sides send [`SocketFrame`]s; or with another status if the instance refused, followed by
/// the body as for [`FetchRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketRequest {
    /// The service: `web` or `shop/web`.
    pub service: String,
    /// The published port; `None` for the only one.
    pub port: Option<u16>,
    /// Path and query, starting with a slash.
    pub target: String,
    /// Names and values, in order, such as cookies and origin.
    pub headers: Vec<(String, String)>,
    /// Subprotocols to select from, the preferred first.
    pub protocols: Vec<String>,
}

/// A WebSocket message: the kind in 1 byte, then the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketFrame {
    /// Kind 1: text, UTF-8.
    Text(String),
    /// Kind 2: binary data.
    Binary(Vec<u8>),
    /// Kind 8: close. Empty, or a code (2 bytes, big endian) and a reason (UTF-8).
    Close(Option<(u16, String)>),
}

impl SocketFrame {
    /// Encodes the message, without its length.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => [&[1], text.as_bytes()].concat(),
            Self::Binary(bytes) => [&[2], bytes.as_slice()].concat(),
            Self::Close(None) => vec![8],
            Self::Close(Some((code, reason))) => {
                [&[8], code.to_be_bytes().as_slice(), reason.as_bytes()].concat()
            }
        }
    }

    /// Decodes a message, or returns `None` if it is malformed.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        match kind {
            1 => text(rest).map(Self::Text),
            2 => Some(Self::Binary(rest.to_vec())),
            8 if rest.is_empty() => Some(Self::Close(None)),
            8 => {
                let (code, reason) = rest.split_first_chunk::<2>()?;
                Some(Self::Close(Some((u16::from_be_bytes(*code), text(reason)?))))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip() {
        for frame in [
            SocketFrame::Text("grüß dich".to_owned()),
            SocketFrame::Text(String::new()),
            SocketFrame::Binary(vec![0, 255]),
            SocketFrame::Close(None),
            SocketFrame::Close(Some((1001, "going away".to_owned()))),
        ] {
            assert_eq!(SocketFrame::from_bytes(&frame.to_bytes()), Some(frame));
        }
    }

    #[test]
    fn malformed_frames_are_rejected() {
        for bytes in [&[][..], &[1, 0xff], &[8, 3], &[8, 3, 232, 0xff], &[9], &[0]] {
            assert_eq!(SocketFrame::from_bytes(bytes), None, "{bytes:?}");
        }
    }
}
