//! What a user asks for: services, as a Compose file describes them.

mod mounts;
mod ports;
mod settings;
mod update;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Millis, Name, Resources, ServiceKey};

pub use mounts::{FileContent, FileId, FileKind, FileMount, MAX_FILE_BYTES, Mount};
pub use ports::{Expose, Port, PortProtocol, Publish};
pub use settings::Settings;
pub use update::{FailureAction, UpdateOrder, UpdatePolicy};

/// The largest number of replicas one service may ask for.
pub const MAX_REPLICAS: u32 = 1000;
/// The largest encoded service, in bytes: it travels in one change.
pub const MAX_SPEC_BYTES: usize = 256 * 1024;

/// A service: what to run, and where it may run. How many is [`Deployment::replicas`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// What each instance runs.
    pub container: ContainerSpec,
    /// What a node must offer.
    #[serde(default)]
    pub constraints: Vec<Constraint>,
    /// Services of the same project that must run before an instance starts.
    #[serde(default)]
    pub depends_on: BTreeMap<Name, Dependency>,
    /// What the sides of a partition do.
    #[serde(default)]
    pub on_partition: OnPartition,
    /// Ports that nodes publish for it. A change of these leaves its containers alone.
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
    pub force_update: u64,
}

/// Docker's default grace.
fn default_grace() -> Millis {
    10_000
}

impl ContainerSpec {
    /// Whether it has a healthcheck: one whose test is `NONE` only takes the image's away.
    pub fn has_healthcheck(&self) -> bool {
        let test = self.healthcheck.as_ref().and_then(|check| check.test.first());
        test.is_some_and(|kind| kind != "NONE")
    }

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
    /// Which property of the node.
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

/// A property of a node that a constraint can name.
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
