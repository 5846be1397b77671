//! Joining a cluster: a short-lived swarm that speaks the auth protocol and nothing else.

use std::time::Duration;

use anyhow::Context as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId, SwarmBuilder, noise, tcp, yamux};
use vc_protocol::auth::JoinResponse;
use vc_protocol::token::{Claims, Scope, decode_unverified, verify, verify_certificate};
use vc_protocol::{AddressKind, Keypair, Name, NodeId};

use crate::auth;
use crate::identity::{self, Membership};
use crate::seal::Seal;

/// From the first dial to the admission.
const PATIENCE: Duration = Duration::from_secs(20);

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
    let claims = verify(token, cluster, crate::now())?;
    let Scope::Join(_) = claims.scope else {
        anyhow::bail!(
            "this is a {} token: make one for nodes with 'vc token create --node'",
            claims.scope.kind()
        );
    };
    let node = NodeId::of(&key.public())?;
    let asked = ask(token, &claims, key.clone(), name);
    let admission = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| {
        anyhow::anyhow!("no member of the cluster answered in time at {}", list(&dialable(&claims)))
    })??;
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
    let since = crate::now();
    Ok((Membership { key, node, cluster, certificate, root, seal, since }, admission))
}

/// Dials all peers that the token names and takes the first admission.
async fn ask(
    token: &str,
    claims: &Claims,
    key: Keypair,
    name: &Name,
) -> anyhow::Result<JoinResponse> {
    let streams = libp2p_stream::Behaviour::new();
    let control = streams.new_control();
    let mut swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_quic()
        .with_behaviour(|_| streams)
        .map_err(|error| anyhow::anyhow!("{error}"))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build();
    let mut failures = Vec::new();
    let mut left = 0;
    for (peer, addresses) in by_peer(&dialable(claims)) {
        let options = DialOpts::peer_id(peer).addresses(addresses).build();
        match swarm.dial(options) {
            Ok(()) => left += 1,
            Err(error) => failures.push(error.to_string()),
        }
    }
    anyhow::ensure!(
        left > 0,
        "the token names no node that can be dialled: {}",
        failures.join("; ")
    );
    let mut talks = FuturesUnordered::new();
    while left > 0 {
        tokio::select! {
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { peer_id, num_established, .. } if num_established.get() == 1 => {
                    let Ok(peer) = NodeId::try_from(peer_id) else { continue };
                    let (token, name) = (token.to_owned(), name.clone());
                    talks.push(auth::join(control.clone(), peer, claims.aud, token, name));
                }
                SwarmEvent::OutgoingConnectionError { error, .. } => {
                    failures.push(error.to_string().replace('\n', " "));
                    left -= 1;
                }
                _ => {}
            },
            Some(answer) = talks.next() => match answer {
                Ok(admission) => return Ok(admission),
                Err(error) => {
                    failures.push(error.to_string());
                    left -= 1;
                }
            },
        }
    }
    anyhow::bail!("cannot join through {}: {}", list(&dialable(claims)), failures.join("; "))
}

/// The addresses in a token that a node can dial: not those for browsers, nor those that lead through a member.
fn dialable(claims: &Claims) -> Vec<Multiaddr> {
    let native = |address: &&Multiaddr| AddressKind::of(address) == Some(AddressKind::Direct);
    claims.peers.iter().filter(native).cloned().collect()
}

/// Addresses by the peer they end in.
fn by_peer(addresses: &[Multiaddr]) -> Vec<(PeerId, Vec<Multiaddr>)> {
    let mut all: Vec<(PeerId, Vec<Multiaddr>)> = Vec::new();
    for address in addresses {
        let Some(Protocol::P2p(peer)) = address.iter().last() else { continue };
        match all.iter_mut().find(|(known, _)| *known == peer) {
            Some((_, addresses)) => addresses.push(address.clone()),
            None => all.push((peer, vec![address.clone()])),
        }
    }
    all
}

fn list(addresses: &[Multiaddr]) -> String {
    let short = |address: &Multiaddr| {
        address.to_string().split("/p2p/").next().unwrap_or_default().to_owned()
    };
    addresses.iter().map(short).collect::<Vec<_>>().join(", ")
}
