//! Circuits: connections to members that cannot be dialled, through members that can (libp2p's circuit relay v2).
//!
//! A node behind NAT dials out, and on what it dialled streams go both ways. Two such nodes cannot dial each other;
//! a third that both are connected to is their relay. One holds a *reservation* there, the other asks the relay for a
//! *circuit* to it: a stream on each one's connection to the relay. In it they speak Noise and Yamux end to end, as on
//! any connection, so the relay reads nothing, and who is a member is as certain as ever.
//!
//! Who does what follows from what both sides see anyway. Two members are *apart* when both are up and have had no
//! direct connection for [`APART`]. Then the one with the smaller id dials through the members it is connected to, and
//! the one with the larger holds reservations at those that *it* is connected to. So there is one circuit a pair, nobody
//! needs to find out what kind of NAT he is behind, a cluster whose nodes reach each other holds no reservations, and
//! no address of a circuit is ever written into a document: relays come and go without a word. That two members handle_stream at
//! all asks for each to try all its relays, which it does up to [`MAX_RELAYS`], the same ones first on both sides.
//!
//! Direct is better: both go on dialling directly, and circuits are closed when that succeeds.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, relay};

use super::backoff::Backoff;
use super::connections::Connections;

/// So long without a direct connection, and two members are apart. A dial between nodes that reach each other takes
/// a fraction of it.
const APART: Duration = Duration::from_secs(2);
/// The longest pause between two attempts at one thing.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Relays that a member tries at most: all, in the clusters this is made for.
const MAX_RELAYS: usize = 16;
/// Circuits of one member through this one: more than it has peers, in the clusters this is made for.
const MAX_CIRCUITS_PER_PEER: usize = 16;
/// Circuits through this member in all.
const MAX_CIRCUITS: usize = 128;
/// Reservations that this member grants.
const MAX_RESERVATIONS: usize = 128;
/// How long a reservation holds. It is renewed when three quarters are over.
const RESERVATION: Duration = Duration::from_secs(60 * 60);

/// The relay for other members. How many circuits there are is bounded; what one carries, and how long, is not: it would
/// only cut people's connections, and members are trusted with more. Nor is how often one asks: members behind one NAT
/// share an address, and a request costs as much as any stream.
pub(super) fn server(own: PeerId) -> relay::Behaviour {
    let config = relay::Config {
        max_reservations: MAX_RESERVATIONS,
        // One a connection.
        max_reservations_per_peer: 4,
        reservation_duration: RESERVATION,
        reservation_rate_limiters: Vec::new(),
        max_circuits: MAX_CIRCUITS,
        max_circuits_per_peer: MAX_CIRCUITS_PER_PEER,
        max_circuit_duration: Duration::from_secs(u32::MAX.into()),
        // Zero: as many as there are.
        max_circuit_bytes: 0,
        circuit_src_rate_limiters: Vec::new(),
    };
    let mut server = relay::Behaviour::new(own, config);
    // By itself it would hide until an address is confirmed from outside, which nobody does.
    server.set_status(Some(relay::Status::Enable));
    server
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Reserve at a relay, by listening on this address; [`Circuits::reserved`] says that it was begun.
    Reserve(PeerId, Multiaddr),
    /// End a reservation.
    Release(ListenerId),
    /// Dial a member at the addresses, one after another.
    Dial(PeerId, Vec<Multiaddr>),
}

/// A reservation that is held or wanted.
#[derive(Debug, Default)]
struct Reservation {
    listener: Option<ListenerId>,
    backoff: Backoff,
}

/// Who is apart from us, and what is done about it.
#[derive(Debug)]
pub(crate) struct Circuits {
    own: PeerId,
    up: BTreeSet<PeerId>,
    /// Members that are up and not connected directly, since when.
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

    /// The members that are up.
    pub(crate) fn are_up(&mut self, members: BTreeSet<PeerId>) {
        self.up = members;
    }

