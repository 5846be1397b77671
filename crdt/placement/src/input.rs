//! What the plan is a function of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vc_protocol::node::RuntimeKind;
use vc_protocol::spec::{self, ServiceSpec};
use vc_protocol::{Millis, Name, NodeId, Resources, ServiceKey, Slot, VolumeKey};

/// Everything that [`plan`](crate::plan) reads. Two nodes with the same documents have equal inputs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlanInput {
    /// The members of the cluster, those that are down too: a refusal names each of them.
    pub nodes: BTreeMap<NodeId, Node>,
    /// What users ask for.
    pub services: BTreeMap<ServiceKey, ServiceDemand>,
    /// The node that holds the data of a named volume: whatever mounts it runs there. A volume that is not here has
    /// no data yet.
    #[serde(default)]
    pub volumes: BTreeMap<VolumeKey, NodeId>,
    /// Slots that were told to move, while the order holds: the node that is to give the slot up, and the one that
    /// is to take it. The claim of the first gives way where the second can take the slot.
    #[serde(default)]
    pub moves: BTreeMap<Slot, (NodeId, NodeId)>,
}

impl PlanInput {
    /// Identifies the input: 16 hex digits of SHA-256 over its JSON, whose maps are ordered. Nodes that print the same
    /// digest have the same plan.
    pub fn digest(&self) -> String {
        spec::digest(self)
    }
}

/// A node, as the documents tell of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Name for people.
    pub name: Name,
    /// Operating system, as Docker names it.
    pub os: String,
    /// Architecture, as Docker names it.
    pub arch: String,
    /// What runs its instances.
    pub runtime: RuntimeKind,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it has to give.
    pub capacity: Resources,
    /// Whether it counts as up. A node that is down keeps nothing.
    pub up: bool,
    /// Whether it is to be emptied. A draining node keeps nothing.
    pub draining: bool,
    /// Why its runtime does not answer; `None`: it does. Without a runtime a node keeps nothing.
    pub runtime_error: Option<String>,
    /// The slots that it says it runs.
    pub claims: BTreeMap<Slot, ClaimView>,
}

/// What placement reads of a node's [`Claim`](vc_protocol::instance::Claim)s on one slot: of the one that counts,
/// where there are several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimView {
    /// Digest of the container spec that runs.
    pub digest: String,
    /// Whether a process is up for it.
    pub running: bool,
    /// Since when it is in its state, by its node's clock, in milliseconds.
    #[serde(default)]
    pub since: Millis,
}

/// A service that users ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDemand {
    /// What it is, and where it may run.
    pub spec: ServiceSpec,
    /// How many slots it has: 1 to `replicas`. More than [`MAX_REPLICAS`](spec::MAX_REPLICAS) count as that many.
    pub replicas: u32,
    /// When it was last asked for, in milliseconds. Only the order counts: whoever asked earlier comes first. The
    /// services of one deployment should carry the same time, so that the largest of them is placed first.
    #[serde(default)]
    pub updated: Millis,
}
