//! Liveness: which nodes are up, as a function of the documents.
//!
//! Each node is watched by observers. An observer that receives nothing from a node writes "unreachable, incarnation i" into
//! its own document: an accusation, in the terms of SWIM (Das et al. 2002) a confirmed suspicion with an incarnation. A
//! node counts as down when a majority of its electorate accuses it. The electorate are its observers that are not
//! accused themselves and have observed the node or accuse it. So one node with a bad link takes no other down, and the
//! last survivor of three still sees that the others are down.

use std::collections::{BTreeMap, BTreeSet};

use vc_placement::rendezvous;
use vc_protocol::{Millis, NodeId};

use crate::state::NodeState;

/// The most observers of a node. In clusters of up to `MAX_OBSERVERS + 1` nodes every node observes every other.
pub const MAX_OBSERVERS: usize = 8;

/// Returns the observers of a node: all other nodes, or the first [`MAX_OBSERVERS`] of them by rendezvous hash.
pub fn observers<'a>(
    of: NodeId,
    nodes: impl Iterator<Item = &'a NodeId> + Clone,
) -> BTreeSet<NodeId> {
    let others = nodes.copied().filter(|&node| node != of);
    if others.clone().count() <= MAX_OBSERVERS {
        return others.collect();
    }
    let of = of.to_string();
    let mut ranked: Vec<_> = others
        .map(|node| (std::cmp::Reverse(rendezvous(&["observer", &of, &node.to_string()])), node))
        .collect();
    ranked.sort();
    ranked.into_iter().take(MAX_OBSERVERS).map(|(_, node)| node).collect()
}

/// Returns whether `by` accuses `of` in its present incarnation.
pub fn accuses(nodes: &BTreeMap<NodeId, NodeState>, by: NodeId, of: NodeId) -> bool {
    let (Some(by), Some(of_state)) = (nodes.get(&by), nodes.get(&of)) else { return false };
    by.unreachable.get(&of).is_some_and(|&incarnation| incarnation >= of_state.incarnation)
}

/// Returns whether any node accuses `of` in its present incarnation.
pub fn is_accused(nodes: &BTreeMap<NodeId, NodeState>, of: NodeId) -> bool {
    nodes.keys().any(|&by| by != of && accuses(nodes, by, of))
}

/// Returns the observers that decide on a node: those that are not accused themselves and have observed the node or accuse it.
fn electorate(
    nodes: &BTreeMap<NodeId, NodeState>,
    accused: &BTreeSet<NodeId>,
    node: NodeId,
) -> BTreeSet<NodeId> {
    // An observer that has just started and has not observed the node yet has no vote.
    let informed = |by: &NodeId| accuses(nodes, *by, node) || nodes[by].observed.contains(&node);
    let informed: BTreeSet<NodeId> =
        observers(node, nodes.keys()).into_iter().filter(informed).collect();
    let electorate: BTreeSet<NodeId> = informed.difference(accused).copied().collect();
    // After a partition healed, every node may be accused until it has answered: then all of them vote.
    if electorate.is_empty() { informed } else { electorate }
}

/// Returns for how long a node that is down has been silent: the longest time that most of those report which decide that it is
/// down. They report only the times that services ask for ([`NodeState::silent`]).
pub fn silent_for(nodes: &BTreeMap<NodeId, NodeState>, node: NodeId) -> Millis {
    let reported = |by: &NodeId| {
        let silence = nodes[by].silent.get(&node);
        let current = silence.filter(|it| it.incarnation >= nodes[&node].incarnation);
        current.filter(|_| accuses(nodes, *by, node)).map_or(0, |it| it.ms)
    };
    let mut times: Vec<Millis> =
        electorate(nodes, &accused(nodes), node).iter().map(reported).collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    times.get(times.len() / 2).copied().unwrap_or(0)
}

fn accused(nodes: &BTreeMap<NodeId, NodeState>) -> BTreeSet<NodeId> {
    nodes.keys().copied().filter(|&node| is_accused(nodes, node)).collect()
}

