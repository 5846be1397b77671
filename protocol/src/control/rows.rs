//! The rows of the control protocol, which `vc --output json` prints.

use std::collections::{BTreeMap, BTreeSet};

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::alert::{AlertFilter, AlertFormat, ProblemKind};
use crate::instance::InstanceState;
use crate::node::ScheduledBackups;
use crate::spec::{Deployment, FileContent, OnPartition, ServiceMode, ServiceSpec};
use crate::{Lamport, Millis, Name, NodeId, ServiceKey, Stored, VolumeKey};

/// A row of the service list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// The service as `project/service`.
    pub service: ServiceKey,
    /// The Compose project of the service.
    pub project: Name,
    /// Image reference of the version in effect.
    pub image: String,
    /// Number of the version in effect; 0 from older nodes.
    #[serde(default)]
    pub version: u32,
    /// Which slots it has.
    #[serde(default)]
    pub mode: ServiceMode,
    /// Desired number of replicas; where there is one for each node, the nodes that it suits.
    pub replicas: u32,
    /// Of a job, the number of runs of this deployment that have exited with code 0.
    #[serde(default)]
    pub succeeded: u32,
    /// Of a job, the number of runs of this deployment that have ended otherwise.
    #[serde(default)]
    pub failed: u32,
    /// Number of running replicas, of whatever version.
    pub running: u32,
    /// Number of running replicas whose healthcheck passes, or that have none.
    pub healthy: u32,
    /// Whether the version in effect has a healthcheck; `true` from older nodes, which do not say.
    #[serde(default = "yes")]
    pub has_healthcheck: bool,
    /// Behaviour during a network partition.
    pub on_partition: OnPartition,
    /// What that means, in words; empty from older nodes.
    #[serde(default)]
    pub on_partition_effect: String,
    /// Time of the last deployment, by the clock of the node that took the command.
    pub updated: Millis,
    /// Number of the last deployment; a later deployment has a higher one.
    pub revision: Lamport,
    /// Published ports, as `8080:80/tcp`.
    #[serde(default)]
    pub ports: Vec<String>,
    /// Those of them that only the nodes with its instances publish, and these nodes.
    #[serde(default)]
    pub host_ports: Vec<HostPort>,
    /// Ports that no node can publish now, with the reason: `5353/udp: already in use by avahi (pid 12)`.
    #[serde(default)]
    pub unpublished: Vec<String>,
    /// Progress of the last update.
    #[serde(default)]
    pub rollout: Rollout,
}

/// A port of `mode: host`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// The port, as `8080:80/tcp`.
    pub port: String,
    /// The names of the nodes that publish it now: those that run an instance and have bound it.
    pub nodes: Vec<String>,
}

/// A row of the list of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// The service as `project/service`.
    pub service: ServiceKey,
    /// The Compose project of the service.
    pub project: Name,
    /// `replicated-job` or `global-job`.
    pub mode: ServiceMode,
    /// Its cron expression; empty without a schedule.
    pub schedule: String,
    /// The time zone in which that is read; empty without a schedule.
    pub time_zone: String,
    /// `forbid`, `allow` or `replace`; empty without a schedule.
    pub overlap: String,
    /// Whether nothing runs twice for one time of the schedule.
    pub at_most_once: bool,
    /// Whether the schedule rests, because the service is scaled to 0.
    pub suspended: bool,
    /// The next time of the schedule; 0 without one.
    pub next: Millis,
    /// Number of runs that are under way.
    pub running: u32,
    /// The run that ended, or was left out, last; `None` before the first.
    pub last: Option<RunRow>,
}

