//! The connection gater: gives a connection the members' protocols only if its peer is a member when it is established.
//!
//! The transport proves the peer id and certificates name the ids of members, so a known member's connection needs no
//! further authentication. Any other connection gets a handler without protocols (and `auth`, which is outside).

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{
    ConnectionClosed, ConnectionEstablished, ExternalAddrConfirmed, NewListenAddr,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use either::Either;

use super::addresses::is_direct;
use super::connections::is_circuit;

/// The members, and the connections established with them. Cheap to clone; clones share their state.
#[derive(Clone, Default)]
pub(crate) struct ConnectionGater {
    inner: Arc<RwLock<Inner>>,
}

#[derive(Default)]
struct Inner {
    members: HashSet<PeerId>,
    open: HashSet<ConnectionId>,
    /// Open sessions of each user's peer.
    sessions: HashMap<PeerId, usize>,
}

/// An open session of a user. Dropping it ends it.
pub(crate) struct Session {
    gater: ConnectionGater,
    peer: PeerId,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.gater.write(|inner| {
            if let Entry::Occupied(mut sessions) = inner.sessions.entry(self.peer) {
                *sessions.get_mut() -= 1;
                if *sessions.get() == 0 {
                    sessions.remove();
                }
            }
        });
    }
}

impl ConnectionGater {
    /// Adds a member. Returns `true` if it was not one.
    pub(crate) fn admit(&self, peer: PeerId) -> bool {
        self.write(|inner| inner.members.insert(peer))
    }

    /// Removes a member. Returns `true` if it was one.
    pub(crate) fn remove(&self, peer: &PeerId) -> bool {
        self.write(|inner| inner.members.remove(peer))
    }

    /// Returns whether a peer is a member.
    pub(crate) fn is_member(&self, peer: &PeerId) -> bool {
        self.read(|inner| inner.members.contains(peer))
    }

    /// Records that a user's session has started on a connection of this peer, until the result is dropped.
    pub(crate) fn start_session(&self, peer: PeerId) -> Session {
        self.write(|inner| *inner.sessions.entry(peer).or_default() += 1);
        Session { gater: self.clone(), peer }
    }

    /// Returns whether a peer is a member or has a user's session.
    pub(crate) fn is_authenticated(&self, peer: &PeerId) -> bool {
        self.read(|inner| inner.members.contains(peer) || inner.sessions.contains_key(peer))
    }

    /// Returns the members.
    pub(crate) fn members(&self) -> Vec<PeerId> {
        self.read(|inner| inner.members.iter().copied().collect())
    }

    /// Returns whether a connection carries the members' protocols.
    pub(crate) fn is_open(&self, connection: &ConnectionId) -> bool {
        self.read(|inner| inner.open.contains(connection))
    }

    fn open(&self, peer: &PeerId, connection: ConnectionId) -> bool {
        self.write(|inner| inner.members.contains(peer) && inner.open.insert(connection))
    }

    fn close(&self, connection: &ConnectionId) {
        self.write(|inner| inner.open.remove(connection));
    }

