//! The dial race: dials every candidate at once, authenticates with each that answers, and keeps the first that accepts.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use libp2p::core::upgrade::Version;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, mdns, noise, tcp, yamux};
use tokio::time::{Instant, sleep_until, timeout};
use vc_protocol::auth::Credentials;
use vc_protocol::{ClusterId, Keypair};

use crate::address::{self, LookupError};
use crate::candidates::Candidates;
use crate::error::{Attempts, ConnectError, Reason, Unreachable};
use crate::handshake::{Accepted, HandshakeError, authenticate};

/// The most addresses that one race dials. Each costs a socket and a handshake.
const MAX_DIALS: usize = 64;
/// How often an address is dialled again.
const MAX_AGAIN: u32 = 3;
/// When no member has accepted over TCP within this time, QUIC is dialled too. Nodes speak both at one port, so where
/// TCP answers, a second handshake would only cost both sides work: the cryptography library that libp2p's QUIC brings
/// gathers entropy for 40 ms of CPU when it is first used, several times what a whole command takes over TCP.
const QUIC_DELAY: Duration = Duration::from_millis(150);
/// When no member has accepted within this time, though some addresses have not failed, the local network is asked too.
const MDNS_DELAY: Duration = Duration::from_secs(2);
/// How long to wait for mDNS answers when nothing else is pending. They take up to half a second, and a lost query is
/// repeated after another half.
const MDNS_TIMEOUT: Duration = Duration::from_secs(3);

/// Time limits of a race.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From the start to the first acceptance.
    pub(crate) deadline: Duration,
    /// From the first refusal to an acceptance by another member: the first may have a wrong clock.
    pub(crate) after_refusal: Duration,
    /// For one handshake, from the connection on.
    pub(crate) handshake: Duration,
}

/// The swarm of a client: it opens streams and accepts none.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    stream: libp2p_stream::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

/// The member that accepted, and the swarm that holds the connection to it.
pub(crate) struct Winner {
    pub(crate) accepted: Accepted,
    /// The address at which it answered, with its peer id.
    pub(crate) address: Multiaddr,
    pub(crate) swarm: Swarm<Behaviour>,
}

fn new_swarm(key: Keypair) -> Result<Swarm<Behaviour>, ConnectError> {
    let builder = libp2p::SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .map_err(|error| ConnectError::Local(error.to_string()))?
        .with_quic()
        .with_behaviour(|_| Behaviour {
            stream: libp2p_stream::Behaviour::new(),
            mdns: Toggle::from(None),
        })
        .map_err(|error| ConnectError::Local(error.to_string()))?
        // The name of a stream's protocol travels with the first frame: one round trip less.
        .with_swarm_config(|config| {
            config.with_substream_upgrade_protocol_override(Version::V1Lazy)
        });
    Ok(builder.build())
}

/// A DNS lookup: the address with the host name, and the addresses it resolved to.
type Lookup = BoxFuture<'static, (Multiaddr, Result<Vec<Multiaddr>, LookupError>)>;
/// A handshake with a peer at an address.
type Handshake = BoxFuture<'static, (PeerId, Multiaddr, Result<Accepted, HandshakeError>)>;

/// The state of one race.
pub(crate) struct Race {
    swarm: Swarm<Behaviour>,
    cluster: ClusterId,
    credentials: Credentials,
    limits: Limits,
    /// Whether mDNS may be asked.
    discover: bool,
    started: Instant,
    dialled: BTreeSet<Multiaddr>,
    /// How often an address was dialled again because the connection was closed before the handshake.
    again: BTreeMap<Multiaddr, u32>,
    /// Addresses from mDNS: nodes of other clusters among them are not reported.
    discovered: BTreeSet<Multiaddr>,
    /// QUIC addresses that wait for [`QUIC_DELAY`].
    delayed: Vec<Multiaddr>,
    dialling: HashMap<ConnectionId, Multiaddr>,
    lookups: FuturesUnordered<Lookup>,
    /// Connected peers, with their address while a handshake is running. A peer may answer at several addresses; it gets
    /// one handshake.
    connected: HashMap<PeerId, Option<Multiaddr>>,
    handshakes: FuturesUnordered<Handshake>,
    attempts: Attempts,
    asked_mdns: Option<Instant>,
    /// The first refusal.
    refused: Option<Refusal>,
}

