//! Joining a cluster with a token.

use std::path::Path;

use vc_protocol::auth::JoinResponse;
use vc_protocol::token::{
    Claims, NodeRole, Scope, TokenError, decode_unverified, verify, verify_certificate,
};
use vc_protocol::{AddressKind, ApiError, Keypair, Multiaddr, Name, NodeId};

use crate::clock;
use crate::credentials::Credentials;
use crate::identity::{self, KeyError, Membership};
use crate::seal::{KeyFormatError, Seal};

/// Why this node did not join. It is not a member.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// The token is not valid.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token is valid for something else.
    #[error("this is a {0} token: make one for nodes with 'vc token create --node'")]
    Scope(&'static str),
    /// The token has no address that a node can dial.
    #[error(
        "the token names no address that a node can dial: make another with 'vc token create --node'"
    )]
    NoAddress,
    /// No member admitted this node.
    #[error("cannot join the cluster: {0}")]
    Connect(ApiError),
    /// The certificate in the answer is not this node's.
    #[error("the certificate in the member's answer is not valid for this node: {0}")]
    Certificate(TokenError),
    /// The cluster's root key in the answer is malformed.
    #[error("the cluster key in the member's answer is malformed: {0}")]
    ClusterKey(#[from] KeyError),
    /// The cluster's root key in the answer belongs to another cluster.
    #[error("the cluster key in the member's answer belongs to another cluster")]
    OtherClusterKey,
    /// The key of secrets and configs in the answer is malformed.
    #[error("the files key in the member's answer is malformed: {0}")]
    FilesKey(#[from] KeyFormatError),
    /// A server has to have the key of secrets and configs.
    #[error("the member's answer lacks the files key, which a server needs")]
    NoFilesKey,
    /// This node's key is not an Ed25519 key.
    #[error("this node's key is not an Ed25519 key")]
    KeyType,
}

/// Joins the cluster of a token with the node's `key`, as the node of a data directory. Returns the membership, and the answer of the member that admitted
/// this node.
pub(crate) async fn join(
    dir: &Path,
    token: &str,
    key: Keypair,
    name: &Name,
) -> Result<(Membership, JoinResponse), JoinError> {
    // What can be checked without a connection is checked first.
    let cluster = decode_unverified(token)?.aud;
    let claims = match verify(token, cluster, clock::now()) {
        // This node's clock may be wrong: the member that admits it decides.
        Err(TokenError::NotYetValid | TokenError::Expired) => decode_unverified(token)?,
        verified => verified?,
    };
    let Scope::Join(_) = claims.scope else {
        return Err(JoinError::Scope(claims.scope.kind()));
    };
    let node = NodeId::of(&key.public()).map_err(|_| JoinError::KeyType)?;
    let members = dialable(&claims);
    if members.is_empty() {
        return Err(JoinError::NoAddress);
    }
    let response = vc_client::join(key.clone(), cluster, token, name, &members)
        .await
        .map_err(|error| JoinError::Connect(error.into()))?;
    let (_, role) = verify_certificate(&response.certificate, cluster, Some(node))
        .map_err(JoinError::Certificate)?;
    let root = response.cluster_key.as_deref().map(identity::decode_key).transpose()?;
    if root.as_ref().is_some_and(|root| root.public().to_peer_id() != cluster.peer_id()) {
        return Err(JoinError::OtherClusterKey);
    }
    // Earlier versions send it to workers too.
    let seal = match (role, &response.file_key) {
        (NodeRole::Worker, _) => None,
        (NodeRole::Server, Some(key)) => Some(Seal::decode(key)?),
        (NodeRole::Server, None) => return Err(JoinError::NoFilesKey),
    };
    let signing = response.signing_key.as_deref().map(identity::decode_key).transpose()?;
    let signing = signing.into_iter().collect();
    let credentials = Credentials::new(response.certificate.clone(), signing);
    let (dir, since) = (dir.to_owned(), clock::now());
    Ok((Membership { dir, key, node, cluster, credentials, root, seal, since }, response))
}

/// Returns the addresses in a token that nodes dial: neither those for browsers nor circuits.
fn dialable(claims: &Claims) -> Vec<Multiaddr> {
    let direct = |address: &&Multiaddr| AddressKind::of(address) == Some(AddressKind::Direct);
    claims.peers.iter().filter(direct).cloned().collect()
}
