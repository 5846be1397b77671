//! The race: dial everything at once, authenticate with whoever answers, keep the first that welcomes us.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use libp2p::core::upgrade::Version;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, mdns, noise, tcp, yamux};
use tokio::time::{Instant, sleep_until, timeout};
use vc_protocol::{ClusterId, Keypair};

use super::address;
use super::auth::{AuthError, Welcomed, authenticate};
use super::failure::{Attempts, ConnectError, Reason, Unreachable};
use super::session::Session;
use super::{Candidates, MAX_CANDIDATES};

/// No member within this time: give up.
const DEADLINE: Duration = Duration::from_secs(10);
/// No member over TCP within this time: dial QUIC too. Nodes speak both at one port, so where TCP answers, a second
/// handshake would only cost them work, and us too: the cryptography library that libp2p's QUIC brings gathers entropy
/// for 40 ms of CPU when it is first used, which is several times what a whole command takes over TCP.
const QUIC_AFTER: Duration = Duration::from_millis(150);
/// No member within this time, though some addresses have not failed: ask the local network too.
const MDNS_AFTER: Duration = Duration::from_secs(2);
/// How long the local network has to name a node when there is nothing else to wait for. Its answers take up to half a
/// second, and a query that was lost is repeated after another half.
const MDNS_WAIT: Duration = Duration::from_secs(3);
/// A member refused the token: how long another has to accept it (the first may have a wrong clock).
const REFUSED_WAIT: Duration = Duration::from_secs(1);
/// A node that is connected proves itself and answers within this time.
const AUTH_TIMEOUT: Duration = Duration::from_secs(5);

/// The swarm of a client: it opens streams and accepts none.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    stream: libp2p_stream::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

/// A session with the first member that welcomes the token, and the members that it named.
pub(super) async fn race(
    cluster: ClusterId,
    token: &str,
    candidates: Candidates,
) -> Result<(Session, Vec<vc_protocol::Multiaddr>), ConnectError> {
    let swarm = new_swarm().map_err(ConnectError::Local)?;
    let mut race = Race {
        swarm,
        cluster,
        token,
        given: candidates.given,
        started: Instant::now(),
        dialled: BTreeSet::new(),
        discovered: BTreeSet::new(),
        held: Vec::new(),
        dialling: HashMap::new(),
        looking_up: FuturesUnordered::new(),
        met: HashMap::new(),
        authenticating: FuturesUnordered::new(),
        attempts: Attempts::default(),
        asked_mdns: None,
        refused: None,
    };
    for candidate in candidates.addresses {
        race.consider(candidate);
    }
    race.run().await
}

fn new_swarm() -> Result<Swarm<Behaviour>, String> {
    let builder = libp2p::SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .map_err(|error| error.to_string())?
        .with_quic()
        .with_behaviour(|_| Behaviour {
            stream: libp2p_stream::Behaviour::new(),
            mdns: Toggle::from(None),
        })
        .map_err(|error| error.to_string())?
        // The name of a stream's protocol goes along with the first frame: one round trip less.
        .with_swarm_config(|config| {
            config.with_substream_upgrade_protocol_override(Version::V1Lazy)
        });
    Ok(builder.build())
}

/// A name that is being looked up, and what is behind it.
type LookUp = BoxFuture<'static, (Multiaddr, Result<Vec<Multiaddr>, &'static str>)>;
/// An authentication, and where it takes place.
type Authentication = BoxFuture<'static, (PeerId, Multiaddr, Result<Welcomed, AuthError>)>;

struct Race<'a> {
    swarm: Swarm<Behaviour>,
    cluster: ClusterId,
    token: &'a str,
    /// The user named the addresses: no other is asked.
    given: bool,
    started: Instant,
    dialled: BTreeSet<Multiaddr>,
    /// Named by the local network: strangers among them are no news.
    discovered: BTreeSet<Multiaddr>,
    /// QUIC addresses, until TCP has had its chance.
    held: Vec<Multiaddr>,
    dialling: HashMap<ConnectionId, Multiaddr>,
    looking_up: FuturesUnordered<LookUp>,
    /// Peers that have answered, and where as long as we talk. One may answer at several addresses; it is asked once.
    met: HashMap<PeerId, Option<Multiaddr>>,
    authenticating: FuturesUnordered<Authentication>,
    attempts: Attempts,
    asked_mdns: Option<Instant>,
    /// When a member first refused the token, and why.
    refused: Option<(Instant, String)>,
}