/// A run of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRow {
    /// The service as `project/service`.
    pub service: ServiceKey,
    /// Number of its slot; for a scheduled service its time in seconds since 1970.
    pub run: u32,
    /// State of the run.
    pub state: RunState,
    /// Reason of the state; may be empty.
    pub reason: String,
    /// The node that ran it, or is to.
    pub node: Option<NodeId>,
    /// Display name of that node.
    pub node_name: Option<String>,
    /// When its node began it, by the node's clock; 0 if it has not begun.
    pub started: Millis,
    /// When its node saw its end, by the node's clock; 0 if it has not ended.
    pub ended: Millis,
    /// Its exit code; `None` if it did not end by itself.
    pub exit_code: Option<i64>,
    /// Number of restarts by its restart policy.
    pub restarts: u32,
    /// How many times of the schedule before it passed unseen.
    pub missed: u32,
    /// Name of the user who began or stopped it; empty for the schedule.
    pub by: String,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It is to begin.
    Pending,
    /// It is under way.
    Running,
    /// It exited with code 0.
    Succeeded,
    /// It exited with another code, or was stopped.
    Failed,
    /// Its node is down: it is not known whether it has ended.
    Unknown,
    /// Its time passed while no node was there, or none could begin it.
    Missed,
    /// An earlier run was under way at its time.
    Skipped,
    /// A person stopped it before it began.
    Stopped,
}

impl RunState {
    /// Returns the name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Missed => "missed",
            Self::Skipped => "skipped",
            Self::Stopped => "stopped",
        }
    }
}

/// The progress of the last update of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rollout {
    /// State of the update.
    pub state: RolloutState,
    /// Number of slots that run the target version and are available.
    pub done: u32,
    /// Why it failed; empty if it did not.
    pub reason: String,
    /// Number of the version that an update which is not complete leads to, or that failed; 0 without one.
    #[serde(default)]
    pub version: u32,
    /// Image reference of that version; empty without one.
    #[serde(default)]
    pub image: String,
}

fn yes() -> bool {
    true
}

/// The state of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// No update, or the last one is complete.
    #[default]
    Complete,
    /// Instances are being replaced.
    Updating,
    /// The update failed and was stopped.
    Paused,
    /// The update failed, and the previous version is being or has been restored.
    RolledBack,
}

/// The changes that a deployment makes to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDiff {
    /// The service as `project/service`.
    pub service: ServiceKey,
    /// Whether the service is new.
    pub created: bool,
    /// One line per change: `container.image: "web:1" -> "web:2"`, for an element of a list `ports: + 8080:80/tcp`; of a new
    /// service one per value that is not the default, `container.image: "web:1"`.
    pub changes: Vec<String>,
}

/// A version of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRow {
    /// The service as `project/service`.
    pub service: ServiceKey,
    /// Its number, from 1; a later version has a higher one.
    pub version: u32,
    /// What became of it.
    pub state: VersionState,
    /// Why its update failed, or was not completed; empty otherwise.
    pub reason: String,
    /// Time of its last deployment, by the clock of the node that took the command; 0 if it is not known.
    pub deployed: Millis,
    /// Name of the user that deployed it; empty if it is not known.
    pub deployed_by: String,
    /// Image reference of its containers.
    pub image: String,
    /// The image that it is pinned to, as `sha256:…`.
    pub image_id: Option<String>,
    /// One line for each difference to the version listed before it, as in [`ServiceDiff::changes`].
    pub changes: Vec<String>,
    /// The newest version before it that is the same, as after a rollback.
    pub same_as: Option<u32>,
    /// Secrets and configs whose content is no longer kept: it cannot be returned to.
    pub missing_files: Vec<String>,
    /// Whether `vc rollback` without `--to` returns to it.
    pub rollback_target: bool,
}

/// What became of a version of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// It is in effect.
    Current,
    /// Instances are being updated to it.
    Updating,
    /// Its update failed.
    Failed,
    /// A rollback replaced it.
    RolledBack,
    /// Another deployment replaced it.
    Superseded,
}

