//! What a user asks for: services, as a Compose file describes them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Millis, Name, Resources, ServiceKey};

/// The largest number of replicas one service may ask for.
pub const MAX_REPLICAS: u32 = 1000;
/// The largest encoded service, in bytes: it travels in one change.
pub const MAX_SPEC_BYTES: usize = 256 * 1024;
/// The largest secret or config, in bytes; as in Swarm.
pub const MAX_FILE_BYTES: usize = 500 * 1024;

/// A service: what to run, and where it may run. How many is [`Deployment::replicas`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// What each instance runs.
    pub container: ContainerSpec,
    /// What a machine must offer.
    #[serde(default)]
    pub constraints: Vec<Constraint>,
    /// Services of the same project that must run before an instance starts.
    #[serde(default)]
    pub depends_on: BTreeMap<Name, Dependency>,
    /// What the sides of a partition do.
    #[serde(default)]
    pub on_partition: OnPartition,
    /// Ports that machines publish for it. A change of these leaves its containers alone.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// Ports of its instances that it names without publishing them. Every TCP port is reached under the service's
    /// name anyway; a UDP port only when it is named here or in `ports`.
    #[serde(default)]
    pub expose: Vec<Expose>,
    /// How a change replaces its instances.
    #[serde(default)]
    pub update: UpdatePolicy,
}

impl ServiceSpec {
    /// Whether the successor of an instance starts before the instance stops: as the file says, else where nothing is
    /// written that two of them would share.
    pub fn starts_first(&self) -> bool {
        match self.update.order {
            Some(order) => order == UpdateOrder::StartFirst,
            None => !self.container.mounts.iter().any(Mount::is_shared),
        }
    }

    /// The named volumes of its instances.
    pub fn volumes(&self) -> impl Iterator<Item = &Name> {
        self.container.mounts.iter().filter_map(|mount| match mount {
            Mount::Volume { name, .. } => Some(name),
            _ => None,
        })
    }
}

/// A service of a project, with the number of instances wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// Which service.
    pub service: ServiceKey,
    /// How many instances; `None`: as many as before, 1 when it is new.
    pub replicas: Option<u32>,
    /// What it is.
    pub spec: ServiceSpec,
}

/// What one instance runs. Another value means another instance: its [`digest`](Self::digest) tells them apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    /// Image reference. The process runtime does not read it.
    pub image: String,
    /// The image's id (`sha256:…`), pinned when it was deployed so that every replica runs the same bytes; `None`:
    /// nobody had it then.
    #[serde(default)]
    pub image_id: Option<String>,
    /// Overrides the image's command; for the process runtime, the program and its arguments.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// Overrides the image's entrypoint.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    /// Environment variables.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Labels of the container.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How to tell that it works.
    #[serde(default)]
    pub healthcheck: Option<Healthcheck>,
    /// From SIGTERM to SIGKILL.
    #[serde(default = "default_grace")]
    pub stop_grace_ms: Millis,
    /// What is kept free for it: placement counts this.
    #[serde(default)]
    pub reservation: Resources,
    /// What it may not exceed; zero: no limit.
    #[serde(default)]
    pub limit: Resources,
    /// `os/arch` it needs, as in `linux/amd64`; `None`: any.
    #[serde(default)]
    pub platform: Option<String>,
    /// What to do when it exits.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Working directory.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// User (and group) to run as.
    #[serde(default)]
    pub user: Option<String>,
    /// The project's networks that it is in, each with the names it goes by there beside the service's own. Empty: the
    /// project's default network.
    #[serde(default)]
    pub networks: BTreeMap<Name, BTreeSet<String>>,
    /// File systems.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Secrets and configs.
    #[serde(default)]
    pub files: Vec<FileMount>,
    /// What of Docker's own settings it asks for.
    #[serde(default)]
    pub settings: Settings,
    /// Grows with each `vc restart`: another number is another instance.
    #[serde(default)]
    pub restarted: u64,
}

