//! Joining a cluster with a token.

use anyhow::Context as _;
use vc_protocol::auth::JoinResponse;
use vc_protocol::token::{Claims, Scope, decode_unverified, verify, verify_certificate};
use vc_protocol::{AddressKind, ApiError, Keypair, Multiaddr, Name, NodeId};

use crate::identity::{self, Membership};
use crate::seal::Seal;

/// Joins with a token; returns the membership and where members are. Errors: the token does not hold, nobody answers,
/// or nobody lets us in.
pub(crate) async fn join(
    token: &str,
    key: Keypair,
    name: &Name,
) -> anyhow::Result<(Membership, JoinResponse)> {
    let claims = decode_unverified(token)?;
    let cluster = claims.aud;
    // What can be known without asking is said without asking.
    let claims = verify(token, cluster, crate::clock::now())?;
    let Scope::Join(_) = claims.scope else {
        anyhow::bail!(
            "this is a {} token: make one for nodes with 'vc token create --node'",
            claims.scope.kind()
        );
    };
    let node = NodeId::of(&key.public())?;
    let members = dialable(&claims);
    anyhow::ensure!(!members.is_empty(), "the token names no address that a node can dial");
    let admission = vc_client::join(key.clone(), cluster, token, name, &members)
        .await
        .map_err(ApiError::from)
        .context("cannot join the cluster")?;
    verify_certificate(&admission.certificate, cluster, Some(node))
        .context("the certificate that came is not ours")?;
    let root = match &admission.cluster_key {
        Some(text) => {
            let root =
                identity::decode_key(text).context("the cluster key that came does not read")?;
            anyhow::ensure!(
                root.public().to_peer_id() == cluster.peer_id(),
                "the cluster key that came is another's"
            );
            Some(root)
        }
        None => None,
    };
    let seal =
        Seal::decode(&admission.file_key).context("the files' key that came does not read")?;
    let certificate = admission.certificate.clone();
    let since = crate::clock::now();
    Ok((Membership { key, node, cluster, certificate, root, seal, since }, admission))
}

/// The addresses in a token that a node can dial: not those for browsers, nor those that lead through a member.
fn dialable(claims: &Claims) -> Vec<Multiaddr> {
    let native = |address: &&Multiaddr| AddressKind::of(address) == Some(AddressKind::Direct);
    claims.peers.iter().filter(native).cloned().collect()
}
