//! Service specs, as a Compose file describes them.

mod cgroup;
mod devices;
mod disconnect;
mod mode;
mod mounts;
mod namespaces;
mod networks;
mod policy;
mod ports;
mod privileges;
mod schedule;
mod settings;
mod update;
pub mod validate;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::stored::Stored;
use crate::volume::VolumeSpec;
use crate::{Millis, Name, Resources, ServiceKey};

pub use cgroup::{Blkio, Cgroup};
pub use devices::{ALL, CDI, DeviceRequest, GPU};
pub use disconnect::{DisconnectPolicy, Reconcile};
pub use mode::ServiceMode;
pub use mounts::{FileContent, FileId, FileKind, FileMount, MAX_FILE_BYTES, Mount};
pub use namespaces::{CgroupNamespace, IpcNamespace, Namespaces};
pub use networks::{DEFAULT_NETWORK, NetworkMode};
pub use policy::{MAX_HOST_PATHS, PolicyError, ProjectPolicy};
pub use ports::{
    DYNAMIC_PORTS, DynamicPort, Expose, Port, PortProtocol, ProxyProtocol, Publish,
    port_of_address, share_an_address, split_port_of_address,
};
pub use privileges::Privilege;
pub use schedule::{MAX_KEPT_RUNS, Overlap, Schedule, ScheduleError, Timetable};
pub use settings::Settings;
pub use update::{FailureAction, UpdateOrder, UpdatePolicy};
pub use validate::SpecError;

/// The most replicas of one service.
pub const MAX_REPLICAS: u32 = 1000;
/// The largest encoded service, in bytes; it has to fit into one change.
pub const MAX_SPEC_BYTES: usize = 256 * 1024;

/// A service: what to run and where. The number of replicas is [`Deployment::replicas`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// The container of each instance.
    pub container: ContainerSpec,
    /// Which slots it has. Rules of placement from version 6 on read it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: ServiceMode,
    /// How many slots of a replicated job run at a time; 0 for all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_concurrent: u32,
    /// How many of its replicas a node may run; 0 for any number. Without effect where there is one for each node. Rules of placement from
    /// version 7 on read it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_replicas_per_node: u32,
    /// When it runs, for a replicated job: it has a slot for each time, whose number is the time in seconds since 1970.
    #[serde(default, skip_serializing_if = "is_default")]
    pub schedule: Option<Schedule>,
    /// Constraints on the node.
    #[serde(default, skip_serializing_if = "is_default")]
    pub constraints: Vec<Constraint>,
    /// How many each replica takes of resources that nodes count, by kind. Rules of placement from version 7 on read it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub generic_resources: BTreeMap<String, u64>,
    /// Services of the same project that an instance waits for before it starts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub depends_on: BTreeMap<Name, Dependency>,
    /// Behaviour during a network partition; `None` for the default of [`is_exclusive`](Self::is_exclusive). A member from before
    /// `exclusive` holds a service that says it, and leaves out an `available` when it writes the service anew.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_partition: Option<OnPartition>,
    /// How the volumes that it mounts are kept, as far as the file says so. Services of one file say the same of a volume.
    #[serde(default, skip_serializing_if = "is_default")]
    pub volumes: BTreeMap<Name, VolumeSpec>,
    /// Published ports. Changing them does not replace instances.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ports: Vec<Port>,
    /// Ports whose published side a deployment chooses. Those that it has chosen are in `ports`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dynamic_ports: Vec<DynamicPort>,
    /// Ports that are reachable inside the project without being published. All TCP ports are reachable under the service's
    /// name; a UDP port only if it is listed here or in `ports`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub expose: Vec<Expose>,
    /// How an update replaces instances.
    #[serde(default)]
    pub update: UpdatePolicy,
    /// How a node is chosen among those with room. Rules of placement from version 2 on read it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub placement: PlacementPolicy,
    /// What happens to the slots of nodes that are down or isolated.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disconnect: DisconnectPolicy,
    /// Whether a deployment asks the registry which image the reference names.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pull_policy: PullPolicy,
}

impl ServiceSpec {
    /// Returns whether each slot has at most one instance at any time, under a lease: as configured, otherwise if a named volume
    /// is mounted writable.
    pub fn is_exclusive(&self) -> bool {
        match self.on_partition {
            Some(said) => said == OnPartition::Exclusive,
            None => self.written_volumes().next().is_some(),
        }
    }

    /// Returns whether nothing runs twice for one time of its schedule.
    pub fn runs_at_most_once(&self) -> bool {
        self.schedule.as_ref().is_some_and(|it| it.at_most_once)
    }

