//! What the documents hold, as plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vc_protocol::instance::Claim;
use vc_protocol::node::NodeInfo;
use vc_protocol::spec::{FileId, FileKind, ServiceSpec};
use vc_protocol::{InstanceId, Millis, Name, NodeId, ServiceKey, Slot, VolumeKey};

use crate::document::{Document, Edit, Schema};

/// A service as it stands in the cluster document. How many replicas stands apart, so that `scale` and `deploy` by two
/// operators at the same moment both hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// What it is.
    pub spec: ServiceSpec,
    /// What it was when it last was as it should be: an update that fails goes back there. `None`: it is new.
    #[serde(default)]
    pub previous: Option<ServiceSpec>,
    /// When it was deployed, by the clock of the node that took the command. It grows with every deployment, so it also
    /// tells one revision from another.
    pub updated: Millis,
    /// By whom.
    pub deployed_by: String,
}

/// What users want.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterState {
    /// Services.
    pub services: BTreeMap<ServiceKey, ServiceRecord>,
    /// Replicas wanted of each; a service without an entry wants one.
    pub scale: BTreeMap<ServiceKey, u32>,
    /// Nodes to keep free.
    pub drained: BTreeMap<NodeId, bool>,
    /// Nodes that left for good, and when.
    pub left: BTreeMap<NodeId, Millis>,
    /// Instances that were told to move.
    pub moves: BTreeMap<Slot, MoveOrder>,
    /// Secrets and configs, by [`FileKey`].
    pub files: BTreeMap<FileKey, SealedFile>,
    /// Images that were pushed, by reference.
    pub images: BTreeMap<String, ImageRecord>,
    /// Volumes whose data was given up, and when: what a node has held since before is to be removed there.
    pub tombstones: BTreeMap<VolumeKey, Millis>,
}

/// An order to move a slot from one node to another. It holds while the first claims the slot since before `at`, and
/// is void for ever after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveOrder {
    /// From where.
    pub from: NodeId,
    /// To where.
    pub to: NodeId,
    /// When it was given.
    pub ordered_at: Millis,
}

/// One content of a secret or config: `project/kind/version/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileKey {
    /// The project.
    pub project: Name,
    /// Which file.
    pub file: FileId,
    /// Which content: see [`FileMount::version`](vc_protocol::spec::FileMount::version).
    pub version: String,
}

impl std::fmt::Display for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.file.kind {
            FileKind::Secret => "secret",
            FileKind::Config => "config",
        };
        write!(f, "{}/{kind}/{}/{}", self.project, self.version, self.file.name)
    }
}

impl FromStr for FileKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is no file");
        let mut parts = text.splitn(4, '/');
        let mut part = || parts.next().ok_or_else(bad);
        let (project, kind, version, name) = (part()?, part()?, part()?, part()?);
        let kind = match kind {
            "secret" => FileKind::Secret,
            "config" => FileKind::Config,
            _ => return Err(bad()),
        };
        Ok(Self {
            project: project.parse().map_err(|_| bad())?,
            file: FileId { kind, name: name.to_owned() },
            version: version.to_owned(),
        })
    }
}

/// A file as the documents hold it: only members can open it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedFile {
    /// Nonce and ciphertext (XChaCha20-Poly1305), base64.
    pub sealed: String,
}

impl std::fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedFile({} characters)", self.sealed.len())
    }
}

/// An image that a user pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its id, `sha256:…`.
    pub id: String,
    /// Bytes, uncompressed.
    pub size: u64,
    /// When.
    pub pushed: Millis,
}

/// What a node saw of the update of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateResult {
    /// [`ServiceRecord::updated`] of the deployment it is about.
    pub revision: Millis,
    /// Why it failed; `None`: every instance has proven itself.
    pub failed: Option<String>,
}

/// What one node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeState {
    /// Grows at each start, and whenever it finds itself called unreachable.
    pub incarnation: u64,
    /// Its stable facts; `None` until it has said so.
    pub info: Option<NodeInfo>,
    /// Why its runtime does not answer; `None`: it does.
    pub runtime_error: Option<String>,
    /// The instances that it runs.
    pub claims: BTreeMap<InstanceId, Claim>,
    /// The named volumes whose data it holds, and since when.
    pub volumes: BTreeMap<VolumeKey, Millis>,
    /// What became of updates, as far as it has seen their end.
    pub update_results: BTreeMap<ServiceKey, UpdateResult>,
    /// Ports that it cannot publish (`8080/tcp`), and why.
    pub ports: BTreeMap<String, String>,
    /// The nodes that it cannot reach, with the incarnation that it could not reach.
    pub unreachable: BTreeMap<NodeId, u64>,
    /// The nodes that it has observed since it started: of the others it cannot say that they are there.
    pub observed: BTreeSet<NodeId>,
}

