//! The entries of the cluster document about the nodes that grant leases.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vc_protocol::NodeId;
use vc_protocol::lease::VoterSet;

/// Sets of voters before the present one that are kept, for people.
const KEPT: usize = 8;

/// The key of an entry: `set/NUMBER`, or `wish/NODE`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum VoterKey {
    /// A set of voters, by its number.
    Set(u64),
    /// What a person wants of a node.
    Wish(NodeId),
}

impl Display for VoterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Set(number) => write!(f, "set/{number}"),
            Self::Wish(node) => write!(f, "wish/{node}"),
        }
    }
}

/// The text is not a [`VoterKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the key of voters: expected set/NUMBER or wish/NODE")]
pub struct ParseVoterKeyError(String);

impl FromStr for VoterKey {
    type Err = ParseVoterKeyError;
    fn from_str(text: &str) -> Result<Self, ParseVoterKeyError> {
        let bad = || ParseVoterKeyError(text.to_owned());
        match text.split_once('/') {
            Some(("set", number)) => Ok(Self::Set(number.parse().map_err(|_| bad())?)),
            Some(("wish", node)) => Ok(Self::Wish(node.parse().map_err(|_| bad())?)),
            _ => Err(bad()),
        }
    }
}

/// The value of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum VoterEntry {
    /// Of a set.
    Set(VoterSet),
    /// Of a node: whether a person wants it as a voter.
    Wish(bool),
}

/// Returns the present voters: the set of the highest number. `None` before the first.
pub(crate) fn present(entries: &BTreeMap<VoterKey, VoterEntry>) -> Option<&VoterSet> {
    let mut sets = entries.iter().filter_map(|entry| match entry {
        (VoterKey::Set(number), VoterEntry::Set(set)) if *number == set.number => Some(set),
        _ => None,
    });
    sets.next_back()
}

/// Returns the nodes that a person wants as voters, or does not want.
pub(crate) fn wishes(entries: &BTreeMap<VoterKey, VoterEntry>, wanted: bool) -> BTreeSet<NodeId> {
    let of = |entry: (&VoterKey, &VoterEntry)| match entry {
        (VoterKey::Wish(node), VoterEntry::Wish(wish)) if *wish == wanted => Some(*node),
        _ => None,
    };
    entries.iter().filter_map(of).collect()
}

/// Adds a set, and drops the oldest.
pub(crate) fn add(entries: &mut BTreeMap<VoterKey, VoterEntry>, set: VoterSet) {
    entries.insert(VoterKey::Set(set.number), VoterEntry::Set(set));
    let sets: Vec<u64> = entries
        .keys()
        .filter_map(|key| match key {
            VoterKey::Set(number) => Some(*number),
            VoterKey::Wish(_) => None,
        })
        .collect();
    for number in sets.iter().rev().skip(KEPT) {
        entries.remove(&VoterKey::Set(*number));
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use vc_protocol::lease::LEASE_MS;

    use super::*;

    fn set(number: u64) -> VoterSet {
        VoterSet {
            number,
            voters: BTreeSet::new(),
            lease_ms: LEASE_MS,
            forced: false,
            by: String::new(),
        }
    }

    #[test]
    fn the_highest_number_counts_and_old_sets_are_dropped() {
        let mut entries = BTreeMap::new();
        for number in 1..=12 {
            add(&mut entries, set(number));
        }
        assert_eq!(present(&entries), Some(&set(12)));
        assert_eq!(entries.len(), KEPT);
        let key: VoterKey = "set/12".parse().expect("a key");
        assert_eq!(key.to_string(), "set/12");
        assert!("set/x".parse::<VoterKey>().is_err());
    }
}
