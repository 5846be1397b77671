//! Finds two processes that run with the identity of one member ([`vc_protocol::identity`]).

mod exchange;
mod sightings;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, OneShotHandler,
    OneShotHandlerConfig, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use vc_engine::Process;
use vc_protocol::NodeId;
use vc_protocol::identity::{Duplicate, Query, SignedStatement, Statement};

pub(super) use self::exchange::OwnProcess;
use self::exchange::{Ask, Message, Respond};
use self::sightings::{Action, Sightings};
use crate::driver_message::DuplicateFound;

/// A process that runs answers within this time.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks on every connection which process is at the other end.
pub(crate) struct Behaviour {
    own: Arc<OwnProcess>,
    sightings: Sightings,
    events: VecDeque<ToSwarm<DuplicateFound, Ask>>,
}

impl Behaviour {
    pub(super) fn new(own: OwnProcess) -> Self {
        Self { own: Arc::new(own), sightings: Sightings::default(), events: VecDeque::new() }
    }

    fn ask(&mut self, peer: PeerId, connection: ConnectionId, query: Query) {
        let handler = NotifyHandler::One(connection);
        self.events.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: Ask(query) });
    }

    fn answered(&mut self, peer: PeerId, connection: ConnectionId, signed: &SignedStatement) {
        let Ok(node) = NodeId::try_from(peer) else { return };
        let statement = match signed.verify(node) {
            Ok(statement) => statement,
            Err(error) => {
                tracing::warn!(%peer, %error, "statement rejected");
                return;
            }
        };
        let Statement { process, challenge, .. } = statement;
        for action in self.sightings.answered(peer, connection, process, challenge) {
            match action {
                Action::Ask { over, challenge } => {
                    self.ask(peer, over, Query { challenge, duplicate: None });
                }
                Action::Tell { over, address } => {
                    // The challenge is the number of the process that is told: its answer says nothing new.
                    let duplicate = Duplicate { statement: signed.clone(), address };
                    self.ask(peer, over, Query { challenge, duplicate: Some(duplicate) });
                }
                Action::Report(addresses) => {
                    self.events.push_back(ToSwarm::GenerateEvent(DuplicateFound::Member {
                        node,
                        addresses,
                    }));
                }
            }
        }
    }

    /// Checks what a member says about another process with this node's identity.
    fn told(&mut self, by: PeerId, Duplicate { statement, address }: Duplicate) {
        let Process { number, .. } = self.own.process();
        match statement.verify(self.own.node) {
            Ok(Statement { process, uptime, name, challenge })
                if challenge == number && process != number =>
            {
                let yields = self.own.process().yields_to(Process { number: process, uptime });
                let found = DuplicateFound::Own { name, address, yields };
                self.events.push_back(ToSwarm::GenerateEvent(found));
            }
            Ok(_) => tracing::debug!(%by, "statement about this process ignored"),
            Err(error) => tracing::warn!(%by, %error, "statement about this process rejected"),
        }
    }

    fn handler(&self) -> OneShotHandler<Respond, Ask, Message> {
        let protocol =
            SubstreamProtocol::new(Respond(Arc::clone(&self.own)), ()).with_timeout(TIMEOUT);
        // It counts failed streams as open ones for ever.
        let (max_dial_negotiated, outbound_substream_timeout) = (u32::MAX, TIMEOUT);
        OneShotHandler::new(
            protocol,
            OneShotHandlerConfig { outbound_substream_timeout, max_dial_negotiated },
        )
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = OneShotHandler<Respond, Ask, Message>;
    type ToSwarm = DuplicateFound;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                let address = event.endpoint.get_remote_address().clone();
                self.sightings.connected(event.peer_id, event.connection_id, address);
                self.ask(event.peer_id, event.connection_id, Query::default());
            }
            FromSwarm::ConnectionClosed(event) => {
                self.sightings.closed(&event.peer_id, event.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Ok(Message::Answered(statement)) => self.answered(peer, connection, &statement),
            Ok(Message::Asked(query)) => {
                if let Some(duplicate) = query.duplicate {
                    self.told(peer, duplicate);
                }
            }
            // The process has ended, or is of a version that does not answer.
            Err(error) => tracing::debug!(%peer, %connection, %error, "no statement"),
        }
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ToSwarm<DuplicateFound, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
