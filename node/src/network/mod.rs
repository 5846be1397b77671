//! The swarm: who is connected, gossip, discovery. One task owns it; everybody else sends it commands.

pub(crate) mod addresses;
mod backoff;
mod behaviour;
mod circuits;
pub mod connection_gater;
mod connections;
pub(crate) mod inbound;
mod listen;
mod muxer;
pub mod sync_streams;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::{self, MessageAcceptance};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, kad, mdns, ping, relay};
use tokio::sync::mpsc;
use vc_engine::Input;
use vc_protocol::gossip::Gossip;
use vc_protocol::{ClusterId, NodeId, wire};

use crate::driver_message::DriverMessage;
use behaviour::{Behaviour, BehaviourEvent, MemberEvent, Streams};
use circuits::{Circuits, Step};
use connection_gater::ConnectionGater;
use connections::{Connections, Path};

pub use behaviour::Controls;
pub(crate) use behaviour::MAX_STREAMS;

/// Commands that may wait for the swarm.
pub const COMMANDS: usize = 256;
/// Between two looks at who should be connected and is not.
const LOOK: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to reach a member.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The same, for one that a circuit leads to.
const MAX_PAUSE_BESIDE_CIRCUIT: Duration = Duration::from_secs(30);
/// Between two questions to Kademlia for a member that cannot be found.
const ASK_KADEMLIA: Duration = Duration::from_secs(30);

/// Where and how to listen.
#[derive(Clone)]
pub struct Config {
    /// Address to listen on; unspecified: all.
    pub listen: IpAddr,
    /// TCP and QUIC port; browsers get in at the next one.
    pub port: u16,
    /// What browsers know this node by.
    pub certificate: vc_webrtc::Certificate,
    /// The address to tell others instead of those listened on.
    pub advertise: Option<IpAddr>,
    /// Whether to find members in the same network by mDNS.
    pub mdns: bool,
}

/// What the swarm is asked to do.
pub enum Command {
    /// Publish to all members.
    Publish(Vec<u8>),
    /// Close all connections to a member.
    Disconnect(NodeId),
    /// A member's addresses.
    Addresses(NodeId, Vec<Multiaddr>),
    /// The nodes that are up.
    Up(BTreeSet<NodeId>),
    /// Authentication on an outgoing connection is over; `Ok(false)`: the member did not know us before and could not
    /// give this connection the members' protocols.
    Authenticated(PeerId, ConnectionId, Result<bool, String>),
}

/// The swarm's state beside the swarm.
pub struct Network {
    swarm: Swarm<Behaviour>,
    config: Config,
    topic: gossipsub::IdentTopic,
    gater: ConnectionGater,
    certificate: String,
    cluster: ClusterId,
    auth: libp2p_stream::Control,
    commands: mpsc::Receiver<Command>,
    own: mpsc::Sender<Command>,
    driver: mpsc::Sender<DriverMessage>,
    listening: BTreeSet<Multiaddr>,
    address_book: addresses::AddressBook,
    connections: Connections,
    circuits: Circuits,
    asked_kademlia: BTreeMap<PeerId, Instant>,
}

/// The handles to a swarm that is being made.
pub struct Handles {
    /// Sends commands.
    pub commands: mpsc::Sender<Command>,
    /// Opens streams.
    pub controls: Controls,
    /// Streams that others open.
    pub(crate) streams: Streams,
}

