//! Leases: the right to run an exclusive slot or to write a volume, which the voters of the cluster grant to one node at a
//! time. The messages between members are CBOR ([`LEASE_PROTOCOL`](crate::wire::LEASE_PROTOCOL)).
//!
//! PaxosLease (Trencseni, Gazso, Reinhardt, arXiv 1209.4187), with durable ballots as epochs.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::planted::{PlantedBug, is_planted};
use crate::{Millis, NodeId, ServiceKey, Slot, VolumeKey};

/// The lease time of a new cluster, in milliseconds: for how long a voter grants nothing to another node after it has accepted.
pub const LEASE_MS: Millis = 6000;
/// The most voters that a cluster has.
pub const MAX_VOTERS: usize = 7;
/// The longest key that a voter takes, in bytes.
pub const MAX_KEY: usize = 512;
/// The most entries of one message.
pub const MAX_ENTRIES: usize = 4096;
/// Epochs of a voter set begin at its number times this: they grow across changes of the voters without being copied.
const EPOCHS_OF_A_SET: u64 = 1_000_000;

/// How the keys of runs begin.
const RUN: &str = "run/";

/// What a lease is of: `slot/PROJECT/SERVICE/N`, `volume/PROJECT/NAME`, `run/PROJECT/SERVICE/TIME` or `job/PROJECT/SERVICE`. A text, as voters also grant leases of kinds that
/// they do not know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseKey(String);

impl LeaseKey {
    /// The lease of a slot.
    pub fn slot(slot: &Slot) -> Self {
        Self(format!("slot/{}/{}/{}", slot.service.project, slot.service.service, slot.replica))
    }

    /// The right to run a service at one time of its schedule, which one node only ever gets.
    pub fn run(slot: &Slot) -> Self {
        Self(format!("{RUN}{}/{}/{}", slot.service.project, slot.service.service, slot.replica))
    }

    /// The lease of a service of which one run at a time is under way.
    pub fn job(service: &ServiceKey) -> Self {
        Self(format!("job/{}/{}", service.project, service.service))
    }

    /// Returns whether voters grant it to the first node that gets it, and to no other one after it.
    pub fn is_once(&self) -> bool {
        self.0.starts_with(RUN)
    }

    /// The lease of a volume.
    pub fn volume(volume: &VolumeKey) -> Self {
        Self(format!("volume/{}/{}", volume.project, volume.volume))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for LeaseKey {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Counts the holders of a lease: each new holder has a higher epoch than all before it. Also the ballot of its proposal.
pub type Epoch = u64;

/// The nodes that grant leases, as of one change of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterSet {
    /// Grows with each change.
    pub number: u64,
    /// The voters.
    pub voters: BTreeSet<NodeId>,
    /// The lease time in milliseconds, the same for all nodes.
    pub lease_ms: Millis,
    /// Whether a person has set it without the voters before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// The name of that person; empty if the voters before it have decided, or an older version has written it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

impl VoterSet {
    /// Returns how many voters make a majority.
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Returns whether a node is the only voter: no other node gets a lease while its process is down.
    pub fn is_only(&self, node: NodeId) -> bool {
        self.voters.len() == 1 && self.voters.contains(&node)
    }

    /// Returns for how long a holder relies on a lease, in milliseconds from before it proposed: less than the voters wait, so
    /// that clocks may drift by 10 % against each other.
    pub fn hold_ms(&self) -> Millis {
        let rate = if is_planted(PlantedBug::LongLease) { 10 } else { 4 };
        self.lease_ms / 5 * rate
    }

    /// Returns the epoch of a new holder: higher than what was seen, and than all of earlier sets.
    pub fn next_epoch(&self, seen: Epoch) -> Epoch {
        let one = if is_planted(PlantedBug::SameEpoch) { 0 } else { 1 };
        seen.max(self.number.saturating_mul(EPOCHS_OF_A_SET)).saturating_add(one)
    }
}

/// A message about leases between two members. It may be lost, repeated or delayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseMessage {
    /// To a voter.
    Request {
        /// [`VoterSet::number`] that the sender knows; a voter that knows another set refuses.
        set: u64,
        /// The lease time that the sender counts with; a voter with another one refuses.
        lease_ms: Millis,
        /// What it asks for.
        entries: Vec<LeaseRequest>,
    },
    /// From a voter.
    Reply {
        /// [`VoterSet::number`] that the voter knows.
        set: u64,
        /// One for each entry of the request.
        entries: Vec<LeaseReply>,
    },
    /// To a voter, about the next set of voters.
    Change(ChangeRequest),
    /// From a voter, about the next set of voters.
    ChangeReply(ChangeReply),
}

/// What a node asks of a voter for one lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseRequest {
    /// Promise to accept nothing below this epoch.
    Prepare {
        /// The lease.
        key: LeaseKey,
        /// The epoch that the sender wants to hold it with.
        epoch: Epoch,
    },
    /// Grant the lease, or renew it.
    Accept {
        /// The lease.
        key: LeaseKey,
        /// The epoch.
        epoch: Epoch,
        /// When the holder sent this, by its monotonic clock; comes back in the reply.
        sent: Millis,
        /// Whether a majority grants the sender the lease already: a voter that has promised a higher epoch to a node which did not
        /// get it grants it too.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        held: bool,
    },
    /// The holder does not need it any more.
    Release {
        /// The lease.
        key: LeaseKey,
        /// The epoch.
        epoch: Epoch,
    },
}

/// What a voter answers about one lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseReply {
    /// It will accept nothing below this epoch, and the lease is free.
    Promised {
        /// The lease.
        key: LeaseKey,
        /// The epoch.
        epoch: Epoch,
    },
    /// It grants the lease for the lease time from now on.
    Accepted {
        /// The lease.
        key: LeaseKey,
        /// The epoch.
        epoch: Epoch,
        /// When the holder sent the request, by its clock.
        sent: Millis,
    },
    /// It does neither.
    Refused {
        /// The lease.
        key: LeaseKey,
        /// The epoch of the request.
        epoch: Epoch,
        /// The highest epoch that the voter has seen of this lease.
        highest: Epoch,
        /// Why the voter does not do it.
        because: Refusal,
    },
}

