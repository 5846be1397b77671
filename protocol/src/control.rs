//! What users ask of a node, and what it answers. JSON frames, each behind its length as 4 bytes, big endian.
//!
//! A session carries one request after another. Each is answered by one [`Reply`], or by a run of them that ends in
//! [`Reply::End`] ([`Request::Watch`], [`Request::Logs`]). The rows are the CLI's JSON output.

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::instance::InstanceState;
use crate::spec::{Deployment, FileContent, OnPartition, ServiceSpec};
use crate::token::{MachineRole, UserRole};
use crate::{InstanceId, Millis, Name, NodeId, ServiceKey, Slot, VolumeKey};

/// A request of a user. `service` and `node` texts are as people write them: `web` or `shop/web`; a name or an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Put these services in place. Deployer.
    Deploy {
        /// All or none of them.
        deployments: Vec<Deployment>,
        /// The secrets and configs that they mount.
        #[serde(default)]
        files: Vec<FileContent>,
    },
    /// What would [`Request::Deploy`] change? Viewer.
    Diff {
        /// The services.
        deployments: Vec<Deployment>,
        /// The secrets and configs that they mount.
        #[serde(default)]
        files: Vec<FileContent>,
    },
    /// Everything about a service. Viewer.
    Inspect {
        /// Which service.
        service: String,
    },
    /// Replace its instances by new ones of the same spec, as an update would. Deployer.
    Restart {
        /// Which service.
        service: String,
    },
    /// Go back to the spec before the present one. Deployer.
    Rollback {
        /// Which service.
        service: String,
    },
    /// Even out what machines run. Deployer.
    Rebalance {
        /// `false`: only say what would move.
        apply: bool,
    },
    /// Where would these go? Viewer.
    Plan {
        /// The services; those deployed already are counted as well.
        deployments: Vec<Deployment>,
    },
    /// Change the number of instances. Deployer.
    Scale {
        /// Which service.
        service: String,
        /// How many.
        replicas: u32,
    },
    /// Remove a service. Deployer.
    Remove {
        /// Which service, or a whole project as `shop/`.
        service: String,
    },
    /// Keep instances off a machine, or let them come back. Admin.
    Drain {
        /// Which.
        node: String,
        /// `false`: let them come back.
        drain: bool,
    },
    /// Take a machine out of the cluster for good. Admin.
    Leave {
        /// Which.
        node: String,
        /// Also when it still runs instances.
        force: bool,
    },
    /// List the images that members hold for one another. Viewer.
    Images,
    /// Begin to hand an image to the node; the stream carries it from then on. Deployer.
    PushImage(ImagePush),
    /// List named volumes and where their data is. Viewer.
    Volumes,
    /// Forget a volume that no service uses, and remove its data. Deployer.
    RemoveVolume {
        /// `project/volume`.
        volume: VolumeKey,
    },
    /// Run a command in an instance; the stream carries its input and output from then on. Deployer.
    Exec(ExecRequest),
    /// Read files of an instance. Deployer: they may hold secrets.
    CopyOut(CopyRequest),
    /// Put files into an instance. Deployer.
    CopyIn(CopyRequest),
    /// List services. Viewer.
    Services,
    /// List instances. Viewer.
    Instances {
        /// Of one service only.
        service: Option<String>,
    },
    /// List machines. Viewer.
    Nodes,
    /// The cluster at a glance. Viewer.
    Status,
    /// The instances of these services now, and again whenever they change. Viewer.
    Watch {
        /// Which; empty: all.
        services: Vec<ServiceKey>,
    },
    /// What instances wrote. Viewer.
    Logs(LogRequest),
    /// Make a token. Admin.
    CreateToken(TokenRequest),
}

/// An image that a user hands to a node. After [`Reply::Ready`] the image follows as `docker save` writes it, in frames
/// of bytes that an empty one ends; then the node answers with [`Reply::Done`] or [`Reply::Error`]. When the node has
/// the image already, it answers [`Reply::Done`] without it; [`Reply::Working`] may come before any other answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePush {
    /// The reference under which services name it.
    pub reference: String,
    /// Its id, `sha256:…`.
    pub id: String,
    /// Its size in bytes, as Docker tells it.
    pub size: u64,
}

/// A command to run in an instance. After [`Reply::Ready`] both sides send frames of bytes, see [`crate::exec`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Of which service.
    pub service: String,
    /// In which replica; `None`: the first that runs.
    pub replica: Option<u32>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether it gets input.
    pub stdin: bool,
    /// Environment variables, `KEY=value`.
    pub environment: Vec<String>,
    /// User to run as.
    pub user: Option<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Columns and rows of the terminal.
    pub size: Option<(u16, u16)>,
}

/// Files to copy, as a tar archive with one root. After [`Reply::Ready`] both sides send frames as for a command:
/// [`Request::CopyOut`] writes the archive on its standard output; [`Request::CopyIn`] first writes, in one piece, how the
/// archive's root shall be called, and then takes the archive as its input. Both end like a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRequest {
    /// Of which service.
    pub service: String,
    /// In which replica; `None`: the first that runs.
    pub replica: Option<u32>,
    /// From or to where in the instance, absolute. A directory that is there gets the files into it.
    pub path: String,
    /// How what is put there is called where it comes from; `.`: only what is in it.
    pub name: String,
}