impl Network {
    /// Runs until the last handle is gone.
    pub async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.swarm_event(event).await,
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                _ = look.tick() => self.dial_missing_members(),
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Publish(bytes) => {
                let gossip = &mut self.swarm.behaviour_mut().member.inner.gossip;
                match gossip.publish(self.topic.clone(), bytes) {
                    // Nobody is there yet, or a queue is full: anti-entropy brings it.
                    Ok(_) | Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => {}
                    Err(error) => tracing::debug!(%error, "gossip was not published"),
                }
            }
            Command::Disconnect(node) => {
                let _ = self.swarm.disconnect_peer_id(node.peer_id());
            }
            Command::Addresses(node, addresses) => {
                let peer = node.peer_id();
                for address in addresses.iter().filter(|it| addresses::is_dialled(it)) {
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
                self.circuits.are_up(nodes.iter().map(NodeId::peer_id).collect());
            }
            Command::Authenticated(peer, connection, outcome) => match outcome {
                Ok(true) => {
                    self.address_book.reached(&peer);
                    // Not before, and not by the other side: the proof may have gone through one of them.
                    for circuit in self.connections.surplus(&peer) {
                        self.swarm.close_connection(circuit);
                    }
                }
                // Known from now on: the next connection carries everything.
                Ok(false) => {
                    self.swarm.close_connection(connection);
                    self.dial(peer);
                }
                Err(reason) => {
                    tracing::warn!(%peer, reason, "a member does not let us in");
                    self.swarm.close_connection(connection);
                }
            },
        }
    }

    /// Dials the members that are not connected directly and whose time has come.
    fn dial_missing_members(&mut self) {
        let now = Instant::now();
        let own = *self.swarm.local_peer_id();
        for peer in self.gater.members() {
            // However many strangers are here, there is room for members.
            self.swarm.behaviour_mut().limits.bypass_peer_id(&peer);
            if peer == own || self.connections.is_direct(&peer) {
                continue;
            }
            let connected = self.connections.is_connected(&peer);
            let longest = if connected { MAX_PAUSE_BESIDE_CIRCUIT } else { MAX_PAUSE };
            if !self.address_book.is_due(peer, now, longest) {
                continue;
            }
            let asked = self.asked_kademlia.get(&peer);
            let ask = !connected && !self.connections.is_empty();
            if ask && asked.is_none_or(|&at| now > at + ASK_KADEMLIA) {
                self.asked_kademlia.insert(peer, now);
                self.swarm.behaviour_mut().member.inner.kademlia.get_closest_peers(peer);
            }
            self.dial(peer);
        }
        for step in self.circuits.look(now, &self.connections) {
            self.circuit_step(step);
        }
    }

    fn circuit_step(&mut self, step: Step) {
        match step {
            Step::Reserve(relay, address) => {
                let listener = self.swarm.listen_on(address);
                self.circuits.reserved(relay, listener.ok());
            }
            Step::Release(listener) => {
                self.swarm.remove_listener(listener);
            }
            Step::Dial(peer, addresses) => {
                let options = DialOpts::peer_id(peer)
                    // It is dialled directly all the time.
                    .condition(PeerCondition::Always)
                    .addresses(addresses)
                    .override_dial_concurrency_factor(NonZeroU8::MIN)
                    .build();
                if let Err(error) = self.swarm.dial(options) {
                    tracing::trace!(%peer, %error, "not dialled through a relay");
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
            tracing::trace!(%peer, %error, "not dialled");
        }
    }

    async fn swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                let changed = self.listens_on(address);
                self.publish_addresses(changed).await;
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let changed = self.listens_no_more_on(&address);
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
                tracing::debug!(%peer, %error, "member not reached");
            }
            SwarmEvent::Behaviour(BehaviourEvent::Member(event)) => self.member_event(event).await,
            _ => {}
        }
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
        tracing::debug!(%peer, %connection, address = %endpoint.get_remote_address(), "connection");
        if endpoint.is_dialer() {
            // The other side may not know yet that we are a member.
            let (control, certificate, own) =
                (self.auth.clone(), self.certificate.clone(), self.own.clone());
            let cluster = self.cluster;
            tokio::spawn(async move {
                let outcome =
                    vc_client::handshake::prove_membership(control, node, cluster, certificate)
                        .await;
                let outcome = outcome.map_err(|error| error.to_string());
                let _ = own.send(Command::Authenticated(peer, connection, outcome)).await;
            });
        }
        if self.gater.is_open(&connection) {
            let path = Path::of(endpoint);
            if path == Path::Circuit {
                tracing::info!(%peer, "a member that cannot be dialled is reached through another");
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
                        tracing::warn!(from = %propagation_source, "gossip refused: not a member's, or garbage")
                    }
                }
            }
            MemberEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    // Foreign libp2p programs appear here too.
                    if self.gater.is_member(&peer) && !self.connections.is_direct(&peer) {
                        self.address_book.learn(peer, [address]);
                        self.dial_missing_members();
                    }
                }
            }
            MemberEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                // What is learnt here is dialled directly.
                for address in info.listen_addrs.into_iter().filter(addresses::is_dialled) {
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
            // The relay may have lost the other end without knowing it.
            MemberEvent::Ping(ping::Event { peer, connection, result: Err(error) })
                if self.connections.is_circuit(&peer, connection) =>
            {
                tracing::debug!(%peer, %error, "a circuit leads nowhere");
                self.swarm.close_connection(connection);
            }
            _ => {}
        }
    }

    async fn notify_driver(&mut self, message: DriverMessage) {
        // The driver ends first only when the node stops.
        let _ = self.driver.send(message).await;
    }
}
