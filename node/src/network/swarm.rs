//! The network task: owns the libp2p swarm, which other tasks reach through [`Command`]s.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::{self, MessageAcceptance};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, ListenError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, kad, mdns, ping, relay};
use tokio::sync::{mpsc, oneshot};
use vc_client::handshake::HandshakeError;
use vc_engine::Input;
use vc_protocol::gossip::Gossip;
use vc_protocol::{NodeId, wire};

use super::addresses;
use super::behaviour::{Behaviour, BehaviourEvent, Controls, MemberEvent, Streams};
use super::circuits::{Action, Circuits};
use super::config::Config;
use super::connection_gater::ConnectionGater;
use super::connection_limiter::ConnectionLimiter;
use super::connections::{ConnectionPath, Connections};
use crate::driver_message::{DriverMessage, DuplicateFound};
use crate::identity::Membership;

/// Commands that may wait for the network task; the driver drops those beyond.
pub(super) const COMMANDS: usize = 256;
/// Interval of checks for members that are not connected.
const DIAL_INTERVAL: Duration = Duration::from_secs(1);
/// Longest backoff between dials of a member.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Longest backoff between direct dials of a member that is connected by a circuit.
const MAX_BACKOFF_WITH_CIRCUIT: Duration = Duration::from_secs(30);
/// How long connections may take to close before the process ends.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);
/// Interval of Kademlia lookups for a member that cannot be reached.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(30);

/// A command to the network task.
pub(crate) enum Command {
    /// Publishes a gossip message.
    Publish(Vec<u8>),
    /// Closes all connections of a member.
    Disconnect(NodeId),
    /// Closes all connections before the process ends, so that members do not send into dead ones; then answers.
    Close(oneshot::Sender<()>),
    /// Adds addresses of a member.
    Addresses(NodeId, Vec<Multiaddr>),
    /// Sets the nodes that are up.
    Up(BTreeSet<NodeId>),
    /// Reports authentication on an outgoing connection. `Ok(false)`: the member did not know this node before, so the
    /// connection came up without the members' protocols.
    Authenticated(PeerId, ConnectionId, Result<bool, HandshakeError>),
}

/// The network task; [`run`](Self::run) it.
pub(crate) struct Network {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) config: Config,
    pub(super) topic: gossipsub::IdentTopic,
    pub(super) gater: ConnectionGater,
    pub(super) limiter: ConnectionLimiter,
    pub(super) membership: Arc<Membership>,
    pub(super) auth: libp2p_stream::Control,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) own: mpsc::Sender<Command>,
    pub(super) driver: mpsc::Sender<DriverMessage>,
    pub(super) listening: BTreeSet<Multiaddr>,
    /// Addresses on bridges that lead to containers of this host alone.
    pub(super) internal: BTreeSet<IpAddr>,
    pub(super) address_book: addresses::AddressBook,
    pub(super) connections: Connections,
    pub(super) circuits: Circuits,
    pub(super) asked_kademlia: BTreeMap<PeerId, Instant>,
}

/// Handles to the network task.
pub(crate) struct Handles {
    /// Sends commands.
    pub(crate) commands: mpsc::Sender<Command>,
    /// Opens streams.
    pub(crate) controls: Controls,
    /// Incoming streams.
    pub(crate) streams: Streams,
}