/// Returns the nodes that are up.
pub fn up_nodes(nodes: &BTreeMap<NodeId, NodeState>) -> BTreeSet<NodeId> {
    let accused = accused(nodes);
    let is_up = |&node: &NodeId| {
        if !accused.contains(&node) {
            return true;
        }
        let electorate = electorate(nodes, &accused, node);
        let against = electorate.iter().filter(|&&by| accuses(nodes, by, node)).count();
        against * 2 <= electorate.len()
    };
    nodes.keys().copied().filter(is_up).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Silence;

    fn ids(n: u8) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = (1..=n)
            .map(|i| vc_protocol::Keypair::ed25519_from_bytes([i; 32]).expect("32 bytes"))
            .map(|key| NodeId::of(&key.public()).expect("ed25519"))
            .collect();
        ids.sort();
        ids
    }

    /// Returns a cluster with these accusations (by, of), all at incarnation 1.
    fn cluster(ids: &[NodeId], accusations: &[(usize, usize)]) -> BTreeMap<NodeId, NodeState> {
        let mut nodes: BTreeMap<NodeId, NodeState> = ids
            .iter()
            .map(|&id| {
                (
                    id,
                    NodeState {
                        incarnation: 1,
                        observed: ids.iter().copied().collect(),
                        ..NodeState::default()
                    },
                )
            })
            .collect();
        for &(by, of) in accusations {
            nodes.get_mut(&ids[by]).expect("there").unreachable.insert(ids[of], 1);
        }
        nodes
    }

    fn down(ids: &[NodeId], accusations: &[(usize, usize)]) -> Vec<usize> {
        let up = up_nodes(&cluster(ids, accusations));
        (0..ids.len()).filter(|&i| !up.contains(&ids[i])).collect()
    }

    #[test]
    fn a_dead_node_is_down_once_its_observers_agree() {
        let ids = ids(5);
        assert_eq!(down(&ids, &[]), vec![] as Vec<usize>);
        assert_eq!(down(&ids, &[(1, 0), (2, 0)]), vec![] as Vec<usize>);
        assert_eq!(down(&ids, &[(1, 0), (2, 0), (3, 0)]), vec![0]);
    }

    #[test]
    fn the_last_of_three_nodes_sees_that_the_others_are_down() {
        let ids = ids(3);
        assert_eq!(down(&ids, &[(1, 0), (2, 0), (2, 1)]), vec![0, 1]);
        assert_eq!(down(&ids, &[(2, 0), (2, 1)]), vec![0, 1], "also both at once");
    }

    #[test]
    fn a_bad_link_between_two_nodes_takes_neither_down() {
        let ids = ids(3);
        assert_eq!(down(&ids, &[(0, 1), (1, 0)]), vec![] as Vec<usize>);
        assert_eq!(down(&ids, &[(0, 1)]), vec![] as Vec<usize>);
    }

    #[test]
    fn an_observer_has_no_vote_on_a_node_that_it_has_not_observed() {
        let ids = ids(3);
        let mut nodes = cluster(&ids, &[(0, 1)]);
        assert!(up_nodes(&nodes).contains(&ids[1]), "one of two informed observers is no majority");
        nodes.get_mut(&ids[2]).expect("there").observed.clear();
        assert!(!up_nodes(&nodes).contains(&ids[1]), "the informed observer decides");
    }

    #[test]
    fn a_higher_incarnation_voids_an_accusation() {
        let ids = ids(3);
        let mut nodes = cluster(&ids, &[(1, 0), (2, 0)]);
        assert!(!up_nodes(&nodes).contains(&ids[0]));
        nodes.get_mut(&ids[0]).expect("there").incarnation = 2;
        assert!(up_nodes(&nodes).contains(&ids[0]));
    }

    #[test]
    fn a_node_is_silent_for_as_long_as_most_of_its_observers_say() {
        let ids = ids(4);
        let silent = |times: &[(usize, Millis)]| {
            let mut nodes = cluster(&ids, &[(1, 0), (2, 0), (3, 0)]);
            for &(by, ms) in times {
                let silence = Silence { incarnation: 1, ms };
                nodes.get_mut(&ids[by]).expect("there").silent.insert(ids[0], silence);
            }
            nodes
        };
        let of = |times: &[(usize, Millis)]| silent_for(&silent(times), ids[0]);
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[(1, 600)]), 0, "one of three");
        assert_eq!(of(&[(1, 600), (2, 60)]), 60);
        assert_eq!(of(&[(1, 600), (2, 60), (3, 600)]), 600);
        let mut nodes = silent(&[(1, 600), (2, 600), (3, 600)]);
        nodes.get_mut(&ids[0]).expect("there").incarnation = 2;
        assert_eq!(silent_for(&nodes, ids[0]), 0, "it was heard of since");
        let mut nodes = silent(&[(1, 600), (2, 600)]);
        for by in [1, 2] {
            nodes.get_mut(&ids[by]).expect("there").unreachable.clear();
        }
        assert_eq!(silent_for(&nodes, ids[0]), 0, "only accusers count");
    }

    #[test]
    fn half_of_an_even_electorate_is_no_majority_for_a_time() {
        let ids = ids(3);
        let mut nodes = cluster(&ids, &[(1, 0), (2, 0)]);
        let mut say = |by: usize| {
            let silence = Silence { incarnation: 1, ms: 60 };
            nodes.get_mut(&ids[by]).expect("there").silent.insert(ids[0], silence);
            silent_for(&nodes, ids[0])
        };
        assert_eq!((say(1), say(2)), (0, 60));
    }

    #[test]
    fn the_number_of_observers_is_bounded() {
        let ids = ids(30);
        for &id in &ids {
            let of = observers(id, ids.iter());
            assert_eq!(of.len(), MAX_OBSERVERS);
            assert!(!of.contains(&id));
        }
    }
}
