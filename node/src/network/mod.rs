//! The swarm: who is connected, gossip, discovery. One task owns it; everybody else sends it commands.

pub(crate) mod addresses;
mod behaviour;
pub mod gate;
pub(crate) mod inbound;
pub mod link;
mod listen;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::{self, MessageAcceptance};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, kad, mdns};
use tokio::sync::mpsc;
use vc_engine::Input;
use vc_protocol::gossip::Gossip;
use vc_protocol::{ClusterId, NodeId, wire};

use crate::drive::Event;
use behaviour::{Behaviour, BehaviourEvent, MemberEvent, Streams};
use gate::Gate;

pub use behaviour::Controls;
pub(crate) use behaviour::MAX_STREAMS;

/// Commands that may wait for the swarm.
pub const COMMANDS: usize = 256;
/// Between two looks at who should be connected and is not.
const LOOK: Duration = Duration::from_secs(1);
/// Between two questions to Kademlia for a member that cannot be found.
const ASK_KADEMLIA: Duration = Duration::from_secs(30);

/// Where and how to listen.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on; unspecified: all.
    pub listen: IpAddr,
    /// TCP and QUIC port.
    pub port: u16,
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
    /// Authentication on an outgoing connection is over; `Ok(false)`: the member did not know us before and could not
    /// give this connection the members' protocols.
    Proven(PeerId, ConnectionId, Result<bool, String>),
}

/// The swarm's state beside the swarm.
pub struct Network {
    swarm: Swarm<Behaviour>,
    config: Config,
    topic: gossipsub::IdentTopic,
    gate: Gate,
    certificate: String,
    cluster: ClusterId,
    auth: libp2p_stream::Control,
    commands: mpsc::Receiver<Command>,
    own: mpsc::Sender<Command>,
    driver: mpsc::Sender<Event>,
    listening: BTreeSet<Multiaddr>,
    contacts: addresses::Contacts,
    /// Open connections of members that carry their protocols.
    open: HashMap<PeerId, HashSet<ConnectionId>>,
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
                _ = look.tick() => self.look_around(),
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
                for address in &addresses {
                    self.swarm
                        .behaviour_mut()
                        .member
                        .inner
                        .kademlia
                        .add_address(&peer, address.clone());
                }
                self.contacts.learn(peer, addresses);
                self.look_around();
            }
            Command::Proven(peer, connection, outcome) => match outcome {
                Ok(true) => self.contacts.reached(&peer),
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

    /// Dials the members that are not connected and whose time has come.
    fn look_around(&mut self) {
        let now = Instant::now();
        let own = *self.swarm.local_peer_id();
        for peer in self.gate.members() {
            // However many strangers are here, there is room for members.
            self.swarm.behaviour_mut().limits.bypass_peer_id(&peer);
            if peer == own || self.open.contains_key(&peer) || !self.contacts.is_due(peer, now) {
                continue;
            }
            let asked = self.asked_kademlia.get(&peer);
            if !self.open.is_empty() && asked.is_none_or(|&at| now > at + ASK_KADEMLIA) {
                self.asked_kademlia.insert(peer, now);
                self.swarm.behaviour_mut().member.inner.kademlia.get_closest_peers(peer);
            }
            self.dial(peer);
        }
    }

    fn dial(&mut self, peer: PeerId) {
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::NotDialing)
            .addresses(self.contacts.addresses(&peer))
            .extend_addresses_through_behaviour()
            .build();
        if let Err(error) = self.swarm.dial(options) {
            tracing::trace!(%peer, %error, "not dialled");
        }
    }

    async fn swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                let changed = self.listening.insert(address);
                self.publish_addresses(changed).await;
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let changed = self.listening.remove(&address);
                self.publish_addresses(changed).await;
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.connected(peer_id, connection_id, &endpoint).await;
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, connection = %connection_id, ?cause, "connection closed");
                let Some(open) = self.open.get_mut(&peer_id) else { return };
                if open.remove(&connection_id) && open.is_empty() {
                    self.open.remove(&peer_id);
                    if let Ok(node) = NodeId::try_from(peer_id) {
                        self.tell(Event::Input(Input::Disconnected(node))).await;
                    }
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                tracing::debug!(%peer, %error, "member not reached");
            }
            SwarmEvent::Behaviour(BehaviourEvent::Member(event)) => self.member_event(event).await,
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (peer, address) in found {
                    // Foreign libp2p programs appear here too.
                    if self.gate.is_member(&peer) && !self.open.contains_key(&peer) {
                        self.contacts.learn(peer, [address]);
                        self.look_around();
                    }
                }
            }
            _ => {}
        }
    }

    async fn publish_addresses(&mut self, changed: bool) {
        if changed {
            let addresses = self.publishable();
            self.tell(Event::Addresses(addresses)).await;
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
                let outcome = crate::auth::prove(control, node, cluster, certificate).await;
                let outcome = outcome.map_err(|error| error.to_string());
                let _ = own.send(Command::Proven(peer, connection, outcome)).await;
            });
        }
        if self.gate.is_open(&connection) {
            let open = self.open.entry(peer).or_default();
            open.insert(connection);
            if open.len() == 1 {
                self.tell(Event::Input(Input::Connected(node))).await;
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
                let source = message.source.filter(|source| self.gate.is_member(source));
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
                        self.tell(Event::Input(Input::Gossip(node, gossip))).await
                    }
                    None => {
                        tracing::warn!(from = %propagation_source, "gossip refused: not a member's, or garbage")
                    }
                }
            }
            MemberEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                for address in info.listen_addrs {
                    self.swarm.behaviour_mut().member.inner.kademlia.add_address(&peer_id, address);
                }
            }
            MemberEvent::Kademlia(kad::Event::OutboundQueryProgressed {
                result: kad::QueryResult::GetClosestPeers(Ok(found)),
                ..
            }) => {
                for peer in found.peers {
                    if self.gate.is_member(&peer.peer_id) && !self.open.contains_key(&peer.peer_id)
                    {
                        self.contacts.learn(peer.peer_id, peer.addrs);
                    }
                }
            }
            _ => {}
        }
    }

    async fn tell(&mut self, event: Event) {
        // The driver ends first only when the node stops.
        let _ = self.driver.send(event).await;
    }
}