impl Race<'_> {
    async fn run(mut self) -> Result<(Session, Vec<vc_protocol::Multiaddr>), ConnectError> {
        loop {
            let now = Instant::now();
            if self.is_idle() || now >= self.started + QUIC_AFTER {
                std::mem::take(&mut self.held).into_iter().for_each(|address| self.dial(address));
            }
            if self.wants_mdns(now) {
                self.ask_mdns(now);
            }
            let wait_until = self.wait_until();
            if now >= wait_until {
                return Err(self.failed());
            }
            let wake = [
                (!self.held.is_empty()).then_some(self.started + QUIC_AFTER),
                self.may_ask_mdns().then_some(self.started + MDNS_AFTER),
            ];
            let wake = wake.into_iter().flatten().fold(wait_until, Instant::min);
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                Some((name, found)) = self.looking_up.next() => match found {
                    Ok(addresses) => addresses.into_iter().for_each(|address| self.consider(address)),
                    Err(why) => self.attempts.add(address::label(&name), Reason::unknown_host(why)),
                },
                Some((peer, address, result)) = self.authenticating.next() => match result {
                    Ok(welcomed) => {
                        let Welcomed { frames, node, peers } = welcomed;
                        // With its peer id, so that the memory knows whose address it is.
                        let address = address.with_p2p(node.peer_id()).unwrap_or_else(|other| other);
                        return Ok((Session::new(frames, node, address, self.swarm), peers));
                    }
                    Err(error) => {
                        self.met.insert(peer, None);
                        self.on_auth_error(&address, error);
                    }
                },
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Nothing is under way.
    fn is_idle(&self) -> bool {
        self.dialling.is_empty() && self.looking_up.is_empty() && self.authenticating.is_empty()
    }

    fn may_ask_mdns(&self) -> bool {
        !self.given && self.asked_mdns.is_none() && self.refused.is_none()
    }

    fn wants_mdns(&self, now: Instant) -> bool {
        self.may_ask_mdns() && (self.is_idle() || now >= self.started + MDNS_AFTER)
    }

    /// Until when a member may still welcome us.
    fn wait_until(&self) -> Instant {
        let deadline = self.started + DEADLINE;
        match (&self.refused, self.asked_mdns) {
            _ if self.is_idle() && (self.given || self.refused.is_some()) => self.started,
            (Some((at, _)), _) => deadline.min(*at + REFUSED_WAIT),
            (None, Some(asked)) if self.is_idle() => deadline.min(asked + MDNS_WAIT),
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

    /// Dials an address: after its name is looked up, and QUIC after TCP.
    fn consider(&mut self, candidate: Multiaddr) {
        if address::name(&candidate).is_some() {
            self.looking_up.push(
                async move { (candidate.clone(), address::look_up(candidate).await) }.boxed(),
            );
        } else if address::is_quic(&candidate) {
            self.held.push(candidate);
        } else {
            self.dial(candidate);
        }
    }

    fn dial(&mut self, address: Multiaddr) {
        if self.dialled.len() >= MAX_CANDIDATES || !self.dialled.insert(address.clone()) {
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
                if let (Some(address), Entry::Vacant(unmet)) = (address, self.met.entry(peer_id)) {
                    unmet.insert(Some(address.clone()));
                    self.authenticate(peer_id, address);
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
                        self.consider(address);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_auth_error(&mut self, address: &Multiaddr, error: AuthError) {
        let stranger = matches!(error, AuthError::NotANode | AuthError::OtherCluster);
        if stranger && self.discovered.contains(address) {
            return;
        }
        self.attempts.add(address::label(address), Reason::from(&error));
        if let (AuthError::Refused(why), None) = (error, &self.refused) {
            self.refused = Some((Instant::now(), why));
        }
    }

    fn authenticate(&mut self, peer: PeerId, address: Multiaddr) {
        let control = self.swarm.behaviour().stream.new_control();
        let (cluster, token) = (self.cluster, self.token.to_owned());
        self.authenticating.push(
            async move {
                let result =
                    timeout(AUTH_TIMEOUT, authenticate(control, peer, cluster, token)).await;
                (peer, address, result.unwrap_or(Err(AuthError::Silent)))
            }
            .boxed(),
        );
    }

    fn failed(mut self) -> ConnectError {
        if let Some((_, why)) = self.refused {
            return ConnectError::Refused(why);
        }
        for address in self.dialling.values().chain(self.met.values().flatten()) {
            self.attempts.add(address::label(address), Reason::silent());
        }
        ConnectError::Unreachable(Unreachable {
            cluster: self.cluster,
            attempts: self.attempts,
            asked_mdns: self.asked_mdns.is_some(),
            given: self.given,
        })
    }
}
