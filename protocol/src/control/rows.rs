//! What a node tells of, a row a thing: the CLI's JSON output.

use std::collections::BTreeMap;

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::instance::InstanceState;
use crate::spec::{Deployment, FileContent, OnPartition, ServiceSpec};
use crate::{Millis, Name, NodeId, ServiceKey, VolumeKey};

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// `project/service`.
    pub service: ServiceKey,
    /// Its project.
    pub project: Name,
    /// What it runs.
    pub image: String,
    /// How many are wanted.
    pub replicas: u32,
    /// How many run.
    pub running: u32,
    /// How many of those pass their healthcheck, or have none.
    pub healthy: u32,
    /// What the sides of a partition do.
    pub on_partition: OnPartition,
    /// Last deployed, by the clock of the node that took the command.
    pub updated: Millis,
    /// Ports that nodes publish, as `8080:80/tcp`.
    #[serde(default)]
    pub ports: Vec<String>,
    /// How its last update goes.
    #[serde(default)]
    pub rollout: Rollout,
}

/// How the last update of a service goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rollout {
    /// In which state.
    pub state: RolloutState,
    /// Instances that are where it leads, and have proven themselves.
    pub done: u32,
    /// Why it failed; empty when it did not.
    pub reason: String,
}

/// How far an update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// There was none, or it is complete.
    #[default]
    Complete,
    /// Instances are being replaced.
    Updating,
    /// It failed, and stays as it is.
    Paused,
    /// It failed, and the version before is coming back or is back.
    RolledBack,
}

/// What a deployment changes about a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDiff {
    /// Which.
    pub service: ServiceKey,
    /// Whether it is new.
    pub created: bool,
    /// What changes: `container.image: "web:1" -> "web:2"`, a line each.
    pub changes: Vec<String>,
}

/// Everything about a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDetail {
    /// Its row.
    pub row: ServiceRow,
    /// By whom it was deployed.
    pub deployed_by: String,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// What was wanted before: `vc rollback` goes there.
    pub previous: Option<ServiceSpec>,
    /// Its instances.
    pub instances: Vec<InstanceRow>,
}

/// An image that members hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRow {
    /// The reference under which it was pushed or deployed.
    pub reference: String,
    /// `sha256:…`.
    pub id: String,
    /// Bytes, uncompressed.
    pub size: u64,
    /// Nodes that have it.
    pub nodes: Vec<String>,
    /// Services that use it.
    pub services: Vec<ServiceKey>,
    /// When it was pushed; 0: it was not.
    pub pushed: Millis,
}

/// A named volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRow {
    /// `project/volume`.
    pub volume: VolumeKey,
    /// Where its data is.
    pub node: NodeId,
    /// That node's name.
    pub node_name: String,
    /// Whether that node is up.
    pub up: bool,
    /// Services that use it.
    pub services: Vec<ServiceKey>,
    /// Since when it is there.
    pub since: Millis,
}

/// A slot and what fills it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRow {
    /// Of which service.
    pub service: ServiceKey,
    /// Which replica, from 1.
    pub replica: u32,
    /// On which node; `None`: none can take it.
    pub node: Option<NodeId>,
    /// That node's name.
    pub node_name: Option<String>,
    /// How far it is.
    pub state: InstanceState,
    /// Why, where there is something to say.
    pub reason: String,
    /// Where it is reached; empty: nowhere.
    pub address: String,
    /// How often it was started again.
    pub restarts: u32,
    /// In this state since; 0 when it never was in one.
    pub since: Millis,
    /// Whether it runs what is wanted now, not an earlier version.
    pub current: bool,
    /// Whether it has proven itself: it is healthy, or has run for the time that its update policy asks.
    #[serde(default)]
    pub available: bool,
    /// Digest of what it runs; empty when nothing does.
    #[serde(default)]
    pub digest: String,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeStatus {
    /// It is.
    Up,
    /// Its observers cannot reach it.
    Down,
    /// It left for good.
    Left,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Peer id.
    pub id: NodeId,
    /// Name.
    pub name: String,
    /// Whether it is there.
    pub state: NodeStatus,
    /// What hinders it from running instances, as in "Docker does not answer"; empty: nothing.
    pub problem: String,
    /// Whether it is kept free.
    pub draining: bool,
    /// What it has, thousandths of a core.
    pub cpu_millis: u64,
    /// What it has, bytes.
    pub memory_bytes: u64,
    /// What its instances reserve.
    pub cpu_reserved: u64,
    /// What its instances reserve, bytes.
    pub memory_reserved: u64,
    /// What is in use now; 0 when nothing is heard of it.
    pub cpu_used: u64,
    /// What is in use now, bytes.
    pub memory_used: u64,
    /// Instances it runs.
    pub instances: u32,
    /// What runs them.
    pub runtime: String,
    /// `os/arch`.
    pub platform: String,
    /// Where it is dialled.
    pub addresses: Vec<Multiaddr>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Version of its program.
    pub version: String,
    /// Members that it cannot hear.
    #[serde(default)]
    pub unreachable: Vec<NodeId>,
}