    /// A reservation was asked for; `None`: it could not be.
    pub(crate) fn reserved(&mut self, relay: PeerId, listener: Option<ListenerId>) {
        self.reservations.entry(relay).or_default().listener = listener;
    }

    /// A relay has granted a reservation.
    pub(crate) fn granted(&mut self, relay: &PeerId) {
        if let Some(reservation) = self.reservations.get_mut(relay) {
            reservation.backoff.reset();
        }
    }

    /// A reservation has ended: refused, or its relay is gone.
    pub(crate) fn ended(&mut self, listener: ListenerId) {
        let of = self.reservations.values_mut().find(|it| it.listener == Some(listener));
        if let Some(reservation) = of {
            reservation.listener = None;
        }
    }

    /// What is to be done at this moment.
    pub(crate) fn look(&mut self, now: Instant, connections: &Connections) -> Vec<Step> {
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
            .filter(|&(_, &since)| now.duration_since(since) >= APART)
            .map(|(&peer, _)| peer)
            .collect();
        let relays: BTreeMap<PeerId, Multiaddr> = connections
            .direct()
            .take(MAX_RELAYS)
            .map(|(relay, address)| (relay, through(relay, address)))
            .collect();
        let mut steps = self.reserve(now, &relays, apart.iter().any(|peer| *peer < own));
        self.dials.retain(|peer, _| apart.contains(peer) && !connections.is_connected(peer));
        for peer in apart.into_iter().filter(|peer| *peer > own && !connections.is_connected(peer))
        {
            if relays.is_empty() || !self.dials.entry(peer).or_default().is_due(now, MAX_PAUSE) {
                continue;
            }
            let mut relays: Vec<(&PeerId, &Multiaddr)> = relays.iter().collect();
            // Each pair has another order, so that one relay does not carry all.
            relays.sort_by_key(|(relay, _)| rank(relay, &peer, &own));
            let addresses =
                relays.into_iter().map(|(_, address)| address.clone().with(Protocol::P2p(peer)));
            steps.push(Step::Dial(peer, addresses.collect()));
        }
        steps
    }

    fn reserve(
        &mut self,
        now: Instant,
        relays: &BTreeMap<PeerId, Multiaddr>,
        wanted: bool,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        self.reservations.retain(|relay, reservation| {
            let kept = wanted && relays.contains_key(relay);
            if !kept && let Some(listener) = reservation.listener {
                steps.push(Step::Release(listener));
            }
            kept
        });
        for (&relay, address) in relays.iter().filter(|_| wanted) {
            let reservation = self.reservations.entry(relay).or_default();
            if reservation.listener.is_none() && reservation.backoff.is_due(now, MAX_PAUSE) {
                steps.push(Step::Reserve(relay, address.clone()));
            }
        }
        steps
    }
}