/// What a member asks of another about one instance there, for a user. Answered as the user's own request would be; the
/// member between them passes the frames that follow on, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum InstanceRequest {
    /// [`Request::Exec`].
    Exec {
        /// Where.
        instance: InstanceId,
        /// What.
        exec: ExecRequest,
    },
    /// [`Request::CopyOut`].
    CopyOut {
        /// Where.
        instance: InstanceId,
        /// What.
        copy: CopyRequest,
    },
    /// [`Request::CopyIn`].
    CopyIn {
        /// Where.
        instance: InstanceId,
        /// What.
        copy: CopyRequest,
    },
}

/// Which lines of which instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// Of which service.
    pub service: String,
    /// Of one replica only.
    pub replica: Option<u32>,
    /// Go on as they are written.
    pub follow: bool,
    /// The last so many lines of each instance; `None`: all.
    pub tail: Option<u32>,
    /// Not before this time.
    pub since: Option<Millis>,
}

/// A member asks another for lines of one instance it runs. Answered by [`Reply::Ready`] and a [`Reply::Log`] a line, up to
/// [`Reply::End`]; by [`Reply::End`] alone when it has no such instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceLogRequest {
    /// Which slot; its newest instance, unless `digest` names one.
    pub slot: Slot,
    /// Of the instance that runs this.
    pub digest: Option<String>,
    /// Go on as they are written.
    pub follow: bool,
    /// The last so many lines; `None`: all.
    pub tail: Option<u32>,
    /// Not before this time.
    pub since: Option<Millis>,
}

/// The token to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// For whom.
    pub subject: TokenSubject,
    /// Good for so long.
    pub ttl_ms: Millis,
}

/// Whom a token lets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSubject {
    /// A machine that joins.
    Machine {
        /// What to call it in the log; the machine names itself.
        name: Name,
        /// What it will be.
        role: MachineRole,
    },
    /// A user.
    User {
        /// His name.
        name: Name,
        /// What he may do.
        role: UserRole,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "value", rename_all = "snake_case")]
pub enum Reply {
    /// Done and durable; one line a thing that changed, for people.
    Done(Vec<String>),
    /// To [`Request::Plan`].
    Plan(PlanReport),
    /// To [`Request::Services`].
    Services(Vec<ServiceRow>),
    /// To [`Request::Instances`].
    Instances(Vec<InstanceRow>),
    /// Each turn of [`Request::Watch`].
    Watched {
        /// The services that are watched.
        services: Vec<ServiceRow>,
        /// Their instances.
        instances: Vec<InstanceRow>,
    },
    /// To [`Request::Diff`]: only what changes.
    Diff(Vec<ServiceDiff>),
    /// To [`Request::Inspect`].
    Service(Box<ServiceDetail>),
    /// To [`Request::Rebalance`]: what moves, or would.
    Moves(Vec<MoveRow>),
    /// To [`Request::Images`].
    Images(Vec<ImageRow>),
    /// To [`Request::Volumes`].
    Volumes(Vec<VolumeRow>),
    /// Go on: the stream is yours.
    Ready,
    /// It takes time; the answer follows.
    Working,
    /// To [`Request::Nodes`].
    Nodes(Vec<NodeRow>),
    /// To [`Request::Status`].
    Status(StatusReport),
    /// To [`Request::CreateToken`].
    Token(String),
    /// A line of [`Request::Logs`].
    Log(LogRow),
    /// Something to tell beside the answer, which goes on. One line.
    Note(String),
    /// No more follow.
    End,
    /// Refused or failed; nothing has changed. One line that says what to do.
    Error(String),
}

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
    /// Ports that machines publish, as `8080:80/tcp`.
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
    pub by: String,
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
    /// Machines that have it.
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
    /// That machine's name.
    pub node_name: String,
    /// Whether that machine is up.
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
    /// On which machine; `None`: none can take it.
    pub node: Option<NodeId>,
    /// That machine's name.
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
    pub settled: bool,
    /// Digest of what it runs; empty when nothing does.
    #[serde(default)]
    pub digest: String,
}

/// Whether a machine is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It is.
    Up,
    /// Its observers cannot reach it.
    Down,
    /// It left for good.
    Left,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Peer id.
    pub id: NodeId,
    /// Name.
    pub name: String,
    /// Whether it is there.
    pub state: NodeState,
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
}

/// The cluster at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Its id.
    pub cluster: String,
    /// The node that answered.
    pub node: NodeId,
    /// Machines that are up.
    pub nodes_up: u32,
    /// All machines.
    pub nodes: u32,
    /// Services.
    pub services: u32,
    /// Instances wanted.
    pub replicas: u32,
    /// Instances that run.
    pub running: u32,
    /// The pool: what machines that are up have, reserve and use.
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
    /// Replicas that have a machine.
    pub placements: Vec<PlacementRow>,
    /// Replicas that have none.
    pub unplaced: Vec<UnplacedRow>,
    /// What changes against what runs.
    pub moves: Vec<MoveRow>,
}

/// A replica that has a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementRow {
    /// Of which service.
    pub service: ServiceKey,
    /// Which replica.
    pub replica: u32,
    /// On which machine.
    pub node: NodeId,
    /// That machine's name.
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
    /// Why not, a line a machine.
    pub reasons: Vec<String>,
}

/// A replica that changes machines, comes or goes.
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
    pub why: String,
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
    /// On which machine.
    pub node: NodeId,
    /// When, if the runtime knows.
    pub time: Option<Millis>,
    /// Which output.
    pub stream: LogStream,
    /// The line, without its end.
    pub line: String,
}