/// The details of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDetail {
    /// The row of the service list.
    pub row: ServiceRow,
    /// Name of the user that deployed it.
    pub deployed_by: String,
    /// The spec in effect: the deployed one, or the one that a failed update has rolled back to.
    pub spec: Stored<ServiceSpec>,
    /// The spec that `vc rollback` returns to.
    pub previous: Option<Stored<ServiceSpec>>,
    /// The slots with their instances.
    pub instances: Vec<InstanceRow>,
}

/// An image in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRow {
    /// The reference under which it was pushed or deployed.
    pub reference: String,
    /// Image id as `sha256:…`.
    pub id: String,
    /// Uncompressed size in bytes.
    pub size: u64,
    /// Names of the nodes that have it.
    pub nodes: Vec<String>,
    /// Services that use it.
    pub services: Vec<ServiceKey>,
    /// Time of the push; 0 if it was not pushed.
    pub pushed: Millis,
}

/// A row of the volume list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRow {
    /// The volume as `project/volume`.
    pub volume: VolumeKey,
    /// Its project.
    #[serde(default)]
    pub project: String,
    /// The node that writes it, or has its data.
    pub node: NodeId,
    /// Display name of that node.
    pub node_name: String,
    /// The same name.
    #[serde(default)]
    pub primary: String,
    /// Whether that node is up.
    pub up: bool,
    /// Services that use it.
    pub services: Vec<ServiceKey>,
    /// Time at which the node got the data.
    pub since: Millis,
    /// The copies on other nodes.
    #[serde(default)]
    pub replicas: Vec<ReplicaRow>,
    /// How many copies it is to have, with that of the primary; 0 from a node of a version without copies.
    #[serde(default)]
    pub wanted: u32,
    /// The newest snapshot of the primary, `EPOCH-NUMBER`.
    #[serde(default)]
    pub snapshot: Option<String>,
    /// When it was taken.
    #[serde(default)]
    pub taken: Millis,
    /// The highest epoch of a lease under which it was written.
    #[serde(default)]
    pub epoch: u64,
    /// The size of its files in bytes, as of the newest snapshots.
    #[serde(default)]
    pub bytes: u64,
    /// Contents on any node that are kept aside, because another node's writes have replaced them.
    #[serde(default)]
    pub conflicts: u32,
    /// Why the primary takes no snapshots; empty if it does.
    #[serde(default)]
    pub problem: String,
}

/// A copy of a volume on a node that does not write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaRow {
    /// The node.
    pub node: NodeId,
    /// Display name of the node.
    pub node_name: String,
    /// The newest snapshot that it has, `EPOCH-NUMBER`.
    pub snapshot: Option<String>,
    /// Of how many milliseconds the writes would be missing if the primary were lost now, at most: the age of its snapshot; 0 if
    /// nothing was written since, null if it has none.
    pub lag_ms: Option<Millis>,
    /// The size of its files, in bytes.
    pub bytes: u64,
    /// While it gets its first snapshot: how many bytes have arrived, in steps, of the `bytes` of the volume.
    #[serde(default)]
    pub received: u64,
    /// Its state.
    pub state: ReplicaState,
    /// Why it is not up to date; empty if nothing is wrong.
    pub problem: String,
}

/// The state of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaState {
    /// It has the newest snapshot.
    Current,
    /// It has an older one.
    Behind,
    /// It gets its first snapshot.
    Copying,
    /// It has a problem.
    Failed,
    /// Its node is down.
    Down,
}

/// A content of a volume that a node keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// The volume as `project/volume`.
    pub volume: VolumeKey,
    /// What it is.
    pub kind: SnapshotKind,
    /// Its id, `EPOCH-NUMBER`.
    pub snapshot: String,
    /// The node that has it.
    pub node: NodeId,
    /// Display name of the node.
    pub node_name: String,
    /// When it was taken, put aside or removed.
    pub time: Millis,
    /// How many files, directories and links it has.
    pub files: u64,
    /// The size of its files, in bytes.
    pub bytes: u64,
    /// When it may be deleted; 0 for a snapshot, which is kept by the rule of the volume.
    pub expires: Millis,
}

