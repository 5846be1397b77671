//! The auth handshake: [`AUTH_PROTOCOL`](crate::wire::AUTH_PROTOCOL), the only protocol that is open to an
//! unauthenticated peer.
//!
//! The transport (Noise or TLS) has authenticated the peer ids of both sides. The dialer sends [`ClientHello`]; the listener
//! answers with [`ServerHello`], so that no credential is sent to a node outside the cluster; the dialer sends its
//! [`Credentials`]; the listener answers with [`AuthResponse`]. An accepted user continues with [`crate::control`] on the
//! same stream. Every frame is JSON behind its length as 4 bytes, big endian.

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::token::UserRole;
use crate::{Name, NodeId, ProtocolVersions};

/// The largest frame of the handshake, in bytes.
pub const MAX_AUTH_FRAME: usize = 16 * 1024;

/// The dialer's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// Protocol versions of the dialer.
    #[serde(flatten)]
    pub versions: ProtocolVersions,
}

/// The listener's first frame: proof that it is a member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHello {
    /// Membership certificate, bound to the listener's peer id.
    pub certificate: String,
    /// Protocol versions of the listener. The dialer goes on only if the two have a version in common.
    #[serde(default, flatten)]
    pub versions: ProtocolVersions,
}

/// The dialer's credentials.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credentials {
    /// The dialer is a node that wants to join.
    Join {
        /// Join token from `vc token create`.
        token: String,
        /// Display name of the node.
        name: Name,
    },
    /// The dialer is a member.
    Member {
        /// Membership certificate, bound to the dialer's peer id.
        certificate: String,
    },
    /// The dialer is a client of the control protocol.
    User {
        /// Token of the user.
        token: String,
        /// From a worker that passes on a request: the IP address of its client.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<String>,
    },
}

/// The listener's answer to [`Credentials`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthResponse {
    /// The node is admitted.
    Joined(Box<JoinResponse>),
    /// The member is authenticated.
    Member {
        /// Whether the listener knew the member before. If not, this connection was opened without the members' protocols
        /// and has to be opened again.
        known: bool,
    },
    /// The user is authenticated. The stream is a control session from here on.
    User {
        /// The role of the token.
        role: UserRole,
        /// Addresses of members, for reconnecting when this node is down.
        peers: Vec<Multiaddr>,
    },
    /// The peer is rejected.
    Refused {
        /// Cause and fix in one line.
        reason: String,
        /// Whether only a limit of this node was reached: another node, or the same one later, may accept.
        #[serde(default)]
        busy: bool,
        /// Whether the peer was a member and was removed from the cluster.
        #[serde(default)]
        removed: bool,
    },
}

/// What a node needs once it is admitted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinResponse {
    /// Membership certificate of the new node.
    pub certificate: String,
    /// The certificates of the members that the admitting node knows.
    pub certificates: Vec<String>,
    /// The cluster's root key (Ed25519 seed, base64); servers only, which admit other nodes with it.
    pub cluster_key: Option<String>,
    /// The signing key (Ed25519 seed, base64), unless that is the root key; servers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
    /// The key of secrets and configs (XChaCha20-Poly1305, 32 bytes, base64); servers only, which hand over contents to the
    /// workers that need them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_key: Option<String>,
    /// Addresses at which members can be dialled.
    pub peers: Vec<Multiaddr>,
}

/// The request of a server for private keys ([`TRUST_PROTOCOL`](crate::wire::TRUST_PROTOCOL)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRequest {
    /// The signing key that it lacks.
    pub signing_key: NodeId,
}

/// The answer to [`KeyRequest`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyResponse {
    /// The keys.
    Keys {
        /// The signing key (Ed25519 seed, base64).
        signing_key: String,
    },
    /// The answering server has none for this node, for this reason.
    Refused {
        /// Cause and fix in one line.
        reason: String,
    },
}

/// A request to another member in the name of a user. The member that performs it verifies the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegated<T> {
    /// The user's token.
    pub token: String,
    /// IP address of the client, as the member that has its session says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The request.
    #[serde(flatten)]
    pub request: T,
}

impl<T> Delegated<T> {
    /// Returns the request with the user's token and address.
    pub fn new(token: String, address: Option<String>, request: T) -> Self {
        Self { token, address, request }
    }
}
