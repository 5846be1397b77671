//! Events of the voters: each set that follows another one, and what people want of nodes.

use std::collections::BTreeSet;

use vc_crdt::{View, VoterEntry, VoterKey};
use vc_protocol::NodeId;
use vc_protocol::lease::VoterSet;

use super::Events;

/// Changes of the voters, and of what is wanted of nodes.
pub(super) fn voters(before: &View, after: &View, events: &mut Events) {
    wishes(before, after, events);
    let mut last = before.cluster.voter_set();
    let known = last.map_or(0, |set| set.number);
    let sets = after.cluster.voters.values().filter_map(|entry| match entry {
        VoterEntry::Set(set) if set.number > known => Some(set),
        _ => None,
    });
    for set in sets {
        changed(after, last, set, events);
        last = Some(set);
    }
}

/// Tells which nodes became voters with a set, which are none any more, and who has decided that.
fn changed(view: &View, before: Option<&VoterSet>, set: &VoterSet, events: &mut Events) {
    let none = BTreeSet::new();
    let held = before.map_or(&none, |before| &before.voters);
    let number = set.number;
    if set.forced {
        let by = if set.by.is_empty() { "a user" } else { &set.by };
        let how =
            format!("(set {number}): forced by {by}, without the consent of the voters before");
        for &node in &set.voters {
            events.warning(&view.name(node), format!("is a voter {how}"));
        }
        for &node in held.difference(&set.voters) {
            events.warning(&view.name(node), format!("is no voter any more {how}"));
        }
        return;
    }
    let by = match before {
        None => "the first one, chosen by the cluster".to_owned(),
        Some(before) => format!("decided by {}", names(view, before)),
    };
    let wish = |node: NodeId| view.cluster.voters.get(&VoterKey::Wish(node));
    for &node in set.voters.difference(held) {
        let wanted = wish(node) == Some(&VoterEntry::Wish(true));
        let why = if wanted { ", as a user wants it" } else { "" };
        events.info(&view.name(node), format!("is a voter now (set {number}): {by}{why}"));
    }
    for &node in held.difference(&set.voters) {
        let why = match wish(node) {
            Some(VoterEntry::Wish(false)) => ", as a user wants it",
            _ if view.cluster.left.contains_key(&node) => ", as it has left the cluster",
            _ => "",
        };
        events.info(&view.name(node), format!("is no voter any more (set {number}): {by}{why}"));
    }
}

/// Returns the names of the voters of a set, sorted.
fn names(view: &View, set: &VoterSet) -> String {
    let mut names: Vec<String> = set.voters.iter().map(|&node| view.name(node)).collect();
    names.sort_unstable();
    names.join(", ")
}

/// What people want of nodes. Who it was is in the audit log.
fn wishes(before: &View, after: &View, events: &mut Events) {
    let wish = |view: &View, node: NodeId| match view.cluster.voters.get(&VoterKey::Wish(node)) {
        Some(VoterEntry::Wish(wish)) => Some(*wish),
        _ => None,
    };
    for &node in after.nodes.keys() {
        let wanted = wish(after, node);
        if wanted == wish(before, node) {
            continue;
        }
        let text = match wanted {
            Some(true) => "is to be a voter, as a user wants it",
            Some(false) => "is to be no voter, as a user wants it",
            None if after.cluster.left.contains_key(&node) => continue,
            None => "is a voter or not as the cluster decides again",
        };
        events.info(&after.name(node), text);
    }
}
