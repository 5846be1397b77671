//! The control protocol between clients (CLI, browser) and nodes. Every frame is JSON behind its length as 4 bytes, big
//! endian.
//!
//! A session carries one request after another. Each is answered by one [`Reply`], or by a series of replies that ends
//! with [`Reply::End`]. [`Reply::KeepAlive`] and [`Reply::Note`] may precede any answer. The rows are the CLI's JSON
//! output.

mod changes;
mod files;
mod program;
mod rows;

use serde::{Deserialize, Serialize};

use crate::alert::{AlertFilter, AlertFormat, AlertTarget};
use crate::audit::{AuditCheck, AuditQuery, AuditRow};
use crate::event::EventQuery;
use crate::http::{FetchRequest, ResponseHead, SocketRequest};
use crate::spec::{Deployment, FileContent, ProjectPolicy};
use crate::token::{NodeRole, UserLimits, UserRole};
use crate::volume::SnapshotId;
use crate::{ApiError, Millis, Name, NodeId, ServiceKey, TraceId, VolumeKey};

pub use changes::Change;
pub use files::{
    FileCount, FileKind, FileList, FileRow, MAX_DIRECTORY_ID, UploadDiff, UploadPlan, UploadTarget,
};
pub use program::{
    FailedUpgrade, MAX_PROGRAM, PROGRAM_MARKER, ProgramId, ProgramRow, UpgradeRow, UpgradeStep,
};
pub use rows::{
    BackupRow, BatchedLine, ComposeProject, DiskUsageRow, EventLevel, EventRow, ExportRow,
    HostPort, ImageRow, InstanceRow, JobRow, LiveUpdate, LogBatch, LogRow, LogStream, LostLines,
    MoveRow, NodeRow, NodeStatus, PlacementRow, PlanReport, ProblemId, ProjectRow, ReceiverRow,
    ReplicaRow, ReplicaState, Rollout, RolloutState, RunRow, RunState, ServiceDetail, ServiceDiff,
    ServiceRow, SnapshotKind, SnapshotRow, StatusReport, TokenRow, TrustReport, TrustRow,
    UnplacedRow, UsageRow, VersionRow, VersionState, VolumeRow, VoterReport, VoterRow,
};

/// What stands for the value of an environment variable that is not shown.
pub const MASK: &str = "***";