/// Why a node keeps a content of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// It is a snapshot.
    Snapshot,
    /// It was written there, is in no snapshot, and was replaced by what another node wrote.
    Conflict,
    /// The volume was removed with it.
    Removed,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectRow {
    /// Its name.
    pub project: Name,
    /// Number of its services.
    pub services: u32,
    /// What deployers may let its services use of their hosts, as `vc project allow` takes it.
    pub allowed: Vec<String>,
}

/// A token that was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Its id.
    pub id: String,
    /// `user`, or `node` for one that lets a node join.
    pub kind: String,
    /// Name of the user or node.
    pub name: String,
    /// The role that it gives.
    pub role: String,
    /// Name of the user who created it.
    pub created_by: String,
    /// When it was created.
    pub created: Millis,
    /// When it expires.
    pub expires: Millis,
    /// Whether it was revoked.
    pub revoked: bool,
    /// The projects that a user is limited to; `None` for all.
    #[serde(default)]
    pub projects: Option<BTreeSet<Name>>,
    /// Whether the user may read logs.
    #[serde(default)]
    pub logs: bool,
    /// How many nodes may still join with it; `None` for any number, and for user tokens.
    #[serde(default)]
    pub uses_left: Option<u32>,
}

/// The signing key of the cluster, and who has its certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustReport {
    /// How often the key was rotated.
    pub epoch: u32,
    /// The peer id of the key.
    pub key: NodeId,
    /// When it was rotated last; `None` if never.
    pub rotated: Option<Millis>,
    /// Name of the user who rotated it last.
    pub rotated_by: Option<String>,
    /// The nodes that have not left.
    pub nodes: Vec<TrustRow>,
}

/// The certificate of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustRow {
    /// The node.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// `server`, `worker` or `witness`.
    pub role: String,
    /// Whether it is up.
    pub up: bool,
    /// `present`: it uses its certificate; `issued`: it does not say so yet; `missing`: it has none of this key, so the others
    /// refuse it.
    pub certificate: String,
}

/// The voters, which grant leases of exclusive services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterReport {
    /// Number of the present set of voters; 0 before the first.
    pub number: u64,
    /// The lease time, in milliseconds; 0 before the first set.
    pub lease_ms: Millis,
    /// Whether an admin set the present voters without the consent of those before.
    pub forced: bool,
    /// What the choice of the first voters waits for; empty once there are voters.
    pub waits_for: String,
    /// The servers and witnesses that have not left, and voters that have left and are not replaced yet.
    pub nodes: Vec<VoterRow>,
}

impl VoterReport {
    /// Returns how many voters there are, and how many of them are up.
    pub fn reachable(&self) -> (usize, usize) {
        let voters = || self.nodes.iter().filter(|row| row.votes);
        (voters().count(), voters().filter(|row| row.state == NodeStatus::Up).count())
    }
}

/// A node that may grant leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterRow {
    /// The node.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// `server` or `witness`.
    pub role: String,
    /// Whether it is reachable.
    pub state: NodeStatus,
    /// Whether it is a voter.
    pub votes: bool,
    /// Number of the set since which it has been a voter, of the sets that are kept; 0 if it is none.
    pub since: u64,
    /// Whether an admin wants it as a voter; `None` leaves it to the cluster.
    pub wish: Option<bool>,
}

