//! Which process each connection leads to, and what to ask when a peer id has two.

use std::collections::BTreeMap;

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

/// Other processes of one peer id that a new one is compared with: a member may open any number of connections, and claim
/// a process for each.
const MAX_COMPARED: usize = 4;

/// What to do after an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Ask again.
    Ask { over: ConnectionId, challenge: u64 },
    /// Pass the answer on to the other process, with the address of the one that answered.
    Tell { over: ConnectionId, address: Multiaddr },
    /// Both processes, at these addresses, have answered the other's challenge.
    Report([Multiaddr; 2]),
}

/// A connection.
#[derive(Debug)]
struct Sighting {
    address: Multiaddr,
    /// The process at the other end, once it has answered.
    process: Option<u64>,
    /// The other process whose challenge it has answered.
    answered: Option<u64>,
}

/// The connections of each peer.
#[derive(Debug, Default)]
pub(super) struct Sightings(BTreeMap<PeerId, BTreeMap<ConnectionId, Sighting>>);

impl Sightings {
    pub(super) fn connected(&mut self, peer: PeerId, connection: ConnectionId, address: Multiaddr) {
        let sighting = Sighting { address, process: None, answered: None };
        self.0.entry(peer).or_default().insert(connection, sighting);
    }

    pub(super) fn closed(&mut self, peer: &PeerId, connection: ConnectionId) {
        if let Some(open) = self.0.get_mut(peer) {
            open.remove(&connection);
            if open.is_empty() {
                self.0.remove(peer);
            }
        }
    }

    /// Takes in the statement of a process. Without a challenge it may be older than another process of the peer, whose
    /// connection is only not closed yet, so both are asked again.
    pub(super) fn answered(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        process: u64,
        challenge: u64,
    ) -> Vec<Action> {
        let Some(open) = self.0.get_mut(&peer) else { return Vec::new() };
        let Some(sighting) = open.get_mut(&connection) else { return Vec::new() };
        sighting.process = Some(process);
        if challenge != 0 && challenge != process {
            sighting.answered = Some(challenge);
        }
        let address = sighting.address.clone();
        let others = open.iter().filter_map(|(&over, other)| {
            let number = other.process.filter(|&number| number != process)?;
            Some((over, number, other))
        });
        let mut actions = Vec::new();
        for (over, number, other) in others.take(MAX_COMPARED) {
            if challenge == number {
                actions.push(Action::Tell { over, address: address.clone() });
                if other.answered == Some(process) {
                    actions.push(Action::Report([address.clone(), other.address.clone()]));
                }
            } else if challenge == 0 {
                actions.push(Action::Ask { over, challenge: process });
                actions.push(Action::Ask { over: connection, challenge: number });
            }
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> Multiaddr {
        format!("/ip4/10.0.0.{n}/tcp/4777").parse().expect("an address")
    }

    #[test]
    fn two_processes_are_reported_once_both_have_answered_the_challenge_of_the_other() {
        let peer = PeerId::random();
        let [old, new] = [1, 2].map(ConnectionId::new_unchecked);
        let mut sightings = Sightings::default();
        sightings.connected(peer, old, address(1));
        assert_eq!(sightings.answered(peer, old, 10, 0), []);
        sightings.connected(peer, new, address(2));
        let asked =
            [Action::Ask { over: old, challenge: 20 }, Action::Ask { over: new, challenge: 10 }];
        assert_eq!(sightings.answered(peer, new, 20, 0), asked);
        // The old one may have ended.
        let tell = Action::Tell { over: old, address: address(2) };
        assert_eq!(sightings.answered(peer, new, 20, 10), [tell]);
        let tell = Action::Tell { over: new, address: address(1) };
        let report = Action::Report([address(1), address(2)]);
        assert_eq!(sightings.answered(peer, old, 10, 20), [tell, report]);
    }

    #[test]
    fn connections_of_one_process_and_closed_ones_are_not_compared() {
        let peer = PeerId::random();
        let [first, second, third] = [1, 2, 3].map(ConnectionId::new_unchecked);
        let mut sightings = Sightings::default();
        for connection in [first, second] {
            sightings.connected(peer, connection, address(1));
            assert_eq!(sightings.answered(peer, connection, 10, 0), []);
        }
        sightings.closed(&peer, first);
        sightings.closed(&peer, second);
        assert!(sightings.0.is_empty());
        sightings.connected(peer, third, address(1));
        assert_eq!(sightings.answered(peer, third, 20, 0), []);
        assert_eq!(sightings.answered(peer, first, 10, 20), [], "closed meanwhile");
    }
}
