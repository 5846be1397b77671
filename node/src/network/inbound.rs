//! Incoming streams, queued by protocol.
//!
//! libp2p-stream hands over incoming streams through a channel without capacity, and drops a stream when the receiver is
//! not waiting at that moment, so that of two simultaneous streams one may be lost.

use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, StreamProtocol, SubstreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream};
use tokio::sync::mpsc;

use super::addresses;

/// Incoming streams that may wait, per protocol. Those beyond are dropped.
const QUEUE: usize = 256;

/// The incoming streams of one protocol, with the peer that opened each.
pub(crate) type Incoming = mpsc::Receiver<(PeerId, Stream)>;

/// An incoming stream.
pub(crate) struct Inbound {
    /// The peer that opened it.
    pub(crate) peer: PeerId,
    /// The IP address at the other end of its connection; that of the relay if it is a circuit.
    pub(crate) source: Option<IpAddr>,
    pub(crate) stream: Stream,
}

impl From<Inbound> for (PeerId, Stream) {
    fn from(inbound: Inbound) -> Self {
        (inbound.peer, inbound.stream)
    }
}

/// Accepts the streams of one protocol, and queues them as `T`. Outgoing streams are libp2p-stream's.
pub(crate) struct Behaviour<T = (PeerId, Stream)> {
    protocol: StreamProtocol,
    queue: mpsc::Sender<T>,
}

impl<T> Behaviour<T> {
    /// Returns the behaviour, and the queue of its streams.
    pub(crate) fn new(protocol: &'static str) -> (Self, mpsc::Receiver<T>) {
        let (queue, incoming) = mpsc::channel(QUEUE);
        (Self { protocol: StreamProtocol::new(protocol), queue }, incoming)
    }

    fn handler(&self, remote: PeerId, address: &Multiaddr) -> Handler<T> {
        let (protocol, queue) = (self.protocol.clone(), self.queue.clone());
        Handler { remote, source: addresses::ip(address), protocol, queue }
    }
}

impl<T: From<Inbound> + Send + 'static> NetworkBehaviour for Behaviour<T> {
    type ConnectionHandler = Handler<T>;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, remote))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        libp2p::core::util::unreachable(event)
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// The part of [`Behaviour`] on one connection.
pub(crate) struct Handler<T> {
    remote: PeerId,
    source: Option<IpAddr>,
    protocol: StreamProtocol,
    queue: mpsc::Sender<T>,
}

impl<T: From<Inbound> + Send + 'static> ConnectionHandler for Handler<T> {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        libp2p::core::util::unreachable(event)
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
            protocol: stream,
            info: (),
        }) = event
        else {
            return;
        };
        let inbound = Inbound { peer: self.remote, source: self.source, stream };
        if self.queue.try_send(T::from(inbound)).is_err() {
            tracing::debug!(peer = %self.remote, protocol = %self.protocol, "incoming stream dropped: queue full");
        }
    }
}
