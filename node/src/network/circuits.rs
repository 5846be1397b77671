//! Circuits: connections between two members that cannot dial each other, through a third (libp2p circuit relay v2).
//!
//! Nodes behind NAT only dial out. Two of them use a member that both are connected to as their relay: one holds a
//! *reservation* there, the other asks the relay for a *circuit* to it, a stream on each one's connection to the relay.
//! Inside it they speak Noise and Yamux end to end, so the relay cannot read it and both peer ids are authenticated.
//!
//! Roles follow from what both sides know. Two members are *apart* when both are up and have had no direct connection for
//! [`APART_TIMEOUT`]. Then the one with the smaller id dials through the members it is connected to, and the one with the
//! larger id holds reservations at the members that *it* is connected to. So there is one circuit per pair, no NAT
//! detection, no reservation in a cluster whose nodes reach each other, and no circuit address in any document. Each side
//! tries up to [`MAX_RELAYS`] relays, in the same order on both sides.
//!
//! Both sides keep dialling directly, and close the circuit when that succeeds.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, relay};

use super::backoff::Backoff;
use super::connections::Connections;

/// Members without a direct connection for this long are apart. A dial between nodes that reach each other takes a
/// fraction of it.
const APART_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest backoff between attempts to dial through relays or to reserve at one.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Relays that a member tries: all, in clusters of up to this size.
const MAX_RELAYS: usize = 16;
/// Circuits per member through this node: one for each of its peers, in clusters of up to this size.
const MAX_CIRCUITS_PER_PEER: usize = 16;
/// Circuits through this node, in total.
const MAX_CIRCUITS: usize = 128;
/// Reservations that this node grants.
const MAX_RESERVATIONS: usize = 128;
/// Lifetime of a reservation; libp2p renews it after three quarters.
const RESERVATION_TTL: Duration = Duration::from_secs(60 * 60);

/// Builds the relay for other members. The number of circuits is limited. Their bytes and duration are not, which would
/// cut users' connections; nor is the request rate, because members behind one NAT share an address.
pub(super) fn server(own: PeerId) -> relay::Behaviour {
    let config = relay::Config {
        max_reservations: MAX_RESERVATIONS,
        // One per connection.
        max_reservations_per_peer: 4,
        reservation_duration: RESERVATION_TTL,
        reservation_rate_limiters: Vec::new(),
        max_circuits: MAX_CIRCUITS,
        max_circuits_per_peer: MAX_CIRCUITS_PER_PEER,
        max_circuit_duration: Duration::from_secs(u32::MAX.into()),
        // Zero: unlimited.
        max_circuit_bytes: 0,
        circuit_src_rate_limiters: Vec::new(),
    };
    let mut server = relay::Behaviour::new(own, config);
    // By default it is disabled until an external address is confirmed.
    server.set_status(Some(relay::Status::Enable));
    server
}

/// An action for the swarm.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Reserve at a relay by listening on this address, then call [`Circuits::reserved`].
    Reserve(PeerId, Multiaddr),
    /// Cancel a reservation.
    Release(ListenerId),
    /// Dial a member at these addresses, one after another.
    Dial(PeerId, Vec<Multiaddr>),
}

/// A reservation at a relay; without a listener it is still to be made.
#[derive(Debug, Default)]
struct Reservation {
    listener: Option<ListenerId>,
    backoff: Backoff,
}

/// The members that are apart from this node, and the reservations and dials on their account.
#[derive(Debug)]
pub(crate) struct Circuits {
    own: PeerId,
    up: BTreeSet<PeerId>,
    /// Up members without a direct connection, and since when.
    apart: BTreeMap<PeerId, Instant>,
    reservations: BTreeMap<PeerId, Reservation>,
    dials: BTreeMap<PeerId, Backoff>,
}

impl Circuits {
    pub(crate) fn new(own: PeerId) -> Self {
        Self {
            own,
            up: BTreeSet::new(),
            apart: BTreeMap::new(),
            reservations: BTreeMap::new(),
            dials: BTreeMap::new(),
        }
    }

    /// Sets the members that are up.
    pub(crate) fn set_up(&mut self, members: BTreeSet<PeerId>) {
        self.up = members;
    }

    /// Notes the listener of a reservation that was requested; `None` if the request failed.
    pub(crate) fn reserved(&mut self, relay: PeerId, listener: Option<ListenerId>) {
        self.reservations.entry(relay).or_default().listener = listener;
    }

