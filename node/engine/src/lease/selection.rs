//! Which servers are to be voters.

use std::collections::BTreeSet;

use vc_protocol::NodeId;
use vc_protocol::lease::{MAX_VOTERS, VoterSet};

/// What the choice depends on.
#[derive(Debug)]
pub(super) struct Servers<'a> {
    /// The servers of the cluster that have not left.
    pub(super) present: &'a BTreeSet<NodeId>,
    /// Those that are up.
    pub(super) up: &'a BTreeSet<NodeId>,
    /// Those that a person wants as voters.
    pub(super) wanted: &'a BTreeSet<NodeId>,
    /// Those that a person does not want as voters.
    pub(super) unwanted: &'a BTreeSet<NodeId>,
    /// Voters that have been down for so long that another server takes their place.
    pub(super) lost: &'a BTreeSet<NodeId>,
}

/// Returns the voters that are to follow those of `set`, with one more or one less; `None` if they stay.
///
/// The number of voters is odd where it can be: of two servers one is a voter, so that the other one can be down without an
/// effect. A person's wish goes first. There are always voters: the last one stays until another one is there.
pub(super) fn next_voters(set: &VoterSet, servers: &Servers<'_>) -> Option<BTreeSet<NodeId>> {
    let voters = &set.voters;
    let may_vote =
        |node: &NodeId| servers.present.contains(node) && !servers.unwanted.contains(node);
    let with =
        |node: NodeId| -> BTreeSet<NodeId> { voters.iter().copied().chain([node]).collect() };
    let without = |node: NodeId| -> BTreeSet<NodeId> {
        voters.iter().copied().filter(|it| *it != node).collect()
    };
    let candidates = || {
        let up = servers.up.iter().filter(|node| may_vote(node) && !voters.contains(node));
        up.copied()
    };
    // One that is to go leaves when enough others are there to have a majority among those that stay.
    if let Some(&leaves) = voters.iter().find(|node| !may_vote(node)) {
        return match candidates().next() {
            Some(node) if voters.len() == 1 => Some(with(node)),
            None if voters.len() == 1 => None,
            _ => Some(without(leaves)),
        };
    }
    let optional = || voters.iter().filter(|node| !servers.wanted.contains(node));
    if let Some(node) = candidates().find(|node| servers.wanted.contains(node)) {
        return match voters.len() < MAX_VOTERS {
            true => Some(with(node)),
            false => optional().next_back().map(|&node| without(node)),
        };
    }
    let possible = (voters.len() + candidates().count()).min(MAX_VOTERS);
    let goal = if possible.is_multiple_of(2) { possible - 1 } else { possible };
    if voters.len() < goal {
        return candidates().next().map(with);
    }
    if voters.len() > goal {
        let down = optional().find(|node| servers.lost.contains(node));
        let down = down.or_else(|| optional().find(|node| !servers.up.contains(node)));
        return down.or_else(|| optional().next_back()).map(|&node| without(node));
    }
    let is_lost = voters.iter().any(|node| servers.lost.contains(node));
    if is_lost && voters.len() < MAX_VOTERS { candidates().next().map(with) } else { None }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use vc_protocol::Keypair;
    use vc_protocol::lease::LEASE_MS;

    use super::*;

    fn nodes(of: &[u8]) -> BTreeSet<NodeId> {
        let id = |byte: &u8| {
            let key = Keypair::ed25519_from_bytes([*byte; 32]).expect("32 bytes");
            NodeId::of(&key.public()).expect("ed25519")
        };
        of.iter().map(id).collect()
    }

    /// Follows the choice until it stays, and returns the sizes of the sets on the way, and the last one.
    fn settle(voters: &[u8], servers: &Servers<'_>) -> (Vec<usize>, BTreeSet<NodeId>) {
        let voters = nodes(voters);
        let mut set =
            VoterSet { number: 1, voters, lease_ms: LEASE_MS, forced: false, by: String::new() };
        let mut sizes = vec![set.voters.len()];
        while let Some(next) = next_voters(&set, servers) {
            assert!(sizes.len() < 20, "it ends");
            assert_eq!(next.symmetric_difference(&set.voters).count(), 1, "one at a time");
            set = VoterSet { number: set.number + 1, voters: next, ..set };
            sizes.push(set.voters.len());
        }
        (sizes, set.voters)
    }

    #[test]
    fn the_number_of_voters_is_odd_and_at_most_seven() {
        let none = nodes(&[]);
        for (servers, expected) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (7, 7), (9, 7)] {
            let all = nodes(&(1..=servers).collect::<Vec<u8>>());
            let servers =
                Servers { present: &all, up: &all, wanted: &none, unwanted: &none, lost: &none };
            assert_eq!(settle(&[1], &servers).1.len(), expected);
        }
    }

    #[test]
    fn a_voter_that_left_is_replaced_and_the_last_one_stays() {
        let none = nodes(&[]);
        let (present, up) = (nodes(&[2, 3, 4]), nodes(&[2, 3, 4]));
        let servers =
            Servers { present: &present, up: &up, wanted: &none, unwanted: &none, lost: &none };
        assert_eq!(settle(&[1, 2, 3], &servers), (vec![3, 2, 3], nodes(&[2, 3, 4])));
        let alone = nodes(&[]);
        let servers =
            Servers { present: &alone, up: &alone, wanted: &none, unwanted: &none, lost: &none };
        assert_eq!(settle(&[1], &servers), (vec![1], nodes(&[1])), "no other server is there");
        let other = nodes(&[2]);
        let servers =
            Servers { present: &other, up: &other, wanted: &none, unwanted: &none, lost: &none };
        assert_eq!(settle(&[1], &servers), (vec![1, 2, 1], nodes(&[2])));
    }

    #[test]
    fn a_lost_voter_is_replaced_where_another_server_is_up() {
        let none = nodes(&[]);
        let (present, lost) = (nodes(&[1, 2, 3, 4]), nodes(&[1]));
        let up = nodes(&[2, 3, 4]);
        let servers =
            Servers { present: &present, up: &up, wanted: &none, unwanted: &none, lost: &lost };
        assert_eq!(settle(&[1, 2, 3], &servers), (vec![3, 4, 3], nodes(&[2, 3, 4])));
        let up = nodes(&[2, 3]);
        let servers = Servers { up: &up, ..servers };
        assert_eq!(settle(&[1, 2, 3], &servers), (vec![3], nodes(&[1, 2, 3])), "none is left");
    }

    #[test]
    fn wishes_go_first() {
        let (none, all) = (nodes(&[]), nodes(&[1, 2, 3]));
        let (wanted, unwanted) = (nodes(&[1, 2]), nodes(&[3]));
        let servers =
            Servers { present: &all, up: &all, wanted: &wanted, unwanted: &none, lost: &none };
        assert_eq!(settle(&[1], &servers).1, all);
        let servers = Servers { unwanted: &unwanted, ..servers };
        assert_eq!(settle(&[1], &servers), (vec![1, 2], nodes(&[1, 2])), "two, if one says so");
        let (all, wanted) = (nodes(&[1, 2, 3, 4, 5, 6, 7, 8]), nodes(&[8]));
        let servers =
            Servers { present: &all, up: &all, wanted: &wanted, unwanted: &none, lost: &none };
        let (sizes, voters) = settle(&[1, 2, 3, 4, 5, 6, 7], &servers);
        assert_eq!(
            (sizes, voters.contains(&nodes(&[8]).pop_first().expect("one"))),
            (vec![7, 6, 7], true)
        );
    }
}
