//! What members tell each other without being asked.

use serde::{Deserialize, Serialize};

use crate::change::{Batch, VersionVector};
use crate::node::Usage;
use crate::{ClusterId, NodeId};

/// A message of the cluster's one gossipsub topic. Gossipsub signs it; it may be lost, repeated or late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gossip {
    /// I am here.
    Heartbeat(Heartbeat),
    /// This has changed.
    Changes(Batch),
}

/// A sign of life, and what is volatile about a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Whose.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: u64,
    /// Grows with each heartbeat, through restarts as well: an old one replayed is no sign of life.
    pub seq: u64,
    /// [`VersionVector::fingerprint`] of what it has: another one than ours is a reason to compare.
    pub fingerprint: u64,
    /// What it uses now.
    pub usage: Usage,
}

/// A message between two connected members. It may be lost: the timer repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncMessage {
    /// This is what I have: send what I lack, and your own summary if you lack something.
    Summary(VersionVector),
    /// What you lacked.
    Changes(Batch),
}

/// Name of the cluster's gossip topic.
pub fn topic(cluster: ClusterId) -> String {
    format!("vc/{cluster}")
}
