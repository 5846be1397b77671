//! The input of the plan.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use vc_protocol::node::{Faults, Holds, RuntimeKind};
use vc_protocol::spec::{self, ServiceSpec};
use vc_protocol::{Lamport, Millis, Name, NodeId, Resources, ServiceKey, Slot, Stored, VolumeKey};

/// Everything that [`plan`](crate::plan()) reads. Two nodes with the same documents have equal inputs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlanInput {
    /// The members of the cluster, including those that are down.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The deployed services.
    pub services: BTreeMap<ServiceKey, ServiceDemand>,
    /// The node that holds the data of each named volume. A volume without an entry has no data yet.
    #[serde(default)]
    pub volumes: BTreeMap<VolumeKey, NodeId>,
    /// The nodes that have a whole copy of each volume with data that no service writes: any of them may run what mounts it. Empty under
    /// rules without [`copies`](crate::Rules::copies).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub readable: BTreeMap<VolumeKey, BTreeSet<NodeId>>,
    /// The services that have the network of another one, on the same node. Empty under rules without
    /// [`joined`](crate::Rules::joined).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub joined: BTreeMap<ServiceKey, ServiceKey>,
    /// Move orders in effect: slot to (source, target). The source's claim gives way if the target can take the slot.
    #[serde(default)]
    pub moves: BTreeMap<Slot, (NodeId, NodeId)>,
}

impl PlanInput {
    /// Returns 16 hex digits of SHA-256 over the input's JSON, whose maps are ordered. Nodes with equal digests have
    /// equal plans.
    pub fn digest(&self) -> String {
        spec::digest(self)
    }
}

/// A node as the documents describe it. A node that is down, draining or without a runtime keeps no slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Display name; not necessarily unique.
    pub name: Name,
    /// Operating system in Docker's spelling (`linux`).
    pub os: String,
    /// Architecture in Docker's spelling (`amd64`).
    pub arch: String,
    /// The runtime that starts instances.
    pub runtime: RuntimeKind,
    /// Labels that constraints can name.
    pub labels: BTreeMap<String, String>,
    /// Total CPU and memory.
    pub capacity: Resources,
    /// How many it has of each resource that is counted; empty under rules without [`resources`](crate::Rules::resources).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub generic_resources: BTreeMap<String, u64>,
    /// Bytes of disk left for volumes, without what its copies reserve; `None` if it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_room: Option<u64>,
    /// Whether it counts as up (see `vc_crdt::liveness`).
    pub up: bool,
    /// For how long most of its observers have not heard of it, in milliseconds, in steps that the services ask for; 0 while it
    /// is up, and under rules without [`disconnect`](crate::Rules::disconnect).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub silent_ms: Millis,
    /// Whether an operator drains it.
    pub draining: bool,
    /// Whether it is a voter that runs nothing. Of those with a runtime error, as it has, it alone has no slots of services that have one
    /// for each node. `false` under rules without [`modes`](crate::Rules::modes).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub witness: bool,
    /// Why the runtime does not answer; `None` if it does.
    pub runtime_error: Option<String>,
    /// What it neither starts nor stops: of it, the node keeps the slots that it runs and gets no others.
    #[serde(default, skip_serializing_if = "Holds::is_empty")]
    pub holds: Holds,
    /// What it cannot start: of it, the node keeps the slots that it runs and gets no others. Empty under rules without
    /// [`faults`](crate::Rules::faults).
    #[serde(default, skip_serializing_if = "Faults::is_empty")]
    pub faults: Faults,
    /// The slots that the node claims to run.
    pub claims: BTreeMap<Slot, ClaimView>,
}

/// The part of a node's [`Claim`](vc_protocol::instance::Claim)s on one slot that placement reads. If the node has
/// several instances of the slot, it is the one that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimView {
    /// Digest of the container spec that runs.
    pub digest: String,
    /// Whether a container or process is running.
    pub running: bool,
    /// When the node claimed it.
    #[serde(default)]
    pub lamport: Lamport,
    /// When the instance was started last; 0 if the service does not ask for it, and under rules without
    /// [`disconnect`](crate::Rules::disconnect).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub started: Lamport,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A deployed service: what to run and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDemand {
    /// The container, constraints and ports.
    pub spec: Stored<ServiceSpec>,
    /// Number of slots, numbered from 1; without effect where there is one for each node. Values above [`MAX_REPLICAS`](spec::MAX_REPLICAS) are capped.
    pub replicas: u32,
    /// How many each replica takes of resources that are counted, [`ALL`](spec::ALL) for those of its node; empty under rules without
    /// [`resources`](crate::Rules::resources).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<String, u64>,
    /// The numbers of the slots whose runs have ended: nothing runs in them any more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ended: BTreeSet<u32>,
    /// The slots of a scheduled service, each with the node that alone may run it, if it has begun it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub due: BTreeMap<u32, Option<NodeId>>,
    /// When it was last deployed: earlier services are scheduled first. Services of one deployment should share a revision,
    /// so that the largest of them is placed first.
    #[serde(default)]
    pub revision: Lamport,
}
