//! The established connections of each member.

use std::collections::BTreeMap;

use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

/// How a connection reaches a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionPath {
    /// Directly; the remote address.
    Direct(Multiaddr),
    /// Through a relay.
    Circuit,
}

impl ConnectionPath {
    pub(crate) fn of(endpoint: &ConnectedPoint) -> Self {
        if endpoint.is_relayed() {
            Self::Circuit
        } else {
            Self::Direct(endpoint.get_remote_address().clone())
        }
    }
}

/// Returns whether an address leads through a relay.
pub(crate) fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// The connections that carry the members' protocols.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: BTreeMap<PeerId, BTreeMap<ConnectionId, ConnectionPath>>,
}

impl Connections {
    /// Adds a connection. Returns `true` if it is the member's first.
    pub(crate) fn opened(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        path: ConnectionPath,
    ) -> bool {
        let open = self.open.entry(peer).or_default();
        open.insert(connection, path);
        open.len() == 1
    }

    /// Removes a connection. Returns `true` if it was the member's last.
    pub(crate) fn closed(&mut self, peer: &PeerId, connection: ConnectionId) -> bool {
        let Some(open) = self.open.get_mut(peer) else { return false };
        let last = open.remove(&connection).is_some() && open.is_empty();
        if last {
            self.open.remove(peer);
        }
        last
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn is_connected(&self, peer: &PeerId) -> bool {
        self.open.contains_key(peer)
    }

    pub(crate) fn is_direct(&self, peer: &PeerId) -> bool {
        self.open.get(peer).is_some_and(|open| address(open).is_some())
    }

    /// Returns the members that are connected directly, and an address of each.
    pub(crate) fn direct(&self) -> impl Iterator<Item = (PeerId, &Multiaddr)> {
        self.open.iter().filter_map(|(&peer, open)| Some((peer, address(open)?)))
    }

    /// Returns whether a connection is a circuit.
    pub(crate) fn is_circuit(&self, peer: &PeerId, connection: ConnectionId) -> bool {
        self.circuits(peer).any(|circuit| circuit == connection)
    }

    /// Returns the circuits to a member that is also connected directly. Streams may be opened on any connection, and
    /// circuits are slower.
    pub(crate) fn surplus(&self, peer: &PeerId) -> Vec<ConnectionId> {
        if self.is_direct(peer) { self.circuits(peer).collect() } else { Vec::new() }
    }

    fn circuits(&self, peer: &PeerId) -> impl Iterator<Item = ConnectionId> {
        let open = self.open.get(peer).into_iter().flatten();
        open.filter(|(_, path)| **path == ConnectionPath::Circuit)
            .map(|(&connection, _)| connection)
    }
}

fn address(open: &BTreeMap<ConnectionId, ConnectionPath>) -> Option<&Multiaddr> {
    open.values().find_map(|path| match path {
        ConnectionPath::Direct(address) => Some(address),
        ConnectionPath::Circuit => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circuits_are_surplus_beside_a_direct_connection() {
        let peer = PeerId::random();
        let [circuit, direct] = [1, 2].map(ConnectionId::new_unchecked);
        let mut connections = Connections::default();
        assert!(connections.opened(peer, circuit, ConnectionPath::Circuit), "the first");
        assert!(connections.is_connected(&peer) && !connections.is_direct(&peer));
        assert_eq!((connections.surplus(&peer), connections.direct().count()), (Vec::new(), 0));

        let address: Multiaddr = "/ip4/10.1.2.3/tcp/4777".parse().expect("an address");
        assert!(
            !connections.opened(peer, direct, ConnectionPath::Direct(address.clone())),
            "the second"
        );
        assert_eq!(connections.surplus(&peer), [circuit]);
        assert_eq!(connections.direct().collect::<Vec<_>>(), [(peer, &address)]);

        assert!(!connections.closed(&peer, circuit), "one is left");
        assert!(connections.closed(&peer, direct), "the last");
        assert!(!connections.closed(&peer, direct), "it is gone already");
        assert!(connections.is_empty());
    }
}