/// A slot with the instance that fills it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRow {
    /// The service as `project/service`.
    pub service: ServiceKey,
    /// Number of the replica, from 1.
    pub replica: u32,
    /// The node; `None` if no node can take the slot.
    pub node: Option<NodeId>,
    /// Display name of that node.
    pub node_name: Option<String>,
    /// State of the instance.
    pub state: InstanceState,
    /// Reason of the state; may be empty.
    pub reason: String,
    /// Address of the instance; empty if it has none.
    pub address: String,
    /// Number of restarts by the restart policy.
    pub restarts: u32,
    /// Time at which it entered the state; 0 if there is no instance.
    pub since: Millis,
    /// Whether it runs the spec in effect, not an earlier version.
    pub current: bool,
    /// Whether it is available: healthy, or running for the `monitor` time of the update policy.
    #[serde(default)]
    pub available: bool,
    /// Time that it must run, from `since` on, to be available, in milliseconds; 0 unless it is running and monitored.
    #[serde(default)]
    pub monitor_ms: Millis,
    /// Digest of the container spec; empty if there is no instance.
    #[serde(default)]
    pub digest: String,
    /// Whether it has failed and will not run without a change from outside.
    #[serde(default)]
    pub terminal: bool,
    /// Whether it is a run that has ended, with code 0 or for good: it is not started again.
    #[serde(default)]
    pub ended: bool,
    /// CPU in use, thousandths of a core; `None` unless the request asked for it and the node answered in time.
    #[serde(default)]
    pub cpu_millis: Option<u64>,
    /// Memory in use without what the kernel can drop, bytes; `None` likewise.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
}

/// What a running instance uses, as its node measured it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// The service as `project/service`.
    pub service: ServiceKey,
    /// Number of the replica, from 1.
    pub replica: u32,
    /// The node that runs it.
    pub node: NodeId,
    /// Display name of that node.
    pub node_name: String,
    /// Digest of the container spec.
    pub digest: String,
    /// Name of the container in its engine; empty of a process.
    pub container: String,
    /// CPU in use between the last two measurements, thousandths of a core; `None` before the second.
    pub cpu_millis: Option<u64>,
    /// The most CPU that it may use, thousandths of a core; 0 without a limit.
    pub cpu_limit_millis: u64,
    /// CPU time since the start, in milliseconds.
    pub cpu_ms: Millis,
    /// Memory in use without what the kernel can drop, bytes: what counts against a limit.
    pub memory_bytes: u64,
    /// Memory in use with caches of files, bytes.
    pub memory_total_bytes: u64,
    /// The most memory that it may have, bytes; 0 without a limit.
    pub memory_limit_bytes: u64,
    /// Bytes received since the start; `None` if it has no network of its own.
    pub network_received_bytes: Option<u64>,
    /// Bytes sent since the start, likewise.
    pub network_sent_bytes: Option<u64>,
    /// Bytes read from disks since the start; `None` if the host does not count them.
    pub disk_read_bytes: Option<u64>,
    /// Bytes written to disks since the start, likewise.
    pub disk_written_bytes: Option<u64>,
    /// Number of its processes and threads.
    pub processes: u64,
    /// When it was started, by the clock of its host.
    pub started: Millis,
    /// When this was measured, by the node's clock.
    pub measured: Millis,
}

/// Whether a node is reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeStatus {
    /// A majority of its electorate can reach it.
    Up,
    /// A majority of its electorate cannot reach it.
    Down,
    /// It left the cluster for good.
    Left,
}