    /// Notes that a relay granted a reservation.
    pub(crate) fn granted(&mut self, relay: &PeerId) {
        if let Some(reservation) = self.reservations.get_mut(relay) {
            reservation.backoff.reset();
        }
    }

    /// Notes that a reservation ended: it was refused, or the connection to its relay closed.
    pub(crate) fn ended(&mut self, listener: ListenerId) {
        let of = self.reservations.values_mut().find(|it| it.listener == Some(listener));
        if let Some(reservation) = of {
            reservation.listener = None;
        }
    }

    /// Returns the actions that are due.
    pub(crate) fn poll(&mut self, now: Instant, connections: &Connections) -> Vec<Action> {
        let own = self.own;
        let missing: BTreeMap<PeerId, Instant> = self
            .up
            .iter()
            .filter(|peer| **peer != own && !connections.is_direct(peer))
            .map(|peer| (*peer, self.apart.get(peer).copied().unwrap_or(now)))
            .collect();
        self.apart = missing;
        let apart: Vec<PeerId> = self
            .apart
            .iter()
            .filter(|&(_, &since)| now.duration_since(since) >= APART_TIMEOUT)
            .map(|(&peer, _)| peer)
            .collect();
        let relays: BTreeMap<PeerId, Multiaddr> = connections
            .direct()
            .take(MAX_RELAYS)
            .map(|(relay, address)| (relay, through(relay, address)))
            .collect();
        let mut actions = self.reserve(now, &relays, apart.iter().any(|peer| *peer < own));
        self.dials.retain(|peer, _| apart.contains(peer) && !connections.is_connected(peer));
        for peer in apart.into_iter().filter(|peer| *peer > own && !connections.is_connected(peer))
        {
            if relays.is_empty() || !self.dials.entry(peer).or_default().is_due(now, MAX_BACKOFF) {
                continue;
            }
            let mut relays: Vec<(&PeerId, &Multiaddr)> = relays.iter().collect();
            // The order depends on the pair, which spreads circuits over the relays.
            relays.sort_by_key(|(relay, _)| rank(relay, &peer, &own));
            let addresses =
                relays.into_iter().map(|(_, address)| address.clone().with(Protocol::P2p(peer)));
            actions.push(Action::Dial(peer, addresses.collect()));
        }
        actions
    }

    fn reserve(
        &mut self,
        now: Instant,
        relays: &BTreeMap<PeerId, Multiaddr>,
        wanted: bool,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        self.reservations.retain(|relay, reservation| {
            let kept = wanted && relays.contains_key(relay);
            if !kept && let Some(listener) = reservation.listener {
                actions.push(Action::Release(listener));
            }
            kept
        });
        for (&relay, address) in relays.iter().filter(|_| wanted) {
            let reservation = self.reservations.entry(relay).or_default();
            if reservation.listener.is_none() && reservation.backoff.is_due(now, MAX_BACKOFF) {
                actions.push(Action::Reserve(relay, address.clone()));
            }
        }
        actions
    }
}

/// Returns the circuit address of a relay. It must contain the relay's own address, even when connected.
fn through(relay: PeerId, address: &Multiaddr) -> Multiaddr {
    let place: Multiaddr =
        address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
    place.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit)
}