/// The address of circuits through a relay. Where the relay is has to be in it, though we are connected to it.
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

    use super::super::connections::Path;
    use super::*;

    const FIRST: u64 = 1_000;

    /// A relay that both are connected to, and a pair; the smaller id first.
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
            let direct = Path::Direct(address.parse().expect("an address"));
            self.connections.opened(peer, id, if directly { direct } else { Path::Circuit });
            id
        }

        fn circuits(&self, own: PeerId) -> Circuits {
            let mut circuits = Circuits::new(own);
            circuits.are_up([self.relay, self.pair[0], self.pair[1]].into());
            circuits
        }

        fn look(&self, circuits: &mut Circuits, after: u64) -> Vec<Step> {
            circuits.look(self.start + Duration::from_millis(after), &self.connections)
        }

        /// What is done `after` as many milliseconds, when nothing was done before.
        fn first_steps(&self, circuits: &mut Circuits) -> Vec<Step> {
            assert_eq!(self.look(circuits, FIRST), [], "a moment apart is nothing");
            self.look(circuits, FIRST + 2_000)
        }

        fn at_relay(&self) -> Multiaddr {
            format!("/ip4/10.0.0.1/tcp/4777/p2p/{}/p2p-circuit", self.relay)
                .parse()
                .expect("an address")
        }
    }

    #[test]
    fn of_two_members_apart_the_smaller_id_dials_and_the_larger_waits_at_the_relay() {
        let fixture = Fixture::new();
        let [smaller, larger] = fixture.pair;
        let target = fixture.at_relay().with(Protocol::P2p(larger));
        assert_eq!(
            fixture.first_steps(&mut fixture.circuits(smaller)),
            [Step::Dial(larger, vec![target])]
        );
        assert_eq!(
            fixture.first_steps(&mut fixture.circuits(larger)),
            [Step::Reserve(fixture.relay, fixture.at_relay())]
        );
    }

    #[test]
    fn nothing_is_done_for_members_that_are_down_or_connected_directly() {
        let mut fixture = Fixture::new();
        let [smaller, larger] = fixture.pair;
        let mut alone = fixture.circuits(smaller);
        alone.are_up([fixture.relay, smaller].into());
        assert_eq!(fixture.first_steps(&mut alone), []);

        fixture.connect(larger, true);
        assert_eq!(fixture.first_steps(&mut fixture.circuits(smaller)), []);
    }

    #[test]
    fn a_reservation_is_asked_for_again_when_it_ended_and_released_when_nobody_is_apart() {
        let mut fixture = Fixture::new();
        let [smaller, larger] = fixture.pair;
        let mut circuits = fixture.circuits(larger);
        assert_eq!(fixture.first_steps(&mut circuits).len(), 1);
        let listener = ListenerId::next();
        circuits.reserved(fixture.relay, Some(listener));
        circuits.granted(&fixture.relay);
        assert_eq!(fixture.look(&mut circuits, 60_000), [], "held");

        circuits.ended(listener);
        let again = Step::Reserve(fixture.relay, fixture.at_relay());
        assert_eq!(fixture.look(&mut circuits, 61_000), [again]);
        let listener = ListenerId::next();
        circuits.reserved(fixture.relay, Some(listener));
        // Through the circuit they are still apart: it may break.
        fixture.connect(smaller, false);
        assert_eq!(fixture.look(&mut circuits, 90_000), []);

        fixture.connect(smaller, true);
        assert_eq!(fixture.look(&mut circuits, 91_000), [Step::Release(listener)]);
    }

    #[test]
    fn a_member_is_dialled_through_relays_until_it_is_connected_and_again_when_the_circuit_breaks()
    {
        let mut fixture = Fixture::new();
        let [smaller, larger] = fixture.pair;
        let mut circuits = fixture.circuits(smaller);
        assert_eq!(fixture.first_steps(&mut circuits).len(), 1);
        assert_eq!(fixture.look(&mut circuits, FIRST + 2_100), [], "it was just tried");
        let second = fixture.connect(PeerId::random(), true);
        let steps = fixture.look(&mut circuits, FIRST + 3_000);
        let [Step::Dial(_, addresses)] = steps.as_slice() else { panic!("{steps:?}") };
        assert_eq!(addresses.len(), 2, "through every relay: {addresses:?}");

        let circuit = fixture.connect(larger, false);
        assert_eq!(fixture.look(&mut circuits, FIRST + 9_000), []);
        fixture.connections.closed(&larger, circuit);
        assert_eq!(fixture.look(&mut circuits, FIRST + 9_001).len(), 1, "at once");

        let relays: Vec<PeerId> = fixture.connections.direct().map(|(relay, _)| relay).collect();
        for relay in relays {
            fixture.connections.closed(&relay, ConnectionId::new_unchecked(1));
            fixture.connections.closed(&relay, second);
        }
        assert_eq!(fixture.look(&mut circuits, FIRST + 60_000), [], "there is no relay left");
    }
}