    // No code panics while it holds the lock, so a poisoned lock still guards consistent data.
    fn read<T>(&self, f: impl FnOnce(&Inner) -> T) -> T {
        f(&self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn write<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Wraps a behaviour that only members' connections take part in.
pub(crate) struct MembersOnly<B> {
    pub(crate) inner: B,
    gater: ConnectionGater,
    /// Established connections of each member that carry the protocols.
    open: HashMap<PeerId, Vec<ConnectionId>>,
}

impl<B> MembersOnly<B> {
    pub(crate) fn new(inner: B, gater: ConnectionGater) -> Self {
        Self { inner, gater, open: HashMap::new() }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for MembersOnly<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.gater.open(&peer, id) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_inbound_connection(id, peer, local, remote).map(Either::Left)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let mut known = self.inner.handle_pending_outbound_connection(id, peer, addresses, role)?;
        // Circuits are dialled explicitly, and WebRTC-direct is for browsers.
        known.retain(is_direct);
        Ok(known)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.gater.open(&peer, id) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner
            .handle_established_outbound_connection(id, peer, address, role, port_use)
            .map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) if self.gater.is_open(&event.connection_id) => {
                let open = self.open.entry(event.peer_id).or_default();
                let event = ConnectionEstablished { other_established: open.len(), ..event };
                open.push(event.connection_id);
                self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(event));
            }
            FromSwarm::ConnectionClosed(event) if self.gater.is_open(&event.connection_id) => {
                let open = self.open.entry(event.peer_id).or_default();
                open.retain(|id| *id != event.connection_id);
                let left = open.len();
                if left == 0 {
                    self.open.remove(&event.peer_id);
                }
                let event = ConnectionClosed { remaining_established: left, ..event };
                self.inner.on_swarm_event(FromSwarm::ConnectionClosed(event));
                self.gater.close(&event.connection_id);
            }
            FromSwarm::AddressChange(event) if !self.gater.is_open(&event.connection_id) => {}
            // Identify would spread circuit addresses, and other members would dial them.
            FromSwarm::NewListenAddr(NewListenAddr { addr, .. })
            | FromSwarm::ExternalAddrConfirmed(ExternalAddrConfirmed { addr })
                if is_circuit(addr) => {}
            FromSwarm::ConnectionEstablished(_) | FromSwarm::ConnectionClosed(_) => {}
            event => self.inner.on_swarm_event(event),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(event) => self.inner.on_connection_handler_event(peer, id, event),
            Either::Right(never) => libp2p::core::util::unreachable(never),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            let event = std::task::ready!(self.inner.poll(cx));
            let ToSwarm::NotifyHandler { peer_id, handler, event } = event else {
                return Poll::Ready(event.map_in(Either::Left));
            };
            // A peer may have connections of both kinds while it is being admitted. An event must not reach one whose
            // handler has no protocols: libp2p would panic. Where a connection is named, the peer is ignored: the relay's
            // messages to the destination of a circuit carry the peer id of its source.
            let id = match handler {
                NotifyHandler::Any => self.open.get(&peer_id).and_then(|open| open.last().copied()),
                NotifyHandler::One(id) => self.gater.is_open(&id).then_some(id),
            };
            if let Some(id) = id {
                let (handler, event) = (NotifyHandler::One(id), Either::Left(event));
                return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use libp2p::Stream;
    use libp2p::core::ConnectedPoint;
    use libp2p::core::upgrade::ReadyUpgrade;
    use libp2p::swarm::{OneShotHandler, StreamProtocol};

    use super::*;

    type Upgrade = ReadyUpgrade<StreamProtocol>;

    fn handler() -> OneShotHandler<Upgrade, Upgrade, Stream> {
        let protocol = ReadyUpgrade::new(StreamProtocol::new("/test"));
        OneShotHandler::new(libp2p::swarm::SubstreamProtocol::new(protocol, ()), Default::default())
    }

    /// Sends events to the handlers of a peer.
    struct Talker(PeerId, VecDeque<NotifyHandler>);

    impl NetworkBehaviour for Talker {
        type ConnectionHandler = OneShotHandler<Upgrade, Upgrade, Stream>;
        type ToSwarm = ();

        fn handle_established_inbound_connection(
            &mut self,
            _: ConnectionId,
            _: PeerId,
            _: &Multiaddr,
            _: &Multiaddr,
        ) -> Result<THandler<Self>, ConnectionDenied> {
            Ok(handler())
        }

        fn handle_established_outbound_connection(
            &mut self,
            _: ConnectionId,
            _: PeerId,
            _: &Multiaddr,
            _: Endpoint,
            _: PortUse,
        ) -> Result<THandler<Self>, ConnectionDenied> {
            Ok(handler())
        }

        fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

        fn on_connection_handler_event(
            &mut self,
            _: PeerId,
            _: ConnectionId,
            _: THandlerOutEvent<Self>,
        ) {
        }

        fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<(), THandlerInEvent<Self>>> {
            let Some(handler) = self.1.pop_front() else { return Poll::Pending };
            let event = ReadyUpgrade::new(StreamProtocol::new("/test"));
            Poll::Ready(ToSwarm::NotifyHandler { peer_id: self.0, handler, event })
        }
    }

    #[test]
    fn only_connections_established_as_a_member_get_events() {
        let (peer, gater) = (PeerId::random(), ConnectionGater::default());
        let (early, late) = (ConnectionId::new_unchecked(1), ConnectionId::new_unchecked(2));
        let events = || {
            [
                NotifyHandler::Any,
                NotifyHandler::One(early),
                NotifyHandler::Any,
                NotifyHandler::One(late),
            ]
        };
        let mut members_only = MembersOnly::new(Talker(peer, VecDeque::new()), gater.clone());
        let address = Multiaddr::empty();
        let endpoint = ConnectedPoint::Listener {
            local_addr: address.clone(),
            send_back_addr: address.clone(),
        };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for (id, member) in [(early, false), (late, true)] {
            if member {
                gater.admit(peer);
            }
            let handler =
                members_only.handle_established_inbound_connection(id, peer, &address, &address);
            assert_eq!(handler.expect("never denied").is_left(), member);
            members_only.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer,
                connection_id: id,
                endpoint: &endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
            members_only.inner.1 = events().into();
            let mut notified = Vec::new();
            while let Poll::Ready(ToSwarm::NotifyHandler { handler, .. }) =
                members_only.poll(&mut cx)
            {
                notified.push(handler);
            }
            let expected = if member { 3 } else { 0 };
            assert_eq!(notified.len(), expected);
            assert!(
                notified
                    .iter()
                    .all(|handler| matches!(handler, NotifyHandler::One(id) if *id == late)),
                "{notified:?}"
            );
        }
    }
}