/// A row of the node list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Peer id of the node.
    pub id: NodeId,
    /// Display name of the node.
    pub name: String,
    /// Whether it is reachable.
    pub state: NodeStatus,
    /// `server`, `worker` or `witness`; empty if it left.
    #[serde(default)]
    pub role: String,
    /// Whether it is one of the voters, which grant leases.
    #[serde(default)]
    pub votes: bool,
    /// Why it cannot run instances ("Docker does not answer"); empty if it can.
    pub problem: String,
    /// Whether it is drained.
    pub draining: bool,
    /// Whether it has announced a restart and is not back yet.
    #[serde(default)]
    pub restarting: bool,
    /// When the answering node saw that it is down, by its clock; 0 while it is up.
    #[serde(default)]
    pub down_since: Millis,
    /// Total CPU, thousandths of a core.
    pub cpu_millis: u64,
    /// Total memory in bytes.
    pub memory_bytes: u64,
    /// Reserved CPU, thousandths of a core.
    pub cpu_reserved: u64,
    /// Reserved memory in bytes.
    pub memory_reserved: u64,
    /// How many it has of each resource that is counted.
    #[serde(default)]
    pub generic_resources: BTreeMap<String, u64>,
    /// How many of these services take.
    #[serde(default)]
    pub generic_reserved: BTreeMap<String, u64>,
    /// CPU in use, thousandths of a core; 0 without a recent heartbeat.
    pub cpu_used: u64,
    /// Memory in use, bytes; 0 without a recent heartbeat.
    pub memory_used: u64,
    /// Size of its disk in bytes: that of its data directory, or that of Docker's data if less of it is free. 0 without a
    /// recent heartbeat.
    #[serde(default)]
    pub disk_bytes: u64,
    /// What is in use of that disk, bytes.
    #[serde(default)]
    pub disk_used: u64,
    /// Number of instances that it runs.
    pub instances: u32,
    /// Name of the runtime.
    pub runtime: String,
    /// Operating system and architecture as `os/arch`.
    pub platform: String,
    /// Addresses at which it can be dialled.
    pub addresses: Vec<Multiaddr>,
    /// Labels that constraints can name.
    pub labels: BTreeMap<String, String>,
    /// Version of vc-node that it runs.
    pub version: String,
    /// Members that it cannot reach.
    #[serde(default)]
    pub unreachable: Vec<NodeId>,
    /// How far its clock is ahead of that of the node that answers, in milliseconds (negative: behind); 0 below 2 s.
    #[serde(default)]
    pub clock_offset_ms: i64,
    /// When it left the cluster, in milliseconds since the Unix epoch; 0 if it has not.
    #[serde(default)]
    pub left: Millis,
    /// The backups that it makes of the cluster; `None` if it makes none.
    #[serde(default)]
    pub backups: Option<ScheduledBackups>,
}

/// A project as a Compose file, as `vc export` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRow {
    /// The project.
    pub project: Name,
    /// Where the file was written.
    pub file: Option<String>,
    /// The file.
    pub text: String,
    /// Files that the operator has to put beside it.
    pub supply: Vec<String>,
    /// What the file does not say as it is deployed, one line for each service.
    pub inexact: Vec<String>,
}

/// The backups that a node makes of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRow {
    /// The node.
    pub node: NodeId,
    /// Display name of the node.
    pub node_name: String,
    /// Whether it is up.
    pub up: bool,
    /// Time between two of them, in milliseconds.
    pub every: Millis,
    /// When the newest was taken, by the clock of the node; 0 if there is none.
    pub taken: Millis,
    /// Its size in bytes.
    pub size: u64,
    /// What is wrong with them; empty if nothing is.
    pub problem: String,
}

impl BackupRow {
    /// Returns the row of a node, at a time; `None` if it makes no backups.
    pub fn of(row: &NodeRow, now: Millis) -> Option<Self> {
        let backups = row.backups.as_ref()?;
        Some(Self {
            node: row.id,
            node_name: row.name.clone(),
            up: row.state == NodeStatus::Up,
            every: backups.every,
            taken: backups.taken,
            size: backups.size,
            problem: backups.trouble(now).unwrap_or_default(),
        })
    }
}

impl NodeRow {
    /// Returns whether little of its disk is free: less than a tenth, and less than 20 GiB.
    pub fn is_disk_low(&self) -> bool {
        let free = self.disk_bytes.saturating_sub(self.disk_used);
        free < self.disk_bytes / 10 && free < 20 << 30
    }
}

/// What of the disk of a node something takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUsageRow {
    /// The node.
    pub node: NodeId,
    /// Display name of the node.
    pub node_name: String,
    /// `images`, `volumes`, `snapshots`, `trash`, `instances`, `logs` or `documents`.
    pub kind: String,
    /// Bytes on the disk.
    pub bytes: u64,
    /// How many of these can be freed without a loss of data.
    pub reclaimable: u64,
    /// What frees them, or when they are freed; empty if nothing does.
    pub hint: String,
}