/// Why a voter refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", content = "node", rename_all = "snake_case")]
pub enum Refusal {
    /// Another node holds the lease.
    Held(NodeId),
    /// It knows a higher epoch.
    Outdated,
    /// It is no voter, or knows another set of voters or lease time.
    OtherVoters,
    /// By its view, the plan does not give the sender the slot.
    NotPlanned,
    /// It has started a moment ago, and may have granted the lease before.
    Silent,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

/// A step of the decision on the next set of voters: one instance of Paxos among the present ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRequest {
    /// [`VoterSet::number`] of the present set.
    pub from: u64,
    /// The ballot of the proposer.
    pub ballot: u64,
    /// The set to accept; `None` asks for a promise.
    pub accept: Option<VoterSet>,
}

/// The answer to a [`ChangeRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReply {
    /// [`VoterSet::number`] of the present set.
    pub from: u64,
    /// The ballot of the request.
    pub ballot: u64,
    /// Whether the voter does as asked.
    pub granted: bool,
    /// The highest ballot that it has promised.
    pub highest: u64,
    /// The set that it has accepted, with the ballot.
    pub accepted: Option<(u64, VoterSet)>,
}

/// What a voter keeps on its disk about one lease. It changes when the holder changes, not when a lease is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The highest epoch that it has promised or accepted.
    pub promised: Epoch,
    /// The node that this promise was given to.
    pub to: NodeId,
    /// The highest epoch that it has accepted, with its holder.
    pub accepted: Option<(Epoch, NodeId)>,
}

/// What a voter keeps on its disk about the next set of voters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeVote {
    /// [`VoterSet::number`] of the set before.
    pub from: u64,
    /// The highest ballot that it has promised.
    pub promised: u64,
    /// The node that the promise was given to.
    pub to: NodeId,
    /// What it has accepted.
    pub accepted: Option<(u64, VoterSet)>,
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::wire::{decode, encode};

    #[test]
    fn epochs_grow_across_voter_sets() {
        let set = |number| VoterSet {
            number,
            voters: BTreeSet::new(),
            lease_ms: LEASE_MS,
            forced: false,
            by: String::new(),
        };
        assert_eq!(set(1).next_epoch(0), 1_000_001);
        assert_eq!(set(1).next_epoch(1_000_001), 1_000_002);
        assert_eq!(set(3).next_epoch(1_000_002), 3_000_001);
        assert_eq!(set(3).hold_ms(), 4800);
    }

    #[test]
    fn a_refusal_of_a_newer_version_is_a_refusal() {
        #[derive(Serialize)]
        #[serde(tag = "reason", content = "node", rename_all = "snake_case")]
        enum Newer {
            TooBusy,
        }
        let read: Refusal = decode(&encode(&Newer::TooBusy)).expect("a refusal");
        assert_eq!(read, Refusal::Other);
        let read: Refusal = decode(&encode(&Refusal::Silent)).expect("a refusal");
        assert_eq!(read, Refusal::Silent);
    }

    #[test]
    fn keys_are_texts() {
        let slot = LeaseKey::slot(&"shop/web.2".parse().expect("a slot"));
        assert_eq!(slot.as_str(), "slot/shop/web/2");
        let volume = VolumeKey {
            project: "shop".parse().expect("a name"),
            volume: "data".parse().expect("a name"),
        };
        assert_eq!(LeaseKey::volume(&volume).as_str(), "volume/shop/data");
    }
}
