//! The one protocol that a stranger may speak: proving who he is.
//!
//! The transport (Noise or TLS) has proven the peer id of both sides. The dialler greets, the listener shows its
//! membership certificate first, so that no credential is given to a node that is not of the cluster; then the
//! dialler says who it is and is welcomed or refused. A welcomed user goes on in [`crate::control`] on the same stream.
//! Frames are JSON, each behind its length as 4 bytes, big endian.

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::Name;
use crate::token::UserRole;

/// The largest frame before a peer is known, in bytes.
pub const MAX_AUTH_FRAME: usize = 16 * 1024;

/// The dialler's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// Version of this protocol.
    pub version: u32,
}

/// The listener's first frame: it is of this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHello {
    /// Its membership certificate, bound to its peer id.
    pub certificate: String,
}

/// Who the dialler is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credentials {
    /// A node that wants to join.
    Join {
        /// Join token.
        token: String,
        /// The name it goes by.
        name: Name,
    },
    /// A member.
    Member {
        /// Its membership certificate, bound to its peer id.
        certificate: String,
    },
    /// A user.
    User {
        /// User token.
        token: String,
    },
}

/// The listener's answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthResponse {
    /// To a node that joined.
    Joined(Box<JoinResponse>),
    /// To a member.
    Member {
        /// Whether it was known as one before. If not, this connection came up without the members' protocols and
        /// has to be made again.
        known: bool,
    },
    /// To a user. The stream is his control session now.
    User {
        /// What he may do.
        role: UserRole,
        /// Addresses of members, to remember for the day this one is gone.
        peers: Vec<Multiaddr>,
    },
    /// To anybody else; one line that says why.
    Refused {
        /// Why.
        reason: String,
        /// Whether it is only that there is no room here at the moment.
        #[serde(default)]
        busy: bool,
    },
}

/// What a node that joined needs from now on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinResponse {
    /// Its membership certificate.
    pub certificate: String,
    /// Those of the members that the admitting one knows.
    pub certificates: Vec<String>,
    /// The cluster's secret key (Ed25519 seed, base64), for servers: with it they admit others.
    pub cluster_key: Option<String>,
    /// The key that secrets and configs are sealed with in the documents (32 bytes, base64), for every member.
    pub file_key: String,
    /// Addresses of members.
    pub peers: Vec<Multiaddr>,
}