pub(crate) const CLUSTER: Schema =
    Schema(&["services", "scale", "drained", "left", "moves", "files", "images", "tombstones"]);
pub(crate) const NODE: Schema =
    Schema(&["self", "claims", "unreachable", "observed", "volumes", "update_results", "ports"]);

impl ClusterState {
    pub(crate) fn read(document: &Document) -> Self {
        Self {
            services: read_map(document, "services"),
            scale: read_map(document, "scale"),
            drained: read_map(document, "drained"),
            left: read_map(document, "left"),
            moves: read_map(document, "moves"),
            files: read_map(document, "files"),
            images: read_map(document, "images"),
            tombstones: read_map(document, "tombstones"),
        }
    }

    /// The edits that turn `self` into `wanted`, and nothing else: what others write at the same time stays.
    pub(crate) fn edits(&self, wanted: &Self) -> Vec<Edit> {
        let mut edits = Vec::new();
        diff("services", &self.services, &wanted.services, &mut edits);
        diff("scale", &self.scale, &wanted.scale, &mut edits);
        diff("drained", &self.drained, &wanted.drained, &mut edits);
        diff("left", &self.left, &wanted.left, &mut edits);
        diff("moves", &self.moves, &wanted.moves, &mut edits);
        diff("files", &self.files, &wanted.files, &mut edits);
        diff("images", &self.images, &wanted.images, &mut edits);
        diff("tombstones", &self.tombstones, &wanted.tombstones, &mut edits);
        edits
    }

    /// Replicas wanted of a service.
    pub fn replicas(&self, service: &ServiceKey) -> u32 {
        self.scale.get(service).copied().unwrap_or(1)
    }
}

impl NodeState {
    pub(crate) fn read(document: &Document) -> Self {
        let own = document.map("self");
        Self {
            incarnation: own.get("incarnation").and_then(|v| parse(v)).unwrap_or(0),
            info: own.get("info").and_then(|v| parse(v)),
            runtime_error: own.get("runtime_error").and_then(|v| parse(v)),
            claims: read_map(document, "claims"),
            unreachable: read_map(document, "unreachable"),
            observed: read_map::<_, bool>(document, "observed").into_keys().collect(),
            volumes: read_map(document, "volumes"),
            update_results: read_map(document, "update_results"),
            ports: read_map(document, "ports"),
        }
    }

    pub(crate) fn edits(&self, wanted: &Self) -> Vec<Edit> {
        let facts = |state: &Self| -> BTreeMap<String, Option<String>> {
            BTreeMap::from([
                ("incarnation".to_owned(), Some(json(&state.incarnation))),
                ("info".to_owned(), state.info.as_ref().map(json)),
                ("runtime_error".to_owned(), state.runtime_error.as_ref().map(json)),
            ])
        };
        let mut edits: Vec<Edit> = facts(wanted)
            .into_iter()
            .map(|(key, value)| Edit { map: "self", key, value })
            .collect();
        diff("claims", &self.claims, &wanted.claims, &mut edits);
        diff("unreachable", &self.unreachable, &wanted.unreachable, &mut edits);
        diff("volumes", &self.volumes, &wanted.volumes, &mut edits);
        diff("update_results", &self.update_results, &wanted.update_results, &mut edits);
        diff("ports", &self.ports, &wanted.ports, &mut edits);
        let flags =
            |of: &Self| of.observed.iter().map(|&node| (node, true)).collect::<BTreeMap<_, _>>();
        diff("observed", &flags(self), &flags(wanted), &mut edits);
        edits
    }
}

/// Entries that do not read are left out, on every node alike: they come from a version that knows more.
fn read_map<K: FromStr + Ord, V: DeserializeOwned>(
    document: &Document,
    map: &str,
) -> BTreeMap<K, V> {
    document
        .map(map)
        .iter()
        .filter_map(|(key, value)| Some((key.parse().ok()?, parse(value)?)))
        .collect()
}

fn diff<K: ToString + Ord, V: Serialize + PartialEq>(
    map: &'static str,
    held: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
    edits: &mut Vec<Edit>,
) {
    let gone = held.keys().filter(|key| !wanted.contains_key(key));
    edits.extend(gone.map(|key| Edit { map, key: key.to_string(), value: None }));
    let new = wanted.iter().filter(|(key, value)| held.get(key) != Some(value));
    edits.extend(new.map(|(key, value)| Edit {
        map,
        key: key.to_string(),
        value: Some(json(value)),
    }));
}

/// The plain types here have no value that JSON cannot hold.
fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn parse<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}