fn rank(relay: &PeerId, peer: &PeerId, own: &PeerId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (relay.to_bytes(), peer.to_bytes(), own.to_bytes()).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use libp2p::swarm::ConnectionId;

    use super::super::connections::ConnectionPath;
    use super::*;

    const FIRST: u64 = 1_000;

    /// A pair of members, the smaller id first, and a relay that both are connected to.
    struct Fixture {
        start: Instant,
        relay: PeerId,
        pair: [PeerId; 2],
        connections: Connections,
        opened: usize,
    }

    impl Fixture {
        fn new() -> Self {
            let mut pair = [PeerId::random(), PeerId::random()];
            pair.sort();
            let mut fixture = Self {
                start: Instant::now(),
                relay: PeerId::random(),
                pair,
                connections: Connections::default(),
                opened: 0,
            };
            fixture.connect(fixture.relay, true);
            fixture
        }

        fn connect(&mut self, peer: PeerId, directly: bool) -> ConnectionId {
            self.opened += 1;
            let id = ConnectionId::new_unchecked(self.opened);
            let address = format!("/ip4/10.0.0.{}/tcp/4777", self.opened);
            let direct = ConnectionPath::Direct(address.parse().expect("an address"));
            self.connections.opened(
                peer,
                id,
                if directly { direct } else { ConnectionPath::Circuit },
            );
            id
        }

        fn circuits(&self, own: PeerId) -> Circuits {
            let mut circuits = Circuits::new(own);
            circuits.set_up([self.relay, self.pair[0], self.pair[1]].into());
            circuits
        }

        fn poll(&self, circuits: &mut Circuits, after: u64) -> Vec<Action> {
            circuits.poll(self.start + Duration::from_millis(after), &self.connections)
        }

        /// Returns the actions once the pair is apart, after checking that there are none before.
        fn first_actions(&self, circuits: &mut Circuits) -> Vec<Action> {
            assert_eq!(self.poll(circuits, FIRST), [], "not apart yet");
            self.poll(circuits, FIRST + 2_000)
        }

        fn at_relay(&self) -> Multiaddr {
            format!("/ip4/10.0.0.1/tcp/4777/p2p/{}/p2p-circuit", self.relay)
                .parse()
                .expect("an address")
        }
    }

    #[test]
    fn the_smaller_id_dials_through_the_relay_and_the_larger_reserves_there() {
        let fixture = Fixture::new();
        let [smaller, larger] = fixture.pair;
        let target = fixture.at_relay().with(Protocol::P2p(larger));
        assert_eq!(
            fixture.first_actions(&mut fixture.circuits(smaller)),
            [Action::Dial(larger, vec![target])]
        );
        assert_eq!(
            fixture.first_actions(&mut fixture.circuits(larger)),
            [Action::Reserve(fixture.relay, fixture.at_relay())]
        );
    }

    #[test]
    fn members_that_are_down_or_connected_directly_need_no_circuit() {
        let mut fixture = Fixture::new();
        let [smaller, larger] = fixture.pair;
        let mut alone = fixture.circuits(smaller);
        alone.set_up([fixture.relay, smaller].into());
        assert_eq!(fixture.first_actions(&mut alone), []);

        fixture.connect(larger, true);
        assert_eq!(fixture.first_actions(&mut fixture.circuits(smaller)), []);
    }

    #[test]
    fn an_ended_reservation_is_renewed_and_released_when_no_member_is_apart() {
        let mut fixture = Fixture::new();
        let [smaller, larger] = fixture.pair;
        let mut circuits = fixture.circuits(larger);
        assert_eq!(fixture.first_actions(&mut circuits).len(), 1);
        let listener = ListenerId::next();
        circuits.reserved(fixture.relay, Some(listener));
        circuits.granted(&fixture.relay);
        assert_eq!(fixture.poll(&mut circuits, 60_000), [], "held");

        circuits.ended(listener);
        let again = Action::Reserve(fixture.relay, fixture.at_relay());
        assert_eq!(fixture.poll(&mut circuits, 61_000), [again]);
        let listener = ListenerId::next();
        circuits.reserved(fixture.relay, Some(listener));
        // With a circuit they are still apart: it may break.
        fixture.connect(smaller, false);
        assert_eq!(fixture.poll(&mut circuits, 90_000), []);

        fixture.connect(smaller, true);
        assert_eq!(fixture.poll(&mut circuits, 91_000), [Action::Release(listener)]);
    }

    #[test]
    fn a_member_is_dialled_through_relays_until_connected_and_again_when_the_circuit_breaks() {
        let mut fixture = Fixture::new();
        let [smaller, larger] = fixture.pair;
        let mut circuits = fixture.circuits(smaller);
        assert_eq!(fixture.first_actions(&mut circuits).len(), 1);
        assert_eq!(fixture.poll(&mut circuits, FIRST + 2_100), [], "backing off");
        let second = fixture.connect(PeerId::random(), true);
        let actions = fixture.poll(&mut circuits, FIRST + 3_000);
        let [Action::Dial(_, addresses)] = actions.as_slice() else { panic!("{actions:?}") };
        assert_eq!(addresses.len(), 2, "through every relay: {addresses:?}");

        let circuit = fixture.connect(larger, false);
        assert_eq!(fixture.poll(&mut circuits, FIRST + 9_000), []);
        fixture.connections.closed(&larger, circuit);
        assert_eq!(fixture.poll(&mut circuits, FIRST + 9_001).len(), 1, "at once");

        let relays: Vec<PeerId> = fixture.connections.direct().map(|(relay, _)| relay).collect();
        for relay in relays {
            fixture.connections.closed(&relay, ConnectionId::new_unchecked(1));
            fixture.connections.closed(&relay, second);
        }
        assert_eq!(fixture.poll(&mut circuits, FIRST + 60_000), [], "no relay is connected");
    }
}