/// Settings that Docker knows and nobody else reads. Each is as Compose has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Host name inside.
    pub hostname: Option<String>,
    /// Capabilities to add.
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    pub cap_drop: Vec<String>,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// The signal that stops it; `None`: SIGTERM, or as the image says.
    pub stop_signal: Option<String>,
    /// An init process inside that reaps.
    pub init: bool,
    /// Its root file system cannot be written.
    pub read_only: bool,
    /// Gives it the machine's devices and all capabilities.
    pub privileged: bool,
    /// Devices, `HOST:CONTAINER[:rwm]`.
    pub devices: Vec<String>,
    /// More groups of its user.
    pub group_add: Vec<String>,
    /// Security options.
    pub security_opt: Vec<String>,
    /// More lines of its hosts file, `NAME:IP`.
    pub extra_hosts: Vec<String>,
    /// Limits of its processes: soft and hard.
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// Size of /dev/shm in bytes; zero: Docker's default.
    pub shm_bytes: u64,
    /// A terminal as its standard output.
    pub tty: bool,
    /// Its standard input stays open.
    pub stdin_open: bool,
}

/// A file system of an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A named volume of the project. Its data is on one machine, and instances that use it run there.
    Volume {
        /// Its name in the project.
        name: Name,
        /// Where it is mounted.
        target: String,
        /// It cannot be written.
        read_only: bool,
    },
    /// A volume without a name, that goes with the instance.
    Anonymous {
        /// Where it is mounted.
        target: String,
    },
    /// A directory or file of the machine; only for services that are pinned to one machine.
    Bind {
        /// Absolute path on the machine.
        source: String,
        /// Where it is mounted.
        target: String,
        /// It cannot be written.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Where it is mounted.
        target: String,
        /// At most so many bytes; zero: no limit.
        bytes: u64,
    },
}

impl Mount {
    /// Whether two instances that run at once would write to the same place.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Volume { read_only: false, .. } | Self::Bind { read_only: false, .. })
    }
}

/// A secret or a config that an instance reads as a file, from memory and never from its machine's disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileMount {
    /// Which file of the project.
    pub file: FileId,
    /// Which content: a keyed hash of it that the node fills in when it is deployed, so that another content is another
    /// instance. Empty in what a user sends.
    #[serde(default)]
    pub version: String,
    /// Absolute path inside.
    pub target: String,
    /// Its owner inside.
    #[serde(default)]
    pub uid: u32,
    /// Its group inside.
    #[serde(default)]
    pub gid: u32,
    /// Its mode.
    pub mode: u32,
}

/// A file of a project, with a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileId {
    /// Secret or config.
    pub kind: FileKind,
    /// Its name in the project, as the file of the project has it: for a shipped bind mount, the path.
    pub name: String,
}

impl std::fmt::Display for FileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            FileKind::Secret => "secret",
            FileKind::Config => "config",
        };
        write!(f, "{kind} '{}'", self.name)
    }
}

/// Whether anybody may see what is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// Nobody but the instances.
    Secret,
    /// Not secret.
    Config,
}

/// The content of a file that a deployment brings along.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileContent {
    /// Of which project.
    pub project: Name,
    /// Which file.
    pub file: FileId,
    /// What is in it: base64, for JSON's sake.
    pub base64: String,
}

impl std::fmt::Debug for FileContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the content.
        write!(f, "FileContent({}, {:?})", self.project, self.file)
    }
}

/// A port of an instance that is named, not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expose {
    /// Port of the instance.
    pub target: u16,
    /// Protocol.
    pub protocol: PortProtocol,
}

/// How a change replaces the instances of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpdatePolicy {
    /// How many at a time; 0: all at once.
    pub parallelism: u32,
    /// `None`: see [`ServiceSpec::starts_first`].
    pub order: Option<UpdateOrder>,
    /// From an instance that has proven itself to the next one.
    pub delay_ms: Millis,
    /// An instance without a healthcheck has proven itself when it has run so long.
    pub monitor_ms: Millis,
    /// What to do when a new instance fails.
    pub failure_action: FailureAction,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self {
            parallelism: 1,
            order: None,
            delay_ms: 0,
            monitor_ms: 5000,
            failure_action: FailureAction::Rollback,
        }
    }
}

/// Which goes first, the new instance or the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// The old one stops when the new one has proven itself.
    StartFirst,
    /// The new one starts when the old one is gone.
    StopFirst,
}

/// What to do when a new instance fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureAction {
    /// Go back to the version before.
    #[default]
    Rollback,
    /// Leave everything as it is.
    Pause,
    /// Go on.
    Continue,
}

/// Docker's default grace.
fn default_grace() -> Millis {
    10_000
}

impl ContainerSpec {
    /// Identifies what runs: SHA-256 over the canonical JSON, the first 16 hex digits.
    pub fn digest(&self) -> String {
        digest(self)
    }
}