/// A request, with the role it needs. `service` and `node` are as users write them: `web` or `shop/web`; a name or an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Creates or updates services. Deployer.
    Deploy {
        /// The services; all are deployed or none.
        deployments: Vec<Deployment>,
        /// The secrets and configs that the services mount.
        #[serde(default)]
        files: Vec<FileContent>,
        /// Asks registries anew which image each reference names. [`Reply::KeepAlive`] may precede the answer.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pull: bool,
        /// Also if the image of a service cannot be found, or not every node says whether it has a directory.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
        /// Name or id of the node whose directories new volumes begin with, where several nodes have them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data_from: Option<String>,
        /// By which the logs of all nodes name what follows from it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<TraceId>,
    },
    /// Returns what [`Request::Deploy`] would change. Viewer; deployer with secrets, because the answer reveals whether they
    /// differ.
    Diff {
        /// The services to compare with those that are deployed.
        deployments: Vec<Deployment>,
        /// The secrets and configs that the services mount.
        #[serde(default)]
        files: Vec<FileContent>,
        /// As of [`Request::Deploy`]; the node fetches the images.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pull: bool,
        /// As of [`Request::Deploy`].
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
        /// As of [`Request::Deploy`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data_from: Option<String>,
    },
    /// Returns the details of a service. Viewer; deployer with `show_values`.
    Inspect {
        /// Name of the service: `web` or `shop/web`.
        service: String,
        /// Whether to return the values of environment variables, and not [`MASK`] in their place.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        show_values: bool,
    },
    /// Replaces the instances by new ones of the same spec, as an update does. Deployer.
    Restart {
        /// Name of the service: `web` or `shop/web`.
        service: String,
        /// Also if its image cannot be found.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// Returns to the newest version before the one in effect that did not fail. Deployer.
    Rollback {
        /// Name of the service: `web` or `shop/web`.
        service: String,
        /// Also if its image cannot be found.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// Returns to a version that is named. Deployer. A request of its own: a node that does not know it must not return to another.
    RollbackTo {
        /// Name of the service: `web` or `shop/web`.
        service: String,
        /// Number of the version, as [`Request::History`] lists it.
        version: u32,
        /// Also if its image is on no node and in no registry.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// Lists the versions of a service, newest first. Viewer.
    History {
        /// Name of the service: `web` or `shop/web`.
        service: String,
    },
    /// Lists the jobs. Viewer.
    Jobs,
    /// Lists the runs of a job that are remembered, newest first. Viewer.
    Runs {
        /// Name of the service: `web` or `shop/web`.
        service: String,
    },
    /// Begins a run of a scheduled service now, or runs another job anew. Deployer.
    RunJob {
        /// Name of the service: `web` or `shop/web`.
        service: String,
    },
    /// Stops a run of a scheduled service. Deployer.
    StopRun {
        /// Name of the service: `web` or `shop/web`.
        service: String,
        /// Its number, as [`Request::Runs`] lists it; `None` for all that are under way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<u32>,
    },
    /// Moves instances so that nodes are evenly used. Deployer.
    Rebalance {
        /// `false` for a dry run.
        apply: bool,
    },
    /// Returns the plan as if these services were deployed. Viewer.
    Plan {
        /// The services, in addition to those that are deployed.
        deployments: Vec<Deployment>,
    },
    /// Changes the number of replicas. Deployer.
    Scale {
        /// Name of the service: `web` or `shop/web`.
        service: String,
        /// The number of replicas.
        replicas: u32,
        /// Also if its image cannot be found.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// Removes a service. Deployer.
    Remove {
        /// The service, or a whole project as `shop/`.
        service: String,
    },
    /// Drains a node, or ends the drain. Admin.
    Drain {
        /// Name or peer id of the node.
        node: String,
        /// `false` ends the drain.
        drain: bool,
    },
    /// Removes a node from the cluster for good. Admin.
    Leave {
        /// Name or peer id of the node.
        node: String,
        /// Also if it still runs instances or holds volumes.
        force: bool,
    },
    /// Stops the containers that a former node has left on the host of a member, and has that take over the data of its volumes.
    /// Admin.
    Adopt {
        /// Name or peer id of the former node.
        node: String,
        /// Leaves the volumes where they are.
        #[serde(default)]
        stop: bool,
    },
    /// Lists the images in the cluster. Viewer.
    Images,
    /// Forgets references of pushed images that no service needs, nor a version that it can return to. Nodes delete the content in time.
    /// Deployer.
    RemoveImages {
        /// The references, as [`Request::Images`] lists them.
        references: Vec<String>,
    },
    /// As [`Request::RemoveImages`] for all references that nothing needs and that were pushed more than an hour ago. Deployer.
    PruneImages {
        /// `false` for a dry run, which answers [`Reply::Images`].
        apply: bool,
    },
    /// Uploads an image, which follows on the stream. Deployer.
    PushImage(ImagePush),
    /// Uploads the directory with which a volume begins that no node has yet, or that is to replace what it has. After
    /// [`Reply::Ready`] the client sends a tar archive, perhaps compressed with zstd, in frames of bytes, the last of them empty; then
    /// the node answers [`Reply::Uploaded`] or [`Reply::Error`]. Deployer.
    UploadVolume {
        /// The volume as `project/volume`.
        volume: VolumeKey,
        /// How the upload may be continued; `None` of one that begins at zero each time, with any archive of tar.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upload: Option<UploadTarget>,
    },
    /// Lists what a node has of an upload that broke off, in [`Reply::Files`]. Deployer.
    StagedUpload {
        /// The volume as `project/volume`.
        volume: VolumeKey,
        /// The node.
        node: NodeId,
        /// As in [`UploadTarget`].
        directory: String,
    },
    /// Makes a volume that no instance uses equal to what was uploaded for it, on the node that writes it. Waits for instances that are
    /// about to stop. Deployer.
    ReplaceVolume {
        /// The volume as `project/volume`.
        volume: VolumeKey,
        /// As in [`UploadTarget`].
        directory: String,
    },
    /// Lists the files that a volume has now on the node that writes it, in [`Reply::Files`]. Deployer.
    VolumeFiles {
        /// The volume as `project/volume`.
        volume: VolumeKey,
    },
    /// Copies a file or directory into a volume, on the node that writes it; instances may run. After [`Reply::Ready`] the client sends
    /// an archive as for [`Request::UploadVolume`]; then the node answers [`Reply::Done`] or [`Reply::Error`]. Deployer.
    CopyIntoVolume {
        /// The volume as `project/volume`.
        volume: VolumeKey,
        /// Where to, relative to the volume: a directory that gets the copy under its name, or the name of the copy.
        path: String,
        /// The name of the copy; `.` for what is in a directory.
        name: String,
    },
    /// Lists named volumes and the nodes that hold them. Viewer.
    Volumes,
    /// Moves a volume, with the services that mount it, to another node. Deployer.
    MoveVolume {
        /// The volume as `project/volume`.
        volume: VolumeKey,
        /// Name or id of the node.
        to: String,
    },
    /// Lists the snapshots of a volume that a node has, what is kept aside there, and what is in the trash. Viewer.
    Snapshots {
        /// The volume as `project/volume`.
        volume: VolumeKey,
        /// The node.
        node: NodeId,
    },
    /// Takes a snapshot of a volume now, on the node that writes it. Deployer.
    SnapshotVolume {
        /// The volume as `project/volume`.
        volume: VolumeKey,
    },
    /// Makes a volume that no instance uses equal to a snapshot. Deployer.
    RestoreVolume {
        /// The volume as `project/volume`.
        volume: VolumeKey,
        /// The snapshot, or the id of what is kept aside.
        snapshot: SnapshotId,
        /// Whether that is kept aside as a conflict.
        #[serde(default)]
        conflict: bool,
    },
    /// Takes a removed volume out of the trash of a node. Deployer.
    UndeleteVolume {
        /// The volume as `project/volume`.
        volume: VolumeKey,
        /// The node.
        node: NodeId,
    },
    /// Downloads a snapshot that a node has. After [`Reply::Ready`] both sides send the frames of [`crate::exec`], the archive as
    /// standard output. Deployer, because it may contain secrets.
    ExportVolume {
        /// The volume as `project/volume`.
        volume: VolumeKey,
        /// The snapshot.
        snapshot: SnapshotId,
        /// The node.
        node: NodeId,
        /// Only this file or directory of it, in a tar archive whose root has its name; `None` for everything, compressed with zstd.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// Downloads the cluster document with its secrets and configs, for a backup. After [`Reply::Ready`] both sides send the frames of
    /// [`crate::exec`], the JSON of a [`ClusterContent`](crate::backup::ClusterContent) as standard output. Admin.
    Backup,
    /// Uploads an archive, in tar or compressed with zstd, with which a volume begins that no node has yet. After [`Reply::Ready`] the
    /// client sends it in frames of bytes, the last of them empty; then the node answers [`Reply::Done`] or [`Reply::Error`]. Deployer.
    ImportVolume {
        /// The volume as `project/volume`.
        volume: VolumeKey,
        /// Name or id of the node that is to have it; `None` for any that runs Docker.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<String>,
    },
    /// Makes a new volume of a snapshot, on a node that has that. Deployer.
    CloneVolume {
        /// The volume as `project/volume`.
        volume: VolumeKey,
        /// The snapshot.
        snapshot: SnapshotId,
        /// The node.
        node: NodeId,
        /// The new volume, which no node has yet.
        to: VolumeKey,
    },
    /// Makes a new volume of what a volume of Docker's or a directory on a node has; that stays as it is. Deployer, if an admin has
    /// allowed the directory; admin for volumes of Docker's.
    AdoptVolume {
        /// The new volume, which no node has yet.
        volume: VolumeKey,
        /// Name or id of the node.
        node: String,
        /// Docker's name of its volume, or the absolute path of the directory.
        source: String,
    },
    /// Removes a volume that no service uses, with its data. Deployer.
    RemoveVolume {
        /// The volume as `project/volume`.
        volume: VolumeKey,
    },
    /// Forgets a volume that no service uses; nodes keep its data aside. Deployer.
    ForgetVolume {
        /// The volume as `project/volume`.
        volume: VolumeKey,
    },
    /// Runs a command in an instance; its input and output follow on the stream. Deployer.
    Exec(ExecRequest),
    /// Copies files out of an instance. Deployer, because they may contain secrets.
    CopyOut(CopyRequest),
    /// Copies files into an instance. Deployer.
    CopyIn(CopyRequest),
    /// Lists all services. Viewer.
    Services,
    /// Lists slots with their instances. Viewer.
    Instances {
        /// Only instances of this service.
        service: Option<String>,
        /// Also what they use, of nodes that answer within a fraction of a second.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        usage: bool,
    },
    /// Returns what running instances use, as the nodes that run them have measured it. A [`Reply::Note`] before the answer names each
    /// node that did not answer. Viewer.
    Usage {
        /// Only instances of this service, `web` or `shop/web`, or of a project, `shop/`.
        service: Option<String>,
        /// Only on the node with this name or id.
        node: Option<String>,
    },
    /// Lists nodes, including those that left. Viewer.
    Nodes,
    /// Returns what the data of a node takes on its disk. [`Reply::KeepAlive`] may precede the answer. Viewer.
    DiskUsage {
        /// The node.
        node: NodeId,
    },
    /// Returns which build of vc-node a node runs, in [`Reply::Program`]. Admin: it names a path of the host.
    NodeProgram {
        /// The node.
        node: NodeId,
    },
    /// Replaces the program of a node, which restarts with it. A node that has this program beside its own answers [`Reply::Done`]; else it
    /// answers [`Reply::Ready`], the client sends the program in frames of bytes, the last of them empty, and then the node answers
    /// [`Reply::Done`] or [`Reply::Error`]. It restarts after `Done`, and goes back by itself if the program does not become ready. Admin:
    /// the program runs as the node does.
    UpgradeNode {
        /// The node.
        node: NodeId,
        /// The program.
        program: ProgramId,
    },
    /// Returns a summary of the cluster. Viewer.
    Status,
    /// Returns services with their instances, now and whenever they change. Viewer.
    Watch {
        /// The services; empty for all.
        services: Vec<ServiceKey>,
    },
    /// Returns log lines of instances. Viewer whose token allows it, or deployer.
    Logs(LogRequest),
    /// Creates a token. Admin.
    CreateToken(TokenRequest),
    /// Lists the tokens that were created and have not expired. Admin.
    Tokens,
    /// Revokes a token before it expires. Admin.
    RevokeToken {
        /// The token's id, as `vc token ls` shows it.
        token: String,
        /// Also if the list has no other token of an admin, and this one makes the request.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// Revokes all tokens that a user has so far. Admin.
    RevokeUser {
        /// Name of the user.
        user: String,
        /// Also if the list has no other token of an admin, and this user makes the request.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// Lists projects with what their services may use. Viewer.
    Projects,
    /// Lets the services of a project use more without an admin. Admin.
    AllowProject {
        /// The project; it need not have services yet.
        project: Name,
        /// What they may use in addition.
        policy: ProjectPolicy,
    },
    /// Takes away what [`Request::AllowProject`] gave; what runs stays. Admin.
    DenyProject {
        /// The project.
        project: Name,
        /// What its services may no longer use; of host paths, all at or below these.
        policy: ProjectPolicy,
    },
    /// Lists the receivers of alerts. Admin.
    Receivers,
    /// Adds a receiver of alerts. Admin: nodes will send requests to any address that it names, or run a command.
    AddReceiver {
        /// Its name.
        name: Name,
        /// Where alerts go.
        target: AlertTarget,
        /// The form of what is sent.
        #[serde(default)]
        format: AlertFormat,
        /// Which problems are sent.
        #[serde(default)]
        filter: AlertFilter,
    },
    /// Removes a receiver of alerts. Admin.
    RemoveReceiver {
        /// Its name.
        name: Name,
    },
    /// Sends a test alert to a receiver, from the node that would send alerts to it. Admin.
    TestReceiver {
        /// Its name.
        name: Name,
    },
    /// Lists the servers, and which of them grant leases. Viewer.
    Voters,
    /// Says whether a server is to grant leases. The present voters carry it out, one change after the other. Admin.
    SetVoter {
        /// Name or peer id of the node.
        node: String,
        /// `None` leaves it to the cluster.
        votes: Option<bool>,
    },
    /// Makes these servers the voters without the consent of the present ones. Admin.
    ForceVoters {
        /// Names or peer ids of the nodes.
        nodes: Vec<String>,
    },
    /// Replaces the key that signs certificates. Admin.
    RotateTrust {
        /// The nodes that stay members, as the user was shown them; others are removed.
        members: Vec<NodeId>,
    },
    /// Says which signing key counts, and which nodes have its certificates. Viewer.
    Trust,
    /// Parses a Compose file. Viewer.
    Compose {
        /// The text of the file. It cannot refer to other files.
        text: String,
        /// The project name; `None` for the file's `name:`.
        project: Option<Name>,
    },
    /// Subscribes to the state of the cluster: everything first, then what changes. No other request is answered on this
    /// stream. Viewer.
    Live,
    /// Lists recent events, oldest first: one [`Reply::Event`] each, then [`Reply::End`]. Viewer.
    Events(EventQuery),
    /// Returns records of the audit logs of all servers, by time: one [`Reply::Audit`] each, a [`Reply::AuditCheck`] for each
    /// server that answers, and [`Reply::End`]. Admin.
    Audit(AuditQuery),
    /// Multiplexes sessions: after [`Reply::Ready`] the stream carries
    /// [yamux](https://github.com/hashicorp/yamux/blob/master/spec.md), and every yamux stream that the client opens is a
    /// session. For browsers, whose transport streams are expensive. Viewer.
    Multiplex,
    /// Sends an HTTP request to an instance of a service. Viewer.
    Fetch(FetchRequest),
    /// Opens a WebSocket to an instance of a service. Viewer.
    Socket(SocketRequest),
}

/// An image to upload. After [`Reply::Ready`] the client sends the output of `docker save` in frames of bytes, the last of
/// them empty; then the node answers [`Reply::Done`] or [`Reply::Error`]. A node that has the image already answers
/// [`Reply::Done`] without [`Reply::Ready`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePush {
    /// The reference that services use.
    pub reference: String,
    /// Image id as `sha256:…`.
    pub id: String,
    /// Size in bytes as reported by Docker.
    pub size: u64,
}

/// A command to run in an instance. After [`Reply::Ready`] both sides send the frames of [`crate::exec`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Name of the service: `web` or `shop/web`.
    pub service: String,
    /// The replica; `None` for the first one that runs.
    pub replica: Option<u32>,
    /// The program with its arguments.
    pub command: Vec<String>,
    /// Whether to allocate a terminal.
    pub tty: bool,
    /// Whether to attach standard input.
    pub stdin: bool,
    /// Additional environment variables as `KEY=value`.
    pub environment: Vec<String>,
    /// User to run as; `None` for that of the container.
    pub user: Option<String>,
    /// Working directory; `None` for that of the container.
    pub working_dir: Option<String>,
    /// Initial size of the terminal: columns and rows.
    pub size: Option<(u16, u16)>,
    /// Whether to attach to the instance itself, which waits for that and then starts
    /// ([`attach`](crate::spec::ContainerSpec::attach)); the command, user and environment are then its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attach: bool,
}

/// Files to copy, as a tar archive with one root. After [`Reply::Ready`] both sides send the frames of [`crate::exec`]:
/// [`Request::CopyOut`] sends the archive as standard output; [`Request::CopyIn`] first sends the name for the archive's
/// root in one `Stdout` frame and then takes the archive as standard input. Both end like a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRequest {
    /// Name of the service: `web` or `shop/web`.
    pub service: String,
    /// The replica; `None` for the first one that runs.
    pub replica: Option<u32>,
    /// Absolute path in the instance. An existing directory receives the files inside it.
    pub path: String,
    /// Name of the copied file or directory at its source; `.` for only the content of a directory.
    pub name: String,
}

/// Selects log lines of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// Name of the service: `web` or `shop/web`.
    pub service: String,
    /// Only this replica of the service.
    pub replica: Option<u32>,
    /// Continues with new lines as they are written.
    pub follow: bool,
    /// Only the last N lines of each instance; `None` for all.
    pub tail: Option<u32>,
    /// Only lines since this time.
    pub since: Option<Millis>,
    /// Whether lines may come together, as [`Reply::Logs`]. Older nodes send each by itself all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub batched: bool,
}

/// The token to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// The node or user that the token admits.
    pub subject: TokenSubject,
    /// Time until the token expires, in milliseconds.
    pub ttl_ms: Millis,
    /// Includes only a few WebRTC addresses, so that the token fits into a link or QR code.
    #[serde(default)]
    pub browser: bool,
    /// How many nodes may join with the token, from 1; `None` for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// The node or user that a token admits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSubject {
    /// A node that joins the cluster.
    Node {
        /// Name in the log; the node chooses its own when it joins.
        name: Name,
        /// The role of the node.
        role: NodeRole,
    },
    /// A user of the control protocol.
    User {
        /// Name of the user.
        name: Name,
        /// The role of the user.
        role: UserRole,
        /// The projects that the token is limited to, and whether a viewer may read logs.
        #[serde(flatten)]
        limits: UserLimits,
    },
}

/// An answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "value", rename_all = "snake_case")]
pub enum Reply {
    /// The change is durable on the node that answers; one entry for each thing that changed.
    Done(Vec<Change>),
    /// The answer to [`Request::Plan`].
    Plan(PlanReport),
    /// The answer to [`Request::Services`].
    Services(Vec<ServiceRow>),
    /// The answer to [`Request::Instances`].
    Instances(Vec<InstanceRow>),
    /// The answer to [`Request::Usage`], and between members to [`crate::wire::USAGE_PROTOCOL`].
    Usage(Vec<UsageRow>),
    /// To [`Request::Watch`], now and on every change.
    Watched {
        /// The services that are watched.
        services: Vec<ServiceRow>,
        /// The slots of these services.
        instances: Vec<InstanceRow>,
    },
    /// To [`Request::Diff`]: the services that change.
    Diff(Vec<ServiceDiff>),
    /// The answer to [`Request::Inspect`].
    Service(Box<ServiceDetail>),
    /// The answer to [`Request::History`].
    History(Vec<VersionRow>),
    /// Answers [`Request::Jobs`].
    Jobs(Vec<JobRow>),
    /// Answers [`Request::Runs`].
    Runs(Vec<RunRow>),
    /// To [`Request::Rebalance`]: the moves.
    Moves(Vec<MoveRow>),
    /// The answer to [`Request::Images`].
    Images(Vec<ImageRow>),
    /// The answer to [`Request::Volumes`].
    Volumes(Vec<VolumeRow>),
    /// To [`Request::UploadVolume`]: the node that has the data, which the deployment names as the
    /// [origin](crate::volume::Origin::Uploaded).
    Uploaded(NodeId),
    /// To [`Request::StagedUpload`] and [`Request::VolumeFiles`]: some of the files, until `more` is false.
    Files(FileList),
    /// The answer to [`Request::Snapshots`].
    Snapshots(Vec<SnapshotRow>),
    /// The answer to [`Request::Projects`].
    Projects(Vec<ProjectRow>),
    /// The answer to [`Request::Tokens`].
    Tokens(Vec<TokenRow>),
    /// The answer to [`Request::Trust`].
    Trust(TrustReport),
    /// The answer to [`Request::DiskUsage`].
    DiskUsage(Vec<DiskUsageRow>),
    /// The answer to [`Request::NodeProgram`].
    Program(Box<ProgramRow>),
    /// The answer to [`Request::Receivers`].
    Receivers(Vec<ReceiverRow>),
    /// The answer to [`Request::Voters`].
    Voters(VoterReport),
    /// The request is accepted; what follows on the stream is described at the request.
    Ready,
    /// Sent while the answer takes time, and about every 15 s in followed logs and events, so that both sides notice a broken
    /// connection.
    KeepAlive,
    /// The answer to [`Request::Nodes`].
    Nodes(Vec<NodeRow>),
    /// The answer to [`Request::Status`].
    Status(StatusReport),
    /// The answer to [`Request::CreateToken`].
    Token(String),
    /// To [`Request::Logs`]: one line.
    Log(LogRow),
    /// The same: several lines.
    Logs(LogBatch),
    /// The answer to [`Request::Compose`].
    Composed(ComposeProject),
    /// To [`Request::Live`]: at least twice a second, so that a client notices within a second that the node is down.
    Live(Box<LiveUpdate>),
    /// To [`Request::Events`]: one event.
    Event(EventRow),
    /// To [`Request::Audit`]: one record.
    Audit(Box<AuditRow>),
    /// To [`Request::Audit`]: what one server found when it checked its log.
    AuditCheck(AuditCheck),
    /// To [`Request::Fetch`] and [`Request::Socket`].
    Response(ResponseHead),
    /// A warning beside the answer, in one line.
    Note(String),
    /// The end of a series of replies.
    End,
    /// The request was refused or failed.
    Error(ApiError),
}
