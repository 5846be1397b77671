//! What users ask of a node, and what it answers. JSON frames, each behind its length as 4 bytes, big endian.
//!
//! A session carries one request after another. Each is answered by one [`Reply`], or by a run of them that ends in
//! [`Reply::End`] ([`Request::Watch`], [`Request::Logs`]). The rows are the CLI's JSON output.

mod rows;

use serde::{Deserialize, Serialize};

use crate::http::{FetchRequest, ResponseHead, SocketRequest};
use crate::spec::{Deployment, FileContent};
use crate::token::{NodeRole, UserRole};
use crate::{ApiError, Millis, Name, ServiceKey, VolumeKey};

pub use rows::{
    ComposeProject, EventLevel, EventRow, ImageRow, InstanceRow, LiveUpdate, LogRow, LogStream,
    MoveRow, NodeRow, NodeStatus, PlacementRow, PlanReport, Rollout, RolloutState, ServiceDetail,
    ServiceDiff, ServiceRow, StatusReport, UnplacedRow, VolumeRow,
};

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
    /// What would [`Request::Deploy`] change? Viewer; with secrets deployer, as the answer says whether they are others.
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
    /// Even out what nodes run. Deployer.
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
    /// Keep instances off a node, or let them come back. Admin.
    Drain {
        /// Which.
        node: String,
        /// `false`: let them come back.
        drain: bool,
    },
    /// Take a node out of the cluster for good. Admin.
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
    /// List nodes. Viewer.
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
    /// What the text of a Compose file asks for. Viewer.
    Compose {
        /// The text. It cannot refer to other files: there are none.
        text: String,
        /// The project's name, when the user says it; else the file's `name:`.
        project: Option<Name>,
    },
    /// The whole cluster now, and what changes of it from then on; nothing else is answered on this stream. Viewer.
    Live,
    /// What happened lately, oldest first: answered by [`Reply::Event`] a thing, up to [`Reply::End`]. Viewer.
    Events {
        /// Go on as things happen.
        follow: bool,
    },
    /// Many sessions on this stream: after [`Reply::Ready`] it carries
    /// [yamux](https://github.com/hashicorp/yamux/blob/master/spec.md), and every stream in there that the user opens is a
    /// session of its own. For clients for whom one stream is cheap and many are not: browsers. Viewer.
    Multiplex,
    /// An HTTP request to an instance of a service. Viewer.
    Fetch(FetchRequest),
    /// A WebSocket to an instance of a service. Viewer.
    Socket(SocketRequest),
}

/// An image that a user hands to a node. After [`Reply::Ready`] the image follows as `docker save` writes it, in frames
/// of bytes that an empty one ends; then the node answers with [`Reply::Done`] or [`Reply::Error`]. When the node has
/// the image already, it answers [`Reply::Done`] without it; [`Reply::KeepAlive`] may come before any other answer.
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

/// The token to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// For whom.
    pub subject: TokenSubject,
    /// Good for so long.
    pub ttl_ms: Millis,
    /// For a link or a QR code: it names a few addresses for browsers, and no others.
    #[serde(default)]
    pub browser: bool,
}

/// Whom a token lets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSubject {
    /// A node that joins.
    Node {
        /// What to call it in the log; the node names itself.
        name: Name,
        /// What it will be.
        role: NodeRole,
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
    /// It takes time; the answer follows. Among logs and events that are followed every fifteen seconds or so, so that each
    /// side notices when the other is gone.
    KeepAlive,
    /// To [`Request::Nodes`].
    Nodes(Vec<NodeRow>),
    /// To [`Request::Status`].
    Status(StatusReport),
    /// To [`Request::CreateToken`].
    Token(String),
    /// A line of [`Request::Logs`].
    Log(LogRow),
    /// To [`Request::Compose`].
    Composed(ComposeProject),
    /// Each turn of [`Request::Live`]: at least one a second, so that silence means that the node is gone.
    Live(Box<LiveUpdate>),
    /// A line of [`Request::Events`].
    Event(EventRow),
    /// To [`Request::Fetch`] and [`Request::Socket`].
    Response(ResponseHead),
    /// Something to tell beside the answer, which goes on. One line.
    Note(String),
    /// No more follow.
    End,
    /// The request was refused or failed.
    Error(ApiError),
}