    /// Returns whether an update starts the new instance before it stops the old one: never for an exclusive service, else as
    /// configured, otherwise if the instances share neither a writable mount nor a network on which both would listen, and a node may
    /// run any number of them.
    pub fn starts_first(&self) -> bool {
        match self.update.order {
            // A run that has begun is not begun beside it.
            _ if self.is_exclusive() || self.mode.is_job() => false,
            Some(order) => order == UpdateOrder::StartFirst,
            None => {
                let binds_ports = matches!(
                    self.container.network_mode,
                    Some(NetworkMode::Host | NetworkMode::Service(_))
                );
                !binds_ports
                    && self.max_replicas_per_node == 0
                    && !self.container.mounts.iter().any(Mount::is_shared)
            }
        }
    }

    /// Returns how many each replica takes of resources that nodes count: what it says, and the devices that it requests of other
    /// kinds, as far as these are counted. [`ALL`] stands for all that a node has.
    pub fn needs(&self, is_counted: impl Fn(&str) -> bool) -> BTreeMap<String, u64> {
        let mut needs = BTreeMap::new();
        let requests = &self.container.settings.device_requests;
        let devices = requests.iter().flat_map(DeviceRequest::kinds);
        for (kind, count) in devices.filter(|(kind, _)| is_counted(kind)) {
            let need: &mut u64 = needs.entry(kind.to_owned()).or_default();
            *need = need.saturating_add(count);
        }
        needs.extend(self.generic_resources.clone());
        needs
    }

    /// Returns the named volumes.
    pub fn volumes(&self) -> impl Iterator<Item = &Name> {
        self.container.mounts.iter().filter_map(|mount| match mount {
            Mount::Volume { name, .. } => Some(name),
            _ => None,
        })
    }

    /// Returns whether a volume is a network file system, which every node mounts.
    pub fn is_network_volume(&self, name: &Name) -> bool {
        self.volumes.get(name).is_some_and(|spec| spec.driver.is_some())
    }

    /// Returns the named volumes that are mounted writable.
    pub fn written_volumes(&self) -> impl Iterator<Item = &Name> {
        self.container.mounts.iter().filter_map(|mount| match mount {
            Mount::Volume { name, read_only: false, .. } => Some(name),
            _ => None,
        })
    }
}

/// How a node is chosen for a new slot among those with room and equally few replicas of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlacementPolicy {
    /// Large reservations are packed, small ones are spread.
    #[default]
    Auto,
    /// The node with the least room left, so that room for large services stays elsewhere.
    Pack,
    /// The least loaded node.
    Spread,
}

/// Whether a deployment of a service asks the registry which image its reference names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// Only if the cluster does not know it.
    #[default]
    Missing,
    /// Each time.
    Always,
}

/// A service to deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// The service as `project/service`.
    pub service: ServiceKey,
    /// Number of replicas; `None` for the present number, or 1 for a new service.
    pub replicas: Option<u32>,
    /// The spec to deploy. A node refuses one with fields that it does not know.
    pub spec: Stored<ServiceSpec>,
}

/// The container of an instance. A different value is a different instance, identified by its [`digest`](Self::digest).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Image reference. The process runtime does not read it.
    pub image: String,
    /// Image id (`sha256:…`), pinned at deployment so that every replica runs the same image; `None` if no node had the
    /// image then.
    #[serde(default, skip_serializing_if = "is_default")]
    pub image_id: Option<String>,
    /// Overrides the image's command; the program and its arguments on the process runtime.
    #[serde(default, skip_serializing_if = "is_default")]
    pub command: Option<Vec<String>>,
    /// Overrides the image's entrypoint.
    #[serde(default, skip_serializing_if = "is_default")]
    pub entrypoint: Option<Vec<String>>,
    /// Environment variables of the container.
    #[serde(default, skip_serializing_if = "is_default")]
    pub environment: BTreeMap<String, String>,
    /// Labels of the container.
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Healthcheck; `None` for that of the image.
    #[serde(default, skip_serializing_if = "is_default")]
    pub healthcheck: Option<Healthcheck>,
    /// Time from SIGTERM to SIGKILL.
    #[serde(default = "default_grace", skip_serializing_if = "is_default_grace")]
    pub stop_grace_ms: Millis,
    /// Reserved resources, for placement.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reservation: Resources,
    /// Resource limits; zero for none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limit: Resources,
    /// Required `os/arch`, such as `linux/amd64`; `None` for any.
    #[serde(default, skip_serializing_if = "is_default")]
    pub platform: Option<String>,
    /// What happens when the instance exits.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: RestartPolicy,
    /// Working directory; `None` for that of the image.
    #[serde(default, skip_serializing_if = "is_default")]
    pub working_dir: Option<String>,
    /// User and optional group to run as; `None` for that of the image.
    #[serde(default, skip_serializing_if = "is_default")]
    pub user: Option<String>,
    /// Networks of the project that it is attached to, each with its aliases beside the service's name. See
    /// [`networks`](Self::networks).
    #[serde(default, skip_serializing_if = "is_default")]
    pub networks: BTreeMap<Name, BTreeSet<String>>,
    /// Networks that projects share, in the same way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shared_networks: BTreeMap<Name, BTreeSet<String>>,
    /// Those of the project's networks from which nothing outside of them is reached.
    #[serde(default, skip_serializing_if = "is_default")]
    pub internal_networks: BTreeSet<Name>,
    /// What it has instead of networks of its own; `None` for those above.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network_mode: Option<NetworkMode>,
    /// Volumes, bind mounts and tmpfs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// The host paths below which the bind mounts must be on the host, with symbolic links resolved; empty for anywhere. Set by
    /// the node for deployments that a project's policy allows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host_path_roots: BTreeSet<String>,
    /// Sources of bind mounts that are made, as directories, where the host does not have them; not where `host_path_roots` limits
    /// the mounts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub created_host_paths: BTreeSet<String>,
    /// Secrets and configs to mount.
    #[serde(default, skip_serializing_if = "is_default")]
    pub files: Vec<FileMount>,
    /// Settings that are passed to Docker.
    #[serde(default, skip_serializing_if = "is_default")]
    pub settings: Settings,
    /// Whether it starts only when a client attaches to it, and is stopped when that client is gone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attach: bool,
    /// Counter of `vc restart`: a new number makes new instances, as Docker Swarm's `ForceUpdate` does.
    #[serde(default, skip_serializing_if = "is_default")]
    pub force_update: u64,
}