/// A receiver of alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverRow {
    /// Its name.
    pub name: Name,
    /// `webhook` or `command`.
    pub kind: String,
    /// Scheme, host and port of the URL, with [`MASK`](super::MASK) for the rest; or the command.
    pub target: String,
    /// The form of what is sent.
    pub format: AlertFormat,
    /// Which problems are sent.
    pub filter: AlertFilter,
    /// The node that sends to it; empty if none does.
    pub sender: String,
    /// How many alerts it has that have not ended.
    pub firing: u32,
    /// Why alerts do not reach it; empty if they do, or none was sent.
    pub problem: String,
    /// Name of the user that added it.
    pub added_by: String,
    /// When, in milliseconds since the Unix epoch.
    pub added: Millis,
}

/// A summary of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Id of the cluster.
    pub cluster: String,
    /// The node that answered.
    pub node: NodeId,
    /// Number of nodes that are up.
    pub nodes_up: u32,
    /// Number of nodes, without those that left.
    pub nodes: u32,
    /// Number of voters, which grant leases of exclusive services; 0 before the first are chosen.
    #[serde(default)]
    pub voters: u32,
    /// Number of voters that are up.
    #[serde(default)]
    pub voters_up: u32,
    /// Number of deployed services.
    pub services: u32,
    /// Desired number of instances.
    pub replicas: u32,
    /// Number of running instances.
    pub running: u32,
    /// Total CPU of the nodes that are up, thousandths of a core.
    pub cpu_millis: u64,
    /// Reserved CPU of these nodes, thousandths of a core.
    pub cpu_reserved: u64,
    /// CPU in use on these nodes, thousandths of a core.
    pub cpu_used: u64,
    /// Total memory of these nodes, bytes.
    pub memory_bytes: u64,
    /// Reserved memory in bytes.
    pub memory_reserved: u64,
    /// Memory in use, bytes.
    pub memory_used: u64,
    /// Problems that need attention, one line each.
    pub problems: Vec<String>,
    /// What identifies each of these problems, in the same order; empty from older nodes.
    #[serde(default)]
    pub problem_ids: Vec<ProblemId>,
    /// What could be done about what is no problem, in one line each.
    #[serde(default)]
    pub hints: Vec<String>,
}

/// Identifies a problem of the cluster while it lasts, on every node alike; its line for people may change meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProblemId {
    /// What kind of problem it is.
    pub kind: ProblemKind,
    /// 16 hexadecimal digits, of the kind and of what the problem is about.
    pub id: String,
}

/// The plan, with reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReport {
    /// Digest of the input of the plan: equal on nodes that agree.
    pub input_digest: String,
    /// The slots that have a node.
    pub placements: Vec<PlacementRow>,
    /// The slots that no node can take.
    pub unplaced: Vec<UnplacedRow>,
    /// The difference to what runs.
    pub moves: Vec<MoveRow>,
}

/// A slot that has a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementRow {
    /// The service as `project/service`.
    pub service: ServiceKey,
    /// Number of the replica, from 1.
    pub replica: u32,
    /// Peer id of the node that runs it.
    pub node: NodeId,
    /// Display name of that node.
    pub node_name: String,
    /// Why this node, the most important reason first.
    pub reasons: Vec<String>,
}

/// A slot that no node can take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnplacedRow {
    /// The service as `project/service`.
    pub service: ServiceKey,
    /// Number of the replica, from 1.
    pub replica: u32,
    /// Why not, one line per node.
    pub reasons: Vec<String>,
}

/// A slot that starts, stops or changes its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveRow {
    /// The service as `project/service`.
    pub service: ServiceKey,
    /// Number of the replica, from 1.
    pub replica: u32,
    /// The node that runs it now; `None` if no node does.
    pub from: Option<NodeId>,
    /// The node that will run it; `None` if it only stops.
    pub to: Option<NodeId>,
    /// Display text with the reason.
    pub reason: String,
}

