//! Messages between members: gossip (the gossipsub topic `vc/1/CLUSTER-ID`) and anti-entropy
//! ([`SYNC_PROTOCOL`](crate::wire::SYNC_PROTOCOL)). All are CBOR.

use serde::{Deserialize, Serialize};

use crate::change::{Batch, VersionVector};
use crate::node::Usage;
use crate::{ClusterId, Millis, NodeId};

/// A message of the cluster's gossipsub topic. Gossipsub signs it; it may be lost, repeated or delayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gossip {
    /// Liveness, and volatile facts of the sender.
    Heartbeat(Heartbeat),
    /// New changes, to be applied and stored.
    Changes(Batch),
}

/// A periodic message of every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Peer id of the sender.
    pub node: NodeId,
    /// Present incarnation of the sender; at a start it may be ahead of the document.
    pub incarnation: u64,
    /// Grows with each heartbeat, and starts over with each start, whose incarnation is higher: a replayed heartbeat is
    /// ignored.
    pub seq: u64,
    /// [`VersionVector::fingerprint`] of the sender. A different one triggers anti-entropy.
    pub fingerprint: u64,
    /// `Replica::settled` of the sender, in vc-crdt: the history of the cluster document is dropped while all members say the
    /// same; 0 if it does not say.
    #[serde(default)]
    pub settled: u64,
    /// CPU and memory in use.
    pub usage: Usage,
    /// The sender's wall clock, to show clocks that differ; 0 if it does not say.
    #[serde(default)]
    pub at: Millis,
}

/// An anti-entropy message between two connected members. It may be lost: a timer repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncMessage {
    /// The sender's version vector. The receiver answers with the changes that the sender lacks, and with its own vector if
    /// it lacks changes itself.
    Summary(VersionVector),
    /// Changes that the receiver lacks.
    Changes(Batch),
}

/// Returns the name of the cluster's gossip topic, with the version of its messages.
pub fn topic(cluster: ClusterId) -> String {
    format!("vc/1/{cluster}")
}