/// Docker's default stop grace period.
fn default_grace() -> Millis {
    10_000
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_default_grace(grace: &Millis) -> bool {
    *grace == default_grace()
}

/// Returns whether a field is at its default and so is left out of the JSON. A field that a later version adds has to be
/// left out where it is not used: versions that do not know it would hold the service.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl ContainerSpec {
    /// Returns whether it has a healthcheck of its own; the test `NONE` only disables that of the image.
    pub fn has_healthcheck(&self) -> bool {
        let test = self.healthcheck.as_ref().and_then(|check| check.test.first());
        test.is_some_and(|kind| kind != "NONE")
    }

    /// Returns the digest of the container spec, see [`digest`].
    pub fn digest(&self) -> String {
        digest(self)
    }
}

impl Stored<ServiceSpec> {
    /// Returns the digest of the container spec with the fields that this version does not know, see [`digest`].
    pub fn container_digest(&self) -> String {
        digest(&self.field("container"))
    }
}

/// Returns the first 16 hex digits of SHA-256 over the canonical JSON of a value: fields that are at their default are left
/// out, keys are sorted, without whitespace.
pub fn digest<T: Serialize>(value: &T) -> String {
    let mut text = String::new();
    // Serializing plain types to memory cannot fail; an empty text would only mean "changed".
    write_canonical(&serde_json::to_value(value).unwrap_or_default(), &mut text);
    data_encoding::HEXLOWER.encode(&Sha256::digest(text)[..8])
}

/// Writes JSON with sorted keys; the order of `serde_json`'s maps depends on its features.
fn write_canonical(value: &Value, to: &mut String) {
    let mut list =
        |open: char, close: char, items: &mut dyn Iterator<Item = (Option<&String>, &Value)>| {
            to.push(open);
            for (index, (key, value)) in items.enumerate() {
                if index > 0 {
                    to.push(',');
                }
                if let Some(key) = key {
                    to.push_str(&Value::String(key.clone()).to_string());
                    to.push(':');
                }
                write_canonical(value, to);
            }
            to.push(close);
        };
    match value {
        Value::Array(items) => list('[', ']', &mut items.iter().map(|item| (None, item))),
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            list('{', '}', &mut sorted.into_iter().map(|(key, value)| (Some(key), value)));
        }
        scalar => to.push_str(&scalar.to_string()),
    }
}

/// A healthcheck in the terms of Compose, run by Docker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    /// Test command in Docker's form: `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`; empty for that of the image.
    pub test: Vec<String>,
    /// Time between two checks; `None` for the default of Docker.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interval_ms: Option<Millis>,
    /// Timeout of one check; `None` for the default of Docker.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeout_ms: Option<Millis>,
    /// Consecutive failures that make it unhealthy; `None` for the default of Docker.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retries: Option<u32>,
    /// Time after the start in which failures do not count; `None` for the default of Docker.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start_period_ms: Option<Millis>,
    /// Time between two checks in that time; `None` for the interval. Engines before Docker 25 do not know it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start_interval_ms: Option<Millis>,
}

