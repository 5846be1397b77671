//! Proving who we are, to a node that has proven that it is of the cluster ([`vc_protocol::auth`]).

use std::io;

use futures::{SinkExt as _, StreamExt as _};
use libp2p::swarm::StreamProtocol;
use libp2p::{PeerId, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};
use vc_protocol::auth::{AuthResponse, ClientHello, Credentials, MAX_AUTH_FRAME, ServerHello};
use vc_protocol::token::{self, TokenError};
use vc_protocol::{ClusterId, Multiaddr, NodeId, wire};

/// The version of the protocol that this client speaks.
const VERSION: u32 = 1;

/// The stream of a session, in frames.
pub(super) type Frames = Framed<Compat<Stream>, LengthDelimitedCodec>;

/// Why a node that answered is not the one to talk to.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuthError {
    /// It speaks other protocols.
    #[error("not a node of a Virtual Cluster")]
    NotANode,
    /// It is of another cluster. The token was not sent.
    #[error("a node of another cluster")]
    OtherCluster,
    /// It cannot prove that it is of the cluster. The token was not sent.
    #[error("its certificate does not hold: {0}")]
    Unproven(TokenError),
    /// It is of the cluster, and does not accept the token.
    #[error("refused: {0}")]
    Refused(String),
    /// It is gone, or sent nonsense.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// It does not answer.
    #[error("connected, but no answer")]
    Silent,
}

/// What a member said to a token that it accepts.
pub(super) struct Welcomed {
    /// The stream, which is the user's session now.
    pub(super) frames: Frames,
    /// Who it is.
    pub(super) node: NodeId,
    /// Addresses of members.
    pub(super) peers: Vec<Multiaddr>,
}

/// Opens a stream to a connected peer and shows the token, once the peer has shown that it is of the cluster.
pub(super) async fn authenticate(
    mut control: libp2p_stream::Control,
    peer: PeerId,
    cluster: ClusterId,
    token: String,
) -> Result<Welcomed, AuthError> {
    // Members have Ed25519 keys: any other cannot be one.
    let node = NodeId::try_from(peer).map_err(|_| AuthError::NotANode)?;
    let stream = control
        .open_stream(peer, StreamProtocol::new(wire::AUTH_PROTOCOL))
        .await
        .map_err(|_| AuthError::NotANode)?;
    let mut frames = LengthDelimitedCodec::builder()
        .max_frame_length(MAX_AUTH_FRAME)
        .new_framed(stream.compat());

    send(&mut frames, &ClientHello { version: VERSION }).await?;
    // The protocol's name went along with the greeting: only now it shows whether the other side knows it.
    let proof: ServerHello = receive(&mut frames).await.map_err(|_| AuthError::NotANode)?;
    token::verify_certificate(&proof.certificate, cluster, Some(node)).map_err(
        |error| match error {
            TokenError::WrongCluster(_) => AuthError::OtherCluster,
            error => AuthError::Unproven(error),
        },
    )?;

    send(&mut frames, &Credentials::User { token }).await?;
    match receive(&mut frames).await? {
        AuthResponse::User { role: _, peers } => {
            frames.codec_mut().set_max_frame_length(wire::MAX_FRAME);
            Ok(Welcomed { frames, node, peers })
        }
        AuthResponse::Refused { reason, busy: _ } => Err(AuthError::Refused(reason)),
        AuthResponse::Joined(_) | AuthResponse::Member { .. } => {
            Err(AuthError::Broken("it took us for a node".to_owned()))
        }
    }
}

async fn send<T: Serialize>(frames: &mut Frames, value: &T) -> Result<(), AuthError> {
    let bytes = serde_json::to_vec(value).map_err(|error| AuthError::Broken(error.to_string()))?;
    frames.send(&bytes[..]).await.map_err(|error| broken(&error))
}

async fn receive<T: DeserializeOwned>(frames: &mut Frames) -> Result<T, AuthError> {
    match frames.next().await {
        Some(Ok(bytes)) => serde_json::from_slice(&bytes)
            .map_err(|_| AuthError::Broken("it sent something else".to_owned())),
        Some(Err(error)) => Err(broken(&error)),
        None => Err(AuthError::Broken("closed by the node".to_owned())),
    }
}

fn broken(error: &io::Error) -> AuthError {
    AuthError::Broken(error.kind().to_string())
}