/// The cluster at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Its id.
    pub cluster: String,
    /// The node that answered.
    pub node: NodeId,
    /// Nodes that are up.
    pub nodes_up: u32,
    /// All nodes.
    pub nodes: u32,
    /// Services.
    pub services: u32,
    /// Instances wanted.
    pub replicas: u32,
    /// Instances that run.
    pub running: u32,
    /// The pool: what nodes that are up have, reserve and use.
    pub cpu_millis: u64,
    /// Reserved, thousandths of a core.
    pub cpu_reserved: u64,
    /// In use, thousandths of a core.
    pub cpu_used: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Reserved, bytes.
    pub memory_reserved: u64,
    /// In use, bytes.
    pub memory_used: u64,
    /// What wants a person's eye, a line each.
    pub problems: Vec<String>,
}

/// Where each replica goes, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReport {
    /// SHA-256 over what the plan was computed from: equal on nodes that agree.
    pub input_digest: String,
    /// Replicas that have a node.
    pub placements: Vec<PlacementRow>,
    /// Replicas that have none.
    pub unplaced: Vec<UnplacedRow>,
    /// What changes against what runs.
    pub moves: Vec<MoveRow>,
}

/// A replica that has a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementRow {
    /// Of which service.
    pub service: ServiceKey,
    /// Which replica.
    pub replica: u32,
    /// On which node.
    pub node: NodeId,
    /// That node's name.
    pub node_name: String,
    /// Why there.
    pub reasons: Vec<String>,
}

/// A replica that has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnplacedRow {
    /// Of which service.
    pub service: ServiceKey,
    /// Which replica.
    pub replica: u32,
    /// Why not, a line a node.
    pub reasons: Vec<String>,
}

/// A replica that changes nodes, comes or goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveRow {
    /// Of which service.
    pub service: ServiceKey,
    /// Which replica.
    pub replica: u32,
    /// From where; `None`: it is new.
    pub from: Option<NodeId>,
    /// To where; `None`: it goes.
    pub to: Option<NodeId>,
    /// Why.
    pub reason: String,
}

/// Which of its two outputs a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line that an instance wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRow {
    /// Of which service.
    pub service: ServiceKey,
    /// Which replica.
    pub replica: u32,
    /// On which node.
    pub node: NodeId,
    /// When, if the runtime knows.
    pub time: Option<Millis>,
    /// Which output.
    pub stream: LogStream,
    /// The line, without its end.
    pub line: String,
}

/// What a Compose file asks for: to be handed to a diff, a plan or a deployment as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComposeProject {
    /// Its project.
    pub project: Name,
    /// Its services.
    pub deployments: Vec<Deployment>,
    /// Secrets and configs whose content the file itself holds.
    pub files: Vec<FileContent>,
    /// What a person should hear, a line each.
    pub warnings: Vec<String>,
}

/// What changed since the turn before; the first has everything. Nothing at all: the node is there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LiveUpdate {
    /// The cluster at a glance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusReport>,
    /// All nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeRow>>,
    /// All services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<ServiceRow>>,
    /// All instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Vec<InstanceRow>>,
    /// What happened, oldest first; at first what happened lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventRow>,
}

/// How much something that happened matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventLevel {
    /// As it should be.
    Info,
    /// Worth a look.
    Warning,
    /// Something broke.
    Error,
}

/// Something that happened, as the node that answers saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// When, by that node's clock.
    pub time: Millis,
    /// How much it matters.
    pub level: EventLevel,
    /// What it is about: `shop/web.2`, `shop/web`, or a node's name.
    pub subject: String,
    /// What happened, in a few words.
    pub text: String,
}