impl Network {
    /// Runs until every command sender is dropped.
    pub(crate) async fn run(mut self) {
        let mut dial = tokio::time::interval(DIAL_INTERVAL);
        dial.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.swarm_event(event).await,
                command = self.commands.recv() => match command {
                    Some(Command::Close(closed)) => return self.close(closed).await,
                    Some(command) => self.command(command).await,
                    None => return,
                },
                _ = dial.tick() => self.dial_missing_members(),
            }
        }
    }

    /// Closes all connections, and ignores what comes after.
    async fn close(self, closed: oneshot::Sender<()>) {
        let Self { mut swarm, mut commands, .. } = self;
        let peers: Vec<PeerId> = swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = swarm.disconnect_peer_id(peer);
        }
        let disconnected = async {
            while swarm.connected_peers().next().is_some() {
                swarm.select_next_some().await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, disconnected).await;
        drop(swarm);
        let _ = closed.send(());
        while commands.recv().await.is_some() {}
    }

    async fn command(&mut self, command: Command) {
        match command {
            // The caller closes.
            Command::Close(_) => {}
            Command::Publish(bytes) => {
                let gossip = &mut self.swarm.behaviour_mut().member.inner.gossip;
                match gossip.publish(self.topic.clone(), bytes) {
                    // Anti-entropy delivers what gossip does not.
                    Ok(_) | Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => {}
                    Err(error) => tracing::debug!(%error, "gossip not published"),
                }
            }
            Command::Disconnect(node) => {
                let _ = self.swarm.disconnect_peer_id(node.peer_id());
            }
            Command::Addresses(node, addresses) => {
                let peer = node.peer_id();
                for address in addresses.iter().filter(|it| addresses::is_direct(it)) {
                    self.swarm
                        .behaviour_mut()
                        .member
                        .inner
                        .kademlia
                        .add_address(&peer, address.clone());
                }
                self.address_book.learn(peer, addresses);
                self.dial_missing_members();
            }
            Command::Up(nodes) => {
                self.circuits.set_up(nodes.iter().map(NodeId::peer_id).collect());
            }
            Command::Authenticated(peer, connection, result) => match result {
                Ok(true) => {
                    self.address_book.reached(&peer);
                    // Only now, and only on this side: the handshake may have run over a circuit.
                    for circuit in self.connections.surplus(&peer) {
                        self.swarm.close_connection(circuit);
                    }
                }
                // The member knows this node now: the next connection carries all protocols.
                Ok(false) => {
                    self.swarm.close_connection(connection);
                    self.dial(peer);
                }
                Err(error) => {
                    tracing::warn!(%peer, %error, "authentication with a member failed");
                    self.swarm.close_connection(connection);
                    if let HandshakeError::Refused { removed: true, .. } = error
                        && let Ok(node) = NodeId::try_from(peer)
                    {
                        let removed = DriverMessage::Input(Input::Removed(node));
                        self.notify_driver(removed).await;
                    }
                }
            },
        }
    }

    /// Dials the members without a direct connection whose backoff has passed.
    fn dial_missing_members(&mut self) {
        let now = Instant::now();
        let own = *self.swarm.local_peer_id();
        self.limiter.reserve(self.address_book.sources().collect());
        for peer in self.gater.members() {
            // Members are exempt from the limits on connections.
            self.swarm.behaviour_mut().limits.bypass_peer_id(&peer);
            if peer == own || self.connections.is_direct(&peer) {
                continue;
            }
            let connected = self.connections.is_connected(&peer);
            let longest = if connected { MAX_BACKOFF_WITH_CIRCUIT } else { MAX_BACKOFF };
            if !self.address_book.is_due(peer, now, longest) {
                continue;
            }
            let asked = self.asked_kademlia.get(&peer);
            let ask = !connected && !self.connections.is_empty();
            if ask && asked.is_none_or(|&at| now > at + LOOKUP_INTERVAL) {
                self.asked_kademlia.insert(peer, now);
                self.swarm.behaviour_mut().member.inner.kademlia.get_closest_peers(peer);
            }
            self.dial(peer);
        }
        for action in self.circuits.poll(now, &self.connections) {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Reserve(relay, address) => {
                let listener = self.swarm.listen_on(address);
                self.circuits.reserved(relay, listener.ok());
            }
            Action::Release(listener) => {
                self.swarm.remove_listener(listener);
            }
            Action::Dial(peer, addresses) => {
                let options = DialOpts::peer_id(peer)
                    // A direct dial may be in progress.
                    .condition(PeerCondition::Always)
                    .addresses(addresses)
                    .override_dial_concurrency_factor(NonZeroU8::MIN)
                    .build();
                if let Err(error) = self.swarm.dial(options) {
                    tracing::trace!(%peer, %error, "cannot dial through a relay");
                }
            }
        }
    }

    fn dial(&mut self, peer: PeerId) {
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::NotDialing)
            .addresses(self.address_book.addresses(&peer))
            .extend_addresses_through_behaviour()
            .build();
        if let Err(error) = self.swarm.dial(options) {
            tracing::trace!(%peer, %error, "cannot dial");
        }
    }

    async fn swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                let changed = self.add_listen_address(address).await;
                self.publish_addresses(changed).await;
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let changed = self.remove_listen_address(&address);
                self.publish_addresses(changed).await;
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                tracing::debug!(?reason, "listener closed");
                self.circuits.ended(listener_id);
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.connected(peer_id, connection_id, &endpoint).await;
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, connection = %connection_id, ?cause, "connection closed");
                if self.connections.closed(&peer_id, connection_id)
                    && let Ok(node) = NodeId::try_from(peer_id)
                {
                    self.notify_driver(DriverMessage::Input(Input::Disconnected(node))).await;
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                tracing::debug!(%peer, %error, "dial failed");
            }
            SwarmEvent::IncomingConnectionError {
                error: ListenError::LocalPeerId { address },
                ..
            } if !self.is_own_dial(&address) => {
                let found = DuplicateFound::Refused { address };
                self.notify_driver(DriverMessage::Duplicate(found)).await;
            }
            SwarmEvent::Behaviour(BehaviourEvent::Member(event)) => self.member_event(event).await,
            _ => {}
        }
    }

    /// Returns whether this process has dialled itself, at an address that was another member's: it dials from the port that
    /// it listens on. A process that starts on a copy of the data directory dials before it listens.
    fn is_own_dial(&self, from: &Multiaddr) -> bool {
        let port = self.config.port;
        from.iter().any(|part| part == Protocol::Tcp(port) || part == Protocol::Udp(port))
    }

    async fn publish_addresses(&mut self, changed: bool) {
        if changed {
            let addresses = self.publishable();
            self.notify_driver(DriverMessage::Addresses(addresses)).await;
        }
    }

    async fn connected(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
    ) {
        let Ok(node) = NodeId::try_from(peer) else {
            self.swarm.close_connection(connection);
            return;
        };
        tracing::debug!(%peer, %connection, address = %endpoint.get_remote_address(), "connection established");
        if endpoint.is_dialer() {
            // The member may not know this node's certificate yet.
            let (control, own) = (self.auth.clone(), self.own.clone());
            let certificate = self.membership.credentials.certificate();
            let cluster = self.membership.cluster;
            tokio::spawn(async move {
                let result =
                    vc_client::handshake::prove_membership(control, node, cluster, certificate)
                        .await;
                let _ = own.send(Command::Authenticated(peer, connection, result)).await;
            });
        }
        if self.gater.is_open(&connection) {
            let path = ConnectionPath::of(endpoint);
            match &path {
                ConnectionPath::Circuit => tracing::info!(%peer, "connected through a relay"),
                ConnectionPath::Direct(address) => self.address_book.connected(peer, address),
            }
            let first = self.connections.opened(peer, connection, path);
            if first {
                self.notify_driver(DriverMessage::Input(Input::Connected(node))).await;
            }
        }
    }

    async fn member_event(&mut self, event: MemberEvent) {
        match event {
            MemberEvent::Gossip(gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            }) => {
                let source = message.source.filter(|source| self.gater.is_member(source));
                let node = source.and_then(|source| NodeId::try_from(source).ok());
                let read =
                    node.and_then(|node| Some((node, wire::decode::<Gossip>(&message.data).ok()?)));
                let acceptance = match read {
                    Some(_) => MessageAcceptance::Accept,
                    None => MessageAcceptance::Reject,
                };
                let gossip = &mut self.swarm.behaviour_mut().member.inner.gossip;
                gossip.report_message_validation_result(
                    &message_id,
                    &propagation_source,
                    acceptance,
                );
                match read {
                    Some((node, gossip)) => {
                        self.notify_driver(DriverMessage::Input(Input::Gossip(node, gossip))).await
                    }
                    None => {
                        tracing::warn!(from = %propagation_source, "gossip rejected: not from a member, or malformed")
                    }
                }
            }
            MemberEvent::Duplicates(found) => {
                self.notify_driver(DriverMessage::Duplicate(found)).await;
            }
            MemberEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    // Any libp2p program on the local network may be discovered.
                    if self.gater.is_member(&peer) && !self.connections.is_direct(&peer) {
                        self.address_book.learn(peer, [address]);
                        self.dial_missing_members();
                    }
                }
            }
            MemberEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                for address in info.listen_addrs.into_iter().filter(addresses::is_direct) {
                    self.swarm.behaviour_mut().member.inner.kademlia.add_address(&peer_id, address);
                }
            }
            MemberEvent::Kademlia(kad::Event::OutboundQueryProgressed {
                result: kad::QueryResult::GetClosestPeers(Ok(found)),
                ..
            }) => {
                for peer in found.peers {
                    if self.gater.is_member(&peer.peer_id)
                        && !self.connections.is_direct(&peer.peer_id)
                    {
                        self.address_book.learn(peer.peer_id, peer.addrs);
                    }
                }
            }
            MemberEvent::RelayClient(relay::client::Event::ReservationReqAccepted {
                relay_peer_id,
                ..
            }) => self.circuits.granted(&relay_peer_id),
            // The relay may not have noticed that the other end is gone.
            MemberEvent::Ping(ping::Event { peer, connection, result: Err(error) })
                if self.connections.is_circuit(&peer, connection) =>
            {
                tracing::debug!(%peer, %error, "circuit closed: ping failed");
                self.swarm.close_connection(connection);
            }
            _ => {}
        }
    }

    async fn notify_driver(&mut self, message: DriverMessage) {
        // Fails only while the node stops.
        let _ = self.driver.send(message).await;
    }
}
