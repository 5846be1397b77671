//! HTTP and WebSockets to the instances of a service, asked of any node: [`Request::Fetch`] and [`Request::Socket`].
//!
//! The node chooses an instance as it does for a published port, speaks HTTP/1.1 with it, and passes on what it says.
//! Only TCP ports that a service publishes beyond the node itself can be asked for. One that is bound to an address of
//! some network is among them: a user of any role gets to it by way of the mesh.
//!
//! [`Request::Fetch`]: crate::control::Request::Fetch
//! [`Request::Socket`]: crate::control::Request::Socket

use serde::{Deserialize, Serialize};

use crate::{InstanceId, NodeId};

/// The largest frame of a body, in bytes.
pub const MAX_BODY_FRAME: usize = 64 * 1024;
/// The largest message of a WebSocket, in bytes.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// The most headers of a request.
pub const MAX_HEADERS: usize = 128;

/// A request to an instance.
///
/// When `body` is set, the body follows the request at once, as frames of bytes that an empty one ends. The answer is
/// [`Reply::Response`](crate::control::Reply::Response), followed by its body in the same way, or
/// [`Reply::Error`](crate::control::Reply::Error). A stream that ends before the empty frame was cut. After one exchange
/// the node closes the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchRequest {
    /// Which service: `web` or `shop/web`.
    pub service: String,
    /// Which of the ports that it publishes; `None`: its only one.
    pub port: Option<u16>,
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query, from the slash on.
    pub target: String,
    /// Name and value, in their order. Bytes of a value that are not ASCII are read as Latin-1. Headers of one hop
    /// (`connection`, `transfer-encoding`, …) are the node's business and left out.
    pub headers: Vec<(String, String)>,
    /// Whether a body follows.
    #[serde(default)]
    pub body: bool,
}

/// The beginning of an instance's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseHead {
    /// Its status code.
    pub status: u16,
    /// Name and value, in their order; as in [`FetchRequest::headers`].
    pub headers: Vec<(String, String)>,
    /// Which instance answered.
    pub instance: InstanceId,
    /// On which node.
    pub node: NodeId,
}

/// A WebSocket (RFC 6455) to an instance.
///
/// The answer is [`Reply::Response`](crate::control::Reply::Response) with status 101 and the chosen subprotocol among its
/// headers; with another status when the instance refused, and then its body follows as for a fetch. From then on both
/// sides send messages, each a frame whose first byte is a [`SocketFrame`]'s kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketRequest {
    /// Which service.
    pub service: String,
    /// Which of the ports that it publishes; `None`: its only one.
    pub port: Option<u16>,
    /// Path and query, from the slash on.
    pub target: String,
    /// Name and value, in their order: cookies, origin.
    pub headers: Vec<(String, String)>,
    /// Subprotocols to choose from, the best first.
    pub protocols: Vec<String>,
}

/// What passes on a WebSocket: a kind, 1 byte, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketFrame {
    /// Kind 1: text, UTF-8.
    Text(String),
    /// Kind 2: bytes.
    Binary(Vec<u8>),
    /// Kind 8: it is over. A code, 2 bytes, big endian, and a reason, UTF-8; or nothing at all.
    Close(Option<(u16, String)>),
}

impl SocketFrame {
    /// As a frame.
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

    /// From a frame; `None`: it is none.
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
    fn a_frame_comes_back_as_it_went() {
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
    fn what_is_no_frame_is_refused() {
        for bytes in [&[][..], &[1, 0xff], &[8, 3], &[8, 3, 232, 0xff], &[9], &[0]] {
            assert_eq!(SocketFrame::from_bytes(bytes), None, "{bytes:?}");
        }
    }
}