/// SHA-256 over the JSON of a value whose maps are ordered, the first 16 hex digits.
pub fn digest<T: Serialize>(value: &T) -> String {
    // Serialising our own plain types to memory has no failing case; an empty text would only mean "changed".
    let json = serde_json::to_vec(value).unwrap_or_default();
    data_encoding::HEXLOWER.encode(&Sha256::digest(json)[..8])
}

/// A port of an instance that machines publish.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Address of the machines to bind; `None`: all.
    pub host_ip: Option<std::net::IpAddr>,
    /// Port of the machine.
    pub published: u16,
    /// Port of the instance.
    pub target: u16,
    /// Protocol.
    pub protocol: PortProtocol,
    /// Which machines.
    #[serde(default)]
    pub publish: Publish,
}

impl Port {
    /// Whether a machine cannot publish both for two services: the same port of the same addresses, and not each only
    /// beside its own instances.
    pub fn overlaps(&self, other: &Self) -> bool {
        let addresses = [self.host_ip, other.host_ip];
        (self.published, self.protocol) == (other.published, other.protocol)
            && (addresses.contains(&None) || self.host_ip == other.host_ip)
            && (self.publish == Publish::Cluster || other.publish == Publish::Cluster)
    }

    /// The machines' side of it, as `8080/tcp`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.published, self.protocol.as_str())
    }
}

impl std::fmt::Display for Port {
    /// As Docker writes it: `8080:80/tcp`, `127.0.0.1:8080:80/tcp`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host_ip {
            Some(std::net::IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        write!(f, "{}:{}/{}", self.published, self.target, self.protocol.as_str())
    }
}

/// Which machines publish a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Publish {
    /// All of them: each forwards to an instance, wherever it is.
    #[default]
    Cluster,
    /// Those that run an instance, to that instance.
    Node,
}

/// Protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl PortProtocol {
    /// As Docker writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A Compose healthcheck, run by Docker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Healthcheck {
    /// As Docker takes it: `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    /// Between two checks.
    pub interval_ms: Option<Millis>,
    /// Of one check.
    pub timeout_ms: Option<Millis>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
    /// Failures in this time after the start do not count.
    pub start_period_ms: Option<Millis>,
}

/// What to do when an instance exits by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartPolicy {
    /// When to start it again.
    #[serde(default)]
    pub condition: RestartCondition,
    /// The first pause; `None`: one second. It doubles with every exit.
    #[serde(default)]
    pub delay_ms: Option<Millis>,
    /// After so many restarts it is left failed; `None`: never.
    #[serde(default)]
    pub max_attempts: Option<u32>,
}

/// When an instance that exited is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Always.
    #[default]
    Any,
    /// When it exited with another code than 0.
    OnFailure,
    /// Never.
    None,
}

/// A placement constraint: `node.labels.disk == ssd`, `node.name != attic`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    /// Which property of the machine.
    pub attribute: Attribute,
    /// `true`: must be equal; `false`: must differ.
    pub equal: bool,
    /// To what.
    pub value: String,
}

impl std::fmt::Display for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let op = if self.equal { "==" } else { "!=" };
        match &self.attribute {
            Attribute::Name => write!(f, "node.name {op} {}", self.value),
            Attribute::Id => write!(f, "node.id {op} {}", self.value),
            Attribute::Os => write!(f, "node.platform.os {op} {}", self.value),
            Attribute::Arch => write!(f, "node.platform.arch {op} {}", self.value),
            Attribute::Label(label) => write!(f, "node.labels.{label} {op} {}", self.value),
        }
    }
}

/// A property of a machine that a constraint can name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribute {
    /// Its name (`node.name` or `node.hostname`).
    Name,
    /// Its peer id.
    Id,
    /// Its operating system.
    Os,
    /// Its architecture, as Docker names it (`amd64`, `arm64`).
    Arch,
    /// A label given with `--label`. A label that is not there equals nothing.
    Label(String),
}

/// How far a service that another depends on must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dependency {
    /// An instance runs.
    #[default]
    ServiceStarted,
    /// An instance's healthcheck passes.
    ServiceHealthy,
    /// An instance ran and exited with code 0.
    ServiceCompletedSuccessfully,
}

/// What the sides of a network partition do with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPartition {
    /// Each side runs it.
    #[default]
    Available,
}
