//! The dialling side of the handshake ([`vc_protocol::auth`]): sends no credential before the peer has proven that it is
//! a member of the cluster.

use std::time::Duration;

use libp2p::swarm::StreamProtocol;
use libp2p::{PeerId, Stream};
use tokio::time::timeout;
use vc_protocol::auth::{AuthResponse, ClientHello, Credentials, MAX_AUTH_FRAME, ServerHello};
use vc_protocol::token::{self, TokenError};
use vc_protocol::{ClusterId, NodeId, ProtocolVersions, wire};

use crate::frames::{FrameError, Frames};

/// A member completes the handshake of another member within this time.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a connected peer did not accept the handshake.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It does not speak the auth protocol.
    #[error("not a node of a Virtual Cluster")]
    NotANode,
    /// It is a member of another cluster. No credential was sent.
    #[error("a node of another cluster")]
    OtherCluster,
    /// Its certificate is invalid or belongs to another node. No credential was sent.
    #[error("invalid certificate: {0}")]
    Certificate(TokenError),
    /// Its certificate depends on another signing key than the token, and that key does not follow from the token's. The token was
    /// not sent.
    #[error(
        "the node has no certificate of the signing key that the token depends on: it does not know of a rotation yet, or was removed before"
    )]
    SigningKey,
    /// It is a member and speaks no version of the protocol that this program speaks. No credential was sent.
    #[error("the node speaks {node} of the protocol, this program {}: upgrade {}", ProtocolVersions::OURS, older(*.node))]
    Version {
        /// What the node speaks.
        node: ProtocolVersions,
    },
    /// It is a member and rejected the credential, for this reason.
    #[error("refused: {reason}")]
    Refused {
        /// The reason that the member gave.
        reason: String,
        /// Whether it is only that the member has reached a limit; another may accept.
        busy: bool,
        /// Whether this is a member that was removed from the cluster, as the other member says.
        removed: bool,
    },
    /// The stream failed, or carried a malformed frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Its answer does not belong to the request.
    #[error("the node answered with a message of the wrong kind")]
    Unexpected,
    /// It did not answer in time.
    #[error("connected, but no answer")]
    TimedOut,
}

/// Returns which side is to be upgraded.
fn older(node: ProtocolVersions) -> &'static str {
    match node.version < ProtocolVersions::OURS.version {
        true => "vc-node on the node",
        false => "this program",
    }
}

/// The result of a successful handshake.
pub struct Accepted {
    /// The answer to the [`Credentials`]; never [`AuthResponse::Refused`].
    pub response: AuthResponse,
    /// The stream; after [`Credentials::User`] it is a control session.
    pub frames: Frames<Stream>,
    /// The member at the other end.
    pub node: NodeId,
}

/// Opens an auth stream on a connection to `peer`, verifies that it is a member of `cluster`, and sends `credentials`.
///
/// # Errors
/// The peer is not a member, refused, or broke the protocol. There is no time limit.
pub async fn authenticate(
    mut control: libp2p_stream::Control,
    peer: PeerId,
    cluster: ClusterId,
    credentials: &Credentials,
) -> Result<Accepted, HandshakeError> {
    // Members have Ed25519 keys: a peer with any other key cannot be one.
    let node = NodeId::try_from(peer).map_err(|_| HandshakeError::NotANode)?;
    let stream = control
        .open_stream(peer, StreamProtocol::new(wire::AUTH_PROTOCOL))
        .await
        .map_err(|_| HandshakeError::NotANode)?;
    let mut frames = Frames::new(stream, MAX_AUTH_FRAME);

    let versions = ProtocolVersions::OURS;
    frames.send(&ClientHello { versions }).await?;
    // With lazy negotiation the protocol's name travels with the greeting: whether the peer supports it shows only now.
    let proof: ServerHello = frames.receive().await.map_err(|_| HandshakeError::NotANode)?;
    token::verify_certificate(&proof.certificate, cluster, Some(node)).map_err(
        |error| match error {
            TokenError::WrongCluster(_) => HandshakeError::OtherCluster,
            error => HandshakeError::Certificate(error),
        },
    )?;

    // A server that was removed knows the root key, but no signing key that was made since.
    let token = match credentials {
        Credentials::User { token, .. } | Credentials::Join { token, .. } => Some(token),
        Credentials::Member { .. } => None,
    };
    if let Some(token) = token {
        let is_issuer = token::decode_unverified(token).is_ok_and(|claims| claims.iss == node);
        let known = token::signing_key_of(token, cluster);
        if !is_issuer && !token::is_successor(&proof.certificate, cluster, known) {
            return Err(HandshakeError::SigningKey);
        }
    }

    if versions.common(proof.versions).is_none() {
        return Err(HandshakeError::Version { node: proof.versions });
    }

    // An admission carries a certificate of every member.
    frames.set_max(wire::MAX_FRAME);
    frames.send(credentials).await?;
    match (credentials, frames.receive().await?) {
        (_, AuthResponse::Refused { reason, busy, removed }) => {
            Err(HandshakeError::Refused { reason, busy, removed })
        }
        (Credentials::User { .. }, response @ AuthResponse::User { .. })
        | (Credentials::Join { .. }, response @ AuthResponse::Joined(_))
        | (Credentials::Member { .. }, response @ AuthResponse::Member { .. }) => {
            Ok(Accepted { response, frames, node })
        }
        _ => Err(HandshakeError::Unexpected),
    }
}

/// Shows this member's certificate to another member. Returns whether that one knew it before; if not, the connection
/// came up without the members' protocols and must be made again.
pub async fn prove_membership(
    control: libp2p_stream::Control,
    peer: NodeId,
    cluster: ClusterId,
    certificate: String,
) -> Result<bool, HandshakeError> {
    let credentials = Credentials::Member { certificate };
    let handshake = authenticate(control, peer.peer_id(), cluster, &credentials);
    match timeout(MEMBER_TIMEOUT, handshake).await {
        Ok(Ok(Accepted { response: AuthResponse::Member { known }, .. })) => Ok(known),
        Ok(Ok(_)) => Err(HandshakeError::Unexpected),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(HandshakeError::TimedOut),
    }
}
