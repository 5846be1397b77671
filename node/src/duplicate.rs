//! Finds a process that runs with this node's identity where the node ran before, on the directory that this one was copied
//! from. [`network::duplicates`](crate::network) finds those that this node cannot reach itself.

use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use libp2p::core::muxing::StreamMuxerExt as _;
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::core::upgrade::Version;
use libp2p::core::{Endpoint, Transport as _};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, noise, tcp, yamux};
use tokio::time::timeout;
use vc_client::address::without_peer;
use vc_crdt::{DocumentError, KnownVersions, Replica};
use vc_protocol::Keypair;

use crate::identity::Membership;
use vc_store::{Store, StoreError};

/// A node that runs accepts a connection within this time, and closes it.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Why a node must not start, or cannot tell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DuplicateError {
    /// A process runs with its identity.
    #[error(
        "another vc-node runs with the identity of this one: {name} at {address}: stop that one, or let this host join as a \
         node of its own with another --data-dir"
    )]
    Runs {
        /// Display name of the node.
        name: String,
        /// Where the process listens.
        address: Multiaddr,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The documents cannot be built from the stored changes.
    #[error("cannot load this node's document: {0}")]
    Document(#[from] DocumentError),
    /// No sockets can be opened.
    #[error("cannot set up the TCP transport: {0}")]
    Transport(#[from] noise::Error),
}

/// Checks that no process has this node's identity at the addresses in this node's document. Call it before this process
/// listens: it must not find itself.
pub(crate) async fn check(membership: &Membership, store: &Store) -> Result<(), DuplicateError> {
    let durable = store.load_node(membership.node)?;
    let (key, node, cluster) = (&membership.key, membership.node, membership.cluster);
    let (certificates, changes) = (durable.certificates, durable.changes);
    let knows = KnownVersions::default();
    let loaded = Replica::load(key.clone(), node, cluster, knows, certificates, changes)?;
    let own = loaded.replica.nodes().get(&node).and_then(|state| state.info.as_ref());
    let Some(info) = own else { return Ok(()) };
    match find(key, &info.addresses).await? {
        Some(address) => Err(DuplicateError::Runs { name: info.name.to_string(), address }),
        None => Ok(()),
    }
}

/// Returns the first of the TCP addresses at which a process has this key. That process notices the connection: its swarm
/// refuses one from its own peer id.
async fn find(key: &Keypair, addresses: &[Multiaddr]) -> Result<Option<Multiaddr>, noise::Error> {
    let own = key.public().to_peer_id();
    let mut transport = tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(key)?)
        .multiplex(yamux::Config::default())
        .boxed();
    let is_tcp = |address: &Multiaddr| address.iter().any(|part| matches!(part, Protocol::Tcp(_)));
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let mut dials = FuturesUnordered::new();
    for address in addresses.iter().filter(|it| is_tcp(it)).filter_map(without_peer) {
        if let Ok(dial) = transport.dial(address.clone(), options) {
            dials.push(dial.map(|result| (address, result)));
        }
    }
    let first = async {
        while let Some((address, result)) = dials.next().await {
            if let Ok((peer, connection)) = result
                && peer == own
            {
                return Some((address, connection));
            }
        }
        None
    };
    let Ok(Some((address, connection))) = timeout(TIMEOUT, first).await else {
        return Ok(None);
    };
    // The other side is to see the end of the handshake.
    let _ = timeout(TIMEOUT, connection.close()).await;
    Ok(Some(address))
}