struct Refusal {
    at: Instant,
    reason: String,
    busy: bool,
}

impl Race {
    /// Prepares a race of these candidates. Errors: no sockets can be opened.
    pub(crate) fn new(
        key: Keypair,
        cluster: ClusterId,
        credentials: Credentials,
        candidates: Candidates,
        limits: Limits,
    ) -> Result<Self, ConnectError> {
        let mut race = Self {
            swarm: new_swarm(key)?,
            cluster,
            credentials,
            limits,
            discover: candidates.discover,
            started: Instant::now(),
            dialled: BTreeSet::new(),
            again: BTreeMap::new(),
            discovered: BTreeSet::new(),
            delayed: Vec::new(),
            dialling: HashMap::new(),
            lookups: FuturesUnordered::new(),
            connected: HashMap::new(),
            handshakes: FuturesUnordered::new(),
            attempts: Attempts::default(),
            asked_mdns: None,
            refused: None,
        };
        for candidate in candidates.addresses {
            race.add(candidate);
        }
        Ok(race)
    }

    /// Runs until a member accepts or none can any more.
    pub(crate) async fn run(mut self) -> Result<Winner, ConnectError> {
        loop {
            let now = Instant::now();
            if self.is_idle() || now >= self.started + QUIC_DELAY {
                for address in std::mem::take(&mut self.delayed) {
                    self.dial(address);
                }
            }
            if self.mdns_is_due(now) {
                self.ask_mdns(now);
            }
            let deadline = self.deadline();
            if now >= deadline {
                return Err(self.into_error());
            }
            let wake = [
                (!self.delayed.is_empty()).then_some(self.started + QUIC_DELAY),
                self.may_ask_mdns().then_some(self.started + MDNS_DELAY),
            ];
            let wake = wake.into_iter().flatten().fold(deadline, Instant::min);
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                Some((name, found)) = self.lookups.next() => match found {
                    Ok(addresses) => addresses.into_iter().for_each(|address| self.add(address)),
                    Err(error) => self.attempts.add(address::label(&name), Reason::from(&error)),
                },
                Some((peer, address, result)) = self.handshakes.next() => match result {
                    Ok(accepted) => {
                        let address =
                            address.with_p2p(accepted.node.peer_id()).unwrap_or_else(|other| other);
                        return Ok(Winner { accepted, address, swarm: self.swarm });
                    }
                    // A node whose place for strangers is contested closes the oldest of their connections.
                    Err(HandshakeError::NotANode | HandshakeError::Frame(_))
                        if self.may_dial_again(&address) =>
                    {
                        self.connected.remove(&peer);
                        self.dialled.remove(&address);
                        self.dial(address);
                    }
                    Err(error) => {
                        self.connected.insert(peer, None);
                        self.on_handshake_error(&address, error);
                    }
                },
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Returns whether nothing is pending, mDNS aside.
    fn is_idle(&self) -> bool {
        self.dialling.is_empty() && self.lookups.is_empty() && self.handshakes.is_empty()
    }

    fn may_ask_mdns(&self) -> bool {
        self.discover && self.asked_mdns.is_none() && self.refused.is_none()
    }

    fn mdns_is_due(&self, now: Instant) -> bool {
        self.may_ask_mdns() && (self.is_idle() || now >= self.started + MDNS_DELAY)
    }

    /// Returns when to stop waiting for an acceptance.
    fn deadline(&self) -> Instant {
        let deadline = self.started + self.limits.deadline;
        match (&self.refused, self.asked_mdns) {
            _ if self.is_idle() && (!self.discover || self.refused.is_some()) => self.started,
            (Some(refusal), _) => deadline.min(refusal.at + self.limits.after_refusal),
            (None, Some(asked)) if self.is_idle() => deadline.min(asked + MDNS_TIMEOUT),
            _ => deadline,
        }
    }

    fn ask_mdns(&mut self, now: Instant) {
        self.asked_mdns = Some(now);
        // An error means that there is no network to ask.
        let mdns =
            mdns::tokio::Behaviour::new(mdns::Config::default(), *self.swarm.local_peer_id());
        self.swarm.behaviour_mut().mdns = Toggle::from(mdns.ok());
    }

    /// Dials an address: after its host name is resolved, and QUIC after TCP.
    fn add(&mut self, candidate: Multiaddr) {
        if address::host_name(&candidate).is_some() {
            self.lookups.push(
                async move { (candidate.clone(), address::look_up(candidate).await) }.boxed(),
            );
        } else if address::is_quic(&candidate) {
            self.delayed.push(candidate);
        } else {
            self.dial(candidate);
        }
    }

    fn dial(&mut self, address: Multiaddr) {
        if self.dialled.len() >= MAX_DIALS || !self.dialled.insert(address.clone()) {
            return;
        }
        let options = DialOpts::from(address.clone());
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => drop(self.dialling.insert(id, address)),
            Err(error) => self.attempts.add(address::label(&address), Reason::from(&error)),
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                let address = self.dialling.remove(&connection_id);
                if let (Some(address), Entry::Vacant(new)) =
                    (address, self.connected.entry(peer_id))
                {
                    new.insert(Some(address.clone()));
                    self.start_handshake(peer_id, address);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(address) = self.dialling.remove(&connection_id) {
                    self.attempts.add(address::label(&address), Reason::from(&error));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (_, address) in found {
                    if let Some(address) = address::without_peer(&address) {
                        self.discovered.insert(address.clone());
                        self.add(address);
                    }
                }
            }
            _ => {}
        }
    }

    /// Returns whether an address is worth another attempt, and counts that.
    fn may_dial_again(&mut self, address: &Multiaddr) -> bool {
        let again = self.again.entry(address.clone()).or_default();
        *again += 1;
        *again <= MAX_AGAIN
    }

    fn on_handshake_error(&mut self, address: &Multiaddr, error: HandshakeError) {
        let unrelated = matches!(error, HandshakeError::NotANode | HandshakeError::OtherCluster);
        if unrelated && self.discovered.contains(address) {
            return;
        }
        self.attempts.add(address::label(address), Reason::from(&error));
        if let (HandshakeError::Refused { reason, busy, .. }, None) = (error, &self.refused) {
            self.refused = Some(Refusal { at: Instant::now(), reason, busy });
        }
    }

    fn start_handshake(&mut self, peer: PeerId, address: Multiaddr) {
        let control = self.swarm.behaviour().stream.new_control();
        let (cluster, credentials, limit) =
            (self.cluster, self.credentials.clone(), self.limits.handshake);
        self.handshakes.push(
            async move {
                let result =
                    timeout(limit, authenticate(control, peer, cluster, &credentials)).await;
                (peer, address, result.unwrap_or(Err(HandshakeError::TimedOut)))
            }
            .boxed(),
        );
    }

    fn into_error(mut self) -> ConnectError {
        if let Some(Refusal { reason, busy, .. }) = self.refused {
            return ConnectError::Refused { reason, busy };
        }
        for address in self.dialling.values().chain(self.connected.values().flatten()) {
            self.attempts.add(address::label(address), Reason::silent());
        }
        ConnectError::Unreachable(Unreachable {
            cluster: self.cluster,
            attempts: self.attempts,
            asked_mdns: self.asked_mdns.is_some(),
            discover: self.discover,
        })
    }
}
