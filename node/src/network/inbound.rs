//! Streams that others open to us.
//!
//! libp2p-stream hands an incoming stream to its taker through a channel without room, and drops the stream when the
//! taker is not waiting at that very moment: of two peers that come at once, one would find the door shut. Here a
//! protocol has a queue.

use std::convert::Infallible;
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

/// Streams of one protocol that may wait to be taken.
const QUEUE: usize = 256;

/// Incoming streams of one protocol, with who opened them.
pub(crate) type Incoming = mpsc::Receiver<(PeerId, Stream)>;

/// Takes streams of one protocol. It opens none: for that there is libp2p-stream.
pub(crate) struct Behaviour {
    protocol: StreamProtocol,
    queue: mpsc::Sender<(PeerId, Stream)>,
}

impl Behaviour {
    pub(crate) fn new(protocol: &'static str) -> (Self, Incoming) {
        let (queue, incoming) = mpsc::channel(QUEUE);
        (Self { protocol: StreamProtocol::new(protocol), queue }, incoming)
    }

    fn handler(&self, remote: PeerId) -> Handler {
        Handler { remote, protocol: self.protocol.clone(), queue: self.queue.clone() }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
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
pub(crate) struct Handler {
    remote: PeerId,
    protocol: StreamProtocol,
    queue: mpsc::Sender<(PeerId, Stream)>,
}

impl ConnectionHandler for Handler {
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
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
            protocol: stream,
            info: (),
        }) = event
            && self.queue.try_send((self.remote, stream)).is_err()
        {
            tracing::debug!(peer = %self.remote, protocol = %self.protocol, "too many streams wait; one was dropped");
        }
    }
}
