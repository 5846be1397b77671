//! Which nodes are to be voters, and voters that a person sets without the present ones.

use std::collections::BTreeSet;

use vc_crdt::{ClusterState, View, VoterEntry, VoterKey};
use vc_protocol::NodeId;
use vc_protocol::change::Subject;
use vc_protocol::control::Change;
use vc_protocol::lease::{LEASE_MS, MAX_VOTERS, VoterSet};

use super::{MutationError, find_node};
use crate::voters::servers;

/// By how much the number of a forced set is higher than that of the present one: no decision of the former voters that is under
/// way, or that a partition hides, gets a higher one.
const FORCED_STEP: u64 = 1000;

/// Records whether a node is to be a voter; `None` leaves it to the cluster.
pub(super) fn wish(
    view: &View,
    state: &mut ClusterState,
    node: &str,
    votes: Option<bool>,
) -> Result<Change, MutationError> {
    let node = find_server(view, node)?;
    match votes {
        Some(true) => {
            let others = state.voter_wishes(true);
            if others.iter().filter(|it| **it != node && servers(view).contains(it)).count()
                >= MAX_VOTERS
            {
                return Err(MutationError::TooManyVoters);
            }
        }
        Some(false) => check_other_voter(view, node)?,
        None => {}
    }
    let key = VoterKey::Wish(node);
    match votes {
        Some(votes) => drop(state.voters.insert(key, VoterEntry::Wish(votes))),
        None => drop(state.voters.remove(&key)),
    }
    Ok(Change::VoterWished { node, node_name: view.name(node), votes })
}

/// Makes nodes the voters, whatever the present ones say.
pub(super) fn force(
    view: &View,
    state: &mut ClusterState,
    nodes: &[String],
    by: &Subject,
) -> Result<Change, MutationError> {
    let found: Result<BTreeSet<NodeId>, _> = nodes.iter().map(|it| find_server(view, it)).collect();
    let voters = found?;
    if voters.is_empty() {
        return Err(MutationError::NoVoters);
    }
    if voters.len() > MAX_VOTERS {
        return Err(MutationError::TooManyVoters);
    }
    let present = view.cluster.voter_set();
    let number = present.map_or(0, |set| set.number).saturating_add(FORCED_STEP);
    let lease_ms = present.map_or(LEASE_MS, |set| set.lease_ms);
    let set = VoterSet { number, voters, lease_ms, forced: true, by: by.name.clone() };
    let mut down = set.voters.difference(&view.up);
    if set.voters.intersection(&view.up).count() < set.majority()
        && let Some(down) = down.next()
    {
        return Err(MutationError::VotersDown { node: view.name(*down), needed: set.majority() });
    }
    for node in &set.voters {
        if state.voters.get(&VoterKey::Wish(*node)) == Some(&VoterEntry::Wish(false)) {
            state.voters.remove(&VoterKey::Wish(*node));
        }
    }
    let mut voters: Vec<NodeId> = set.voters.iter().copied().collect();
    voters.sort_by_cached_key(|&node| view.name(node));
    let names = voters.iter().map(|&node| view.name(node)).collect();
    state.set_voters(set);
    Ok(Change::VotersForced { number, voters, names })
}

/// Checks before a node leaves in order that it is no voter. Errors: it is one, and what to do first.
pub(super) fn check_leaves(view: &View, node: NodeId) -> Result<(), MutationError> {
    if !view.cluster.voter_set().is_some_and(|set| set.voters.contains(&node)) {
        return Ok(());
    }
    check_other_voter(view, node)?;
    Err(MutationError::NodeVotes { node: view.name(node) })
}

/// Errors: no other server may be a voter in the place of this one.
fn check_other_voter(view: &View, node: NodeId) -> Result<(), MutationError> {
    let unwanted = view.cluster.voter_wishes(false);
    let voters = view.cluster.voter_set().map(|set| &set.voters);
    let votes = |node: &NodeId| voters.is_some_and(|voters| voters.contains(node));
    let mut others = servers(view).into_iter().filter(|it| *it != node && !unwanted.contains(it));
    match others.any(|it| view.up.contains(&it) || votes(&it)) {
        true => Ok(()),
        false => Err(MutationError::LastVoter { node: view.name(node) }),
    }
}

/// Returns the server of this name. Errors: none has it, or it is a worker.
fn find_server(view: &View, text: &str) -> Result<NodeId, MutationError> {
    let node = find_node(view, text)?;
    match servers(view).contains(&node) {
        true => Ok(node),
        false => Err(MutationError::CannotVote { node: view.name(node) }),
    }
}
