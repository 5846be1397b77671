//! Facts about nodes.

use std::collections::{BTreeMap, BTreeSet};

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::alert::ProblemKind;
use crate::{Millis, Name, NodeId, Resources, ServiceKey, Supports, VolumeKey, in_words};

/// The static facts of a node, written into its document at each start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Display name; not necessarily unique.
    pub name: Name,
    /// Version of vc-node that it runs.
    pub version: String,
    /// Operating system, as Docker names it.
    pub os: String,
    /// Architecture, as Docker names it.
    pub arch: String,
    /// The runtime that starts instances.
    pub runtime: RuntimeKind,
    /// Total CPU and memory.
    pub capacity: Resources,
    /// Bytes of disk that it has for volumes, what its copies take with them; 0 if it does not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub volume_room: u64,
    /// How many it has of each resource that is counted, given with `--resource`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub generic_resources: BTreeMap<String, u64>,
    /// Labels given with `--label`.
    pub labels: BTreeMap<String, String>,
    /// Addresses at which it can be dialled.
    pub addresses: Vec<Multiaddr>,
    /// What its vc-node supports of the documents.
    #[serde(default)]
    pub supports: Supports,
    /// The epoch of the signing key of its certificate.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: u32,
    /// Whether it has UDP port 5353 for multicast DNS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mdns: bool,
    /// Whether it votes and runs nothing. Its document has a runtime error too, for members that do not know this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub witness: bool,
    /// Whether it may run the commands of receivers of alerts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notify_commands: bool,
    /// Why its containers cannot reach services by name; empty if they can.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dns_problem: String,
    /// The backups that it makes of the cluster; `None` if it makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<ScheduledBackups>,
    /// Problems that its process alone sees, at most [`MAX_NODE_PROBLEMS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<NodeProblem>,
    /// The upgrade that it went back from at this start, in one line; empty if it did not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failed_upgrade: String,
}

/// The most problems that a node writes into its document.
pub const MAX_NODE_PROBLEMS: usize = 16;

/// A problem that one process alone sees, such as that it cannot write its audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProblem {
    /// What kind of problem it is.
    pub kind: ProblemKind,
    /// The node that it is about.
    pub node: NodeId,
    /// The line for people.
    pub text: String,
}

/// The backups that a node makes of the cluster to a directory, as its operator has said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledBackups {
    /// Time between two of them.
    pub every: Millis,
    /// When the newest was taken, by the node's clock; 0 if there is none.
    pub taken: Millis,
    /// Its size in bytes.
    pub size: u64,
    /// Why the last attempt failed; empty if it did not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

impl ScheduledBackups {
    /// Returns what is wrong with them at a time by another clock: the last attempt failed, or none was made for two periods.
    pub fn trouble(&self, now: Millis) -> Option<String> {
        if !self.problem.is_empty() {
            return Some(format!("the last backup failed: {}", self.problem));
        }
        let age = now.saturating_sub(self.taken);
        if self.taken == 0 || age <= self.every.saturating_mul(2) {
            return None;
        }
        let (age, every) = (in_words(age), in_words(self.every));
        Some(format!("the newest backup is {age} old, and there should be one every {every}"))
    }
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

impl NodeInfo {
    /// Returns the facts of a Docker node on Linux, with four cores and 4 GiB of memory, for tests. Panics if `name` is
    /// not a [`Name`].
    #[doc(hidden)]
    #[expect(clippy::expect_used, reason = "for tests")]
    pub fn for_tests(name: &str) -> Self {
        Self {
            name: name.parse().expect("a name"),
            version: "0.1.0".to_owned(),
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
            runtime: RuntimeKind::Docker,
            capacity: Resources { cpu_millis: 4000, memory_bytes: 4 << 30 },
            volume_room: 0,
            generic_resources: BTreeMap::new(),
            labels: BTreeMap::new(),
            addresses: Vec::new(),
            supports: Supports::default(),
            epoch: 0,
            mdns: false,
            witness: false,
            notify_commands: false,
            dns_problem: String::new(),
            problems: Vec::new(),
            backups: None,
            failed_upgrade: String::new(),
        }
    }
}

/// The runtime of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// Containers of a Docker engine.
    Docker,
    /// Child processes of the node, without images and isolation.
    Process,
}

impl RuntimeKind {
    /// Returns the name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Process => "process",
        }
    }
}

/// What a node holds: it starts and stops no instances of it, because its version does not know all of it. Said in its
/// document, so that the others give it nothing new.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Holds {
    /// Every service.
    pub all: bool,
    /// These services.
    pub services: BTreeSet<ServiceKey>,
}

impl Holds {
    /// Returns whether the node holds nothing.
    pub fn is_empty(&self) -> bool {
        !self.all && self.services.is_empty()
    }

    /// Returns whether the node holds a service.
    pub fn contains(&self, service: &ServiceKey) -> bool {
        self.all || self.services.contains(service)
    }
}

/// What a node cannot start although its runtime answers, and why: faults of the node, not of the services. Said in its
/// document, so that others run what it cannot start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Faults {
    /// Why it starts nothing, whatever the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The services that it could not start a moment ago.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceKey, String>,
}

impl Faults {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.node.is_none() && self.services.is_empty()
    }
}

/// What a former node of the cluster has left on a host, and no node manages any more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Orphans {
    /// How many containers, running or not.
    pub containers: u32,
    /// The named volumes whose data is there.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<VolumeKey>,
}

/// Resources in use on a node. Sent in heartbeats, never stored in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU in use, thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in use, bytes.
    pub memory_bytes: u64,
    /// Size of the fullest of its disks, bytes; 0 if it does not say.
    #[serde(default)]
    pub disk_bytes: u64,
    /// What is in use of that disk, bytes.
    #[serde(default)]
    pub disk_used: u64,
}