/// The output stream of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output of the process.
    Stdout,
    /// Standard error of the process.
    Stderr,
}

/// A log line of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRow {
    /// The service as `project/service`.
    pub service: ServiceKey,
    /// Number of the replica, from 1.
    pub replica: u32,
    /// Peer id of the node that runs it.
    pub node: NodeId,
    /// Time of the line, if the runtime records it.
    pub time: Option<Millis>,
    /// Standard output or standard error.
    pub stream: LogStream,
    /// The line, without the line break.
    pub line: String,
    /// Lines of this instance before this one that were not delivered, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostLines>,
}

/// Log lines of one instance in the order in which they were written: what is the same in their [`LogRow`]s is said once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBatch {
    /// The service of all of them.
    pub service: ServiceKey,
    /// Number of the replica, from 1.
    pub replica: u32,
    /// Peer id of the node that runs it.
    pub node: NodeId,
    /// The lines.
    pub lines: Vec<BatchedLine>,
}

/// A line of a [`LogBatch`]; its fields are those of [`LogRow`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in LogRow")]
pub struct BatchedLine {
    pub time: Option<Millis>,
    pub stream: LogStream,
    pub line: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostLines>,
}

impl LogBatch {
    /// Returns a batch for lines of the same instance as `row`, without any.
    pub fn for_lines_like(row: &LogRow) -> Self {
        let LogRow { service, replica, node, .. } = row;
        Self { service: service.clone(), replica: *replica, node: *node, lines: Vec::new() }
    }

    /// Returns whether a line is of the instance of this batch.
    pub fn is_of(&self, row: &LogRow) -> bool {
        (&row.service, row.replica, row.node) == (&self.service, self.replica, self.node)
    }

    /// Adds a line of the instance.
    pub fn push(&mut self, row: LogRow) {
        let LogRow { time, stream, line, lost, .. } = row;
        self.lines.push(BatchedLine { time, stream, line, lost });
    }

    /// Returns the lines as rows.
    pub fn into_rows(self) -> impl Iterator<Item = LogRow> {
        let Self { service, replica, node, lines } = self;
        lines.into_iter().map(move |BatchedLine { time, stream, line, lost }| LogRow {
            service: service.clone(),
            replica,
            node,
            time,
            stream,
            line,
            lost,
        })
    }
}

/// Log lines that were written and not delivered: they were read too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LostLines {
    /// How many; 0 where the node does not know.
    pub lines: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl LostLines {
    /// Adds more of them.
    pub fn add(&mut self, more: Self) {
        self.lines = self.lines.saturating_add(more.lines);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// A parsed Compose file, to be passed to diff, plan or deploy unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComposeProject {
    /// Name of the project.
    pub project: Name,
    /// The services of the file.
    pub deployments: Vec<Deployment>,
    /// Secrets and configs whose content is in the file.
    pub files: Vec<FileContent>,
    /// Warnings, one line each.
    pub warnings: Vec<String>,
}

/// The sections that changed since the last update; the first update has all. An empty update is a keepalive.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LiveUpdate {
    /// Summary of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusReport>,
    /// The rows of all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeRow>>,
    /// The rows of all services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<ServiceRow>>,
    /// The rows of all slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Vec<InstanceRow>>,
    /// New events, oldest first; the first update has the recent ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventRow>,
}

/// The severity of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventLevel {
    /// Part of normal operation.
    Info,
    /// Unexpected, but handled by the cluster.
    Warning,
    /// A failure that may need attention.
    Error,
}

/// An event, as the answering node saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Time by that node's clock.
    pub time: Millis,
    /// Severity of the event.
    pub level: EventLevel,
    /// The subject: `shop/web.2`, `shop/web`, or a node's name.
    pub subject: String,
    /// Display text of what happened.
    pub text: String,
}