/// What happens when an instance exits by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// When it is restarted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub condition: RestartCondition,
    /// Delay of the first restart, which doubles with every exit; `None` for 1 s.
    #[serde(default, skip_serializing_if = "is_default")]
    pub delay_ms: Option<Millis>,
    /// Number of restarts after which it stays failed; `None` for no limit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_attempts: Option<u32>,
}

/// When an instance that exited is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// After any exit.
    #[default]
    Any,
    /// After an exit code other than 0.
    OnFailure,
    /// It is not restarted.
    None,
}

/// A placement constraint: `node.labels.disk == ssd`, `node.name != attic`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Constraint {
    /// The attribute of the node.
    pub attribute: Attribute,
    /// `true` for `==`, `false` for `!=`.
    pub equal: bool,
    /// The value to compare with.
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

/// An attribute of a node that a constraint can name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribute {
    /// Name (`node.name` or `node.hostname`).
    Name,
    /// Peer id (`node.id`).
    Id,
    /// Operating system (`node.platform.os`).
    Os,
    /// Architecture in Docker's spelling, `amd64` (`node.platform.arch`).
    Arch,
    /// A label (`node.labels.NAME`). A missing label equals no value.
    Label(String),
}

/// The state that a dependency must reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dependency {
    /// An instance is running.
    #[default]
    ServiceStarted,
    /// An instance's healthcheck passes.
    ServiceHealthy,
    /// An instance exited with code 0.
    ServiceCompletedSuccessfully,
}

/// The behaviour of a service during a network partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPartition {
    /// Each side of the partition runs it.
    Available,
    /// At most one instance of a slot at any time: it runs only while its node holds a lease that most voters granted.
    Exclusive,
}

impl OnPartition {
    /// Returns the word of specs, rows and Compose files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Exclusive => "exclusive",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The digests decide which instances are replaced: a version that computes another one restarts every container.
    #[test]
    fn digests_of_container_specs_are_frozen() {
        let small = ContainerSpec { image: "web:1".to_owned(), ..ContainerSpec::default() };
        assert_eq!(small.digest(), "69e76beff21f140d");
        let large: ContainerSpec =
            serde_json::from_str(include_str!("../tests/golden/container.json"))
                .expect("a container spec");
        assert_eq!(large.digest(), "74648f7cd0350118");
    }

    #[test]
    fn a_field_that_is_not_used_is_not_written() {
        let spec = ServiceSpec::default();
        let json = serde_json::to_value(&spec).expect("JSON");
        let fields: Vec<&String> = json.as_object().expect("an object").keys().collect();
        assert_eq!(fields, ["container", "update"]);
        assert_eq!(json["container"], json!({"image": "", "stop_grace_ms": 0}));
    }

    fn with_volume(on_partition: Option<&str>, read_only: bool) -> ServiceSpec {
        let volume = json!({"volume": {"name": "data", "target": "/data", "read_only": read_only}});
        let mut spec = json!({"container": {"image": "db:1", "mounts": [volume]}});
        if let Some(word) = on_partition {
            spec["on_partition"] = json!(word);
        }
        serde_json::from_value(spec).expect("a spec")
    }

    #[test]
    fn a_service_is_exclusive_where_it_says_so_or_writes_a_volume() {
        let cases = [
            (None, false, true),
            (None, true, false),
            (Some("available"), false, false),
            (Some("available"), true, false),
            (Some("exclusive"), false, true),
            (Some("exclusive"), true, true),
        ];
        for (said, read_only, exclusive) in cases {
            let mut spec = with_volume(said, read_only);
            assert_eq!(spec.is_exclusive(), exclusive, "{said:?} {read_only}");
            spec.update.order = Some(UpdateOrder::StartFirst);
            assert_eq!(spec.starts_first(), !exclusive, "{said:?} {read_only}");
        }
        assert!(!ServiceSpec::default().is_exclusive());
        assert!(ServiceSpec::default().starts_first());
    }

    #[test]
    fn what_is_said_about_partitions_is_written_and_what_is_not_said_is_not() {
        for said in [None, Some("available"), Some("exclusive")] {
            let json = serde_json::to_value(with_volume(said, false)).expect("JSON");
            assert_eq!(json.get("on_partition"), said.map(|it| json!(it)).as_ref());
        }
    }

    #[test]
    fn versions_that_do_not_know_a_field_compute_the_same_digest() {
        let json = json!({"container": {"image": "web:1", "gpus": {"b": 1, "a": [true, null]}}});
        let spec: Stored<ServiceSpec> = serde_json::from_value(json).expect("readable");
        let canonical = r#"{"gpus":{"a":[true,null],"b":1},"image":"web:1"}"#;
        let expected = data_encoding::HEXLOWER.encode(&Sha256::digest(canonical)[..8]);
        assert_eq!(spec.container_digest(), expected);
        assert_ne!(spec.container.digest(), expected);
    }
}
