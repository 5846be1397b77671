//! The contents of the documents as plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vc_protocol::change::DocumentId;
use vc_protocol::instance::Claim;
use vc_protocol::lease::VoterSet;
use vc_protocol::node::{Faults, Holds, NodeInfo, Orphans};
use vc_protocol::run::{DueRecord, RunRecord};
use vc_protocol::spec::{FileId, FileKind, ProjectPolicy, ServiceSpec};
use vc_protocol::token::{Scope, UserLimits};
use vc_protocol::volume::VolumeCopy;
use vc_protocol::{
    InstanceId, Lamport, Millis, Name, NodeId, ServiceKey, Slot, Stored, TraceId, VolumeKey,
};

use crate::document::{Document, Edit};
use crate::history::{VersionKey, VersionRecord};
use crate::received::{EntryError, UnreadableEntry};
use crate::receivers::{AlertKey, AlertRecord, Receiver};
use crate::trust::{TrustEntry, TrustKey};
use crate::voters::{self, VoterEntry, VoterKey};

/// A deployed service. The number of replicas is stored separately, so that a `scale` and a `deploy` by two operators at
/// the same time both take effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// The deployed spec.
    pub spec: Stored<ServiceSpec>,
    /// The last spec that was completely rolled out: the target of a rollback. `None` for a new service.
    #[serde(default)]
    pub previous: Option<Stored<ServiceSpec>>,
    /// Identifies the deployment together with the digest of its container: two operators who deploy at the same time may
    /// get one number.
    pub revision: Lamport,
    /// Time of the deployment, by the clock of the node that took the command; for display.
    pub updated: Millis,
    /// Name of the user that deployed it.
    pub deployed_by: String,
    /// Names what follows from the deployment in the logs of all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceId>,
}

/// The cluster document: what users asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterState {
    /// Deployed services.
    pub services: BTreeMap<ServiceKey, Stored<ServiceRecord>>,
    /// Number of replicas; 1 for a service without an entry.
    pub scale: BTreeMap<ServiceKey, u32>,
    /// Nodes that are drained (`true`).
    pub drained: BTreeMap<NodeId, bool>,
    /// Nodes that left the cluster for good, with the time.
    pub left: BTreeMap<NodeId, Millis>,
    /// Orders to move a slot to another node.
    pub moves: BTreeMap<Slot, MoveOrder>,
    /// Encrypted secrets and configs.
    pub files: BTreeMap<FileKey, SealedFile>,
    /// Pushed images, by reference.
    pub images: BTreeMap<String, ImageRecord>,
    /// Removed volumes. Nodes delete data of the volume that is older.
    pub tombstones: BTreeMap<VolumeKey, Tombstone>,
    /// Tokens that were issued, by their ids; those that have expired are left out in time. Since schema 2.
    pub tokens: BTreeMap<String, TokenRecord>,
    /// Tokens that are refused although they have not expired. Since schema 2.
    pub revocations: BTreeMap<RevocationKey, Revocation>,
    /// Nodes that joined, with the token. Since schema 3.
    pub joins: BTreeMap<JoinKey, JoinRecord>,
    /// What the services of projects may use without an admin. Since schema 3.
    pub projects: BTreeMap<Name, Stored<ProjectPolicy>>,
    /// The signing keys, and the certificates that they signed for the nodes of before. Since schema 3.
    pub trust: BTreeMap<TrustKey, TrustEntry>,
    /// The voters that grant leases, and what people want of them. Since schema 5.
    pub voters: BTreeMap<VoterKey, VoterEntry>,
    /// Receivers of alerts, by their names. Since schema 7.
    pub receivers: BTreeMap<Name, Stored<Receiver>>,
    /// The alerts that receivers have, and whose end they do not have. Since schema 7.
    pub alerts: BTreeMap<AlertKey, Stored<AlertRecord>>,
    /// Versions of services that later ones have replaced; shared, as views are cloned often. Since schema 4.
    pub history: Arc<BTreeMap<VersionKey, Stored<VersionRecord>>>,
}

/// A tombstone: the removal of a volume, kept so that nodes that learn of it later delete its data too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// When the volume was removed.
    pub lamport: Lamport,
    /// The same by the clock of the node that took the command; for display.
    pub at: Millis,
    /// Whether the volume is only forgotten: nodes keep its data aside. Older versions would delete it
    /// ([`Supports::forgets`](vc_protocol::Supports::forgets)).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forgotten: bool,
}

/// The data of a volume on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// When the node got the data.
    pub lamport: Lamport,
    /// The same by the node's clock; for display.
    pub since: Millis,
    /// When the node began to write it last; 0 if it never did.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub begun: Lamport,
    /// What is there. `None` from a version without snapshots, or before the first: the data, as instances write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<VolumeCopy>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An order to move a slot from one node to another. It is in effect while `from` has a claim on the slot that is older than
/// the order, and void afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveOrder {
    /// The node that runs the slot.
    pub from: NodeId,
    /// The node that should run it.
    pub to: NodeId,
    /// When it was ordered.
    pub lamport: Lamport,
}

/// Identifies one content of a secret or config: `project/kind/version/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileKey {
    /// The Compose project.
    pub project: Name,
    /// Kind and name of the file.
    pub file: FileId,
    /// Identifies the content, see [`FileMount::version`](vc_protocol::spec::FileMount::version).
    pub version: String,
}

impl Display for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.file.kind {
            FileKind::Secret => "secret",
            FileKind::Config => "config",
        };
        write!(f, "{}/{kind}/{}/{}", self.project, self.version, self.file.name)
    }
}

/// The text is not a [`FileKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the key of a file: expected project/secret|config/version/name")]
pub struct ParseFileKeyError(String);

impl FromStr for FileKey {
    type Err = ParseFileKeyError;
    fn from_str(text: &str) -> Result<Self, ParseFileKeyError> {
        let bad = || ParseFileKeyError(text.to_owned());
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

/// An encrypted file. All servers have the key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedFile {
    /// Nonce (24 bytes) and ciphertext (XChaCha20-Poly1305), base64.
    pub sealed: String,
}

impl std::fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedFile({} characters)", self.sealed.len())
    }
}

/// An image that a user pushed to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Image id, `sha256:…`.
    pub id: String,
    /// Uncompressed size in bytes.
    pub size: u64,
    /// Time of the push.
    pub pushed: Millis,
    /// The projects of the token that pushed it, for whose services alone the reference means this image; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projects: Option<BTreeSet<Name>>,
}

/// A token that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Name of the user, or of the node that may join.
    pub name: String,
    /// What it permits.
    pub scope: Scope,
    /// Name of the user who asked for it.
    pub issued_by: String,
    /// When it was issued.
    pub issued: Millis,
    /// When it expires.
    pub expires: Millis,
    /// Limits of a user. Since schema 3.
    #[serde(flatten)]
    pub limits: UserLimits,
    /// How many nodes may join with it; `None` for any number, and for user tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// One use of a join token: `TOKEN/NODE`. A node that joins again with the token does not use it twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct JoinKey {
    /// Id of the token.
    pub token: String,
    /// The node that joined.
    pub node: NodeId,
}

impl Display for JoinKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.token, self.node)
    }
}

/// The text is not a [`JoinKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the use of a token: expected TOKEN/NODE")]
pub struct ParseJoinKeyError(String);

impl FromStr for JoinKey {
    type Err = ParseJoinKeyError;
    fn from_str(text: &str) -> Result<Self, ParseJoinKeyError> {
        let parts = text.split_once('/');
        let parsed = parts.and_then(|(token, node)| Some((token.to_owned(), node.parse().ok()?)));
        let (token, node) = parsed.ok_or_else(|| ParseJoinKeyError(text.to_owned()))?;
        Ok(Self { token, node })
    }
}

/// The admission of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRecord {
    /// When the node was admitted.
    pub at: Millis,
    /// The name that it gave itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The server that admitted it.
    pub by: NodeId,
    /// When the token expires: the record can be forgotten then.
    pub expires: Millis,
}

/// What a revocation is about: `token/ID` or `user/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RevocationKey {
    /// One token.
    Token(String),
    /// The tokens of a user.
    User(String),
}

impl Display for RevocationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(id) => write!(f, "token/{id}"),
            Self::User(name) => write!(f, "user/{name}"),
        }
    }
}

/// The text is not a [`RevocationKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the key of a revocation: expected token/ID or user/NAME")]
pub struct ParseRevocationKeyError(String);

impl FromStr for RevocationKey {
    type Err = ParseRevocationKeyError;
    fn from_str(text: &str) -> Result<Self, ParseRevocationKeyError> {
        match text.split_once('/') {
            Some(("token", id)) => Ok(Self::Token(id.to_owned())),
            Some(("user", name)) => Ok(Self::User(name.to_owned())),
            _ => Err(ParseRevocationKeyError(text.to_owned())),
        }
    }
}

/// The end of tokens before they expire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Of a user's tokens those that were issued up to this time are revoked; 0 for one token.
    pub before: Millis,
    /// When they were revoked; for display.
    pub at: Millis,
    /// When the last of them expires: the revocation can be forgotten then.
    pub expires: Millis,
}

/// The end of an update of a service, as one node saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateResult {
    /// [`ServiceRecord::revision`] of the deployment.
    pub revision: Lamport,
    /// Digest of the container that was deployed.
    pub digest: String,
    /// Why the update failed; `None` if every instance became available.
    pub failed: Option<String>,
}

/// A node document: what one node reports about itself and what it observes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeState {
    /// Grows at each start, and whenever the node finds itself accused.
    pub incarnation: u64,
    /// How long its process had run when it started this generation of the document, in milliseconds.
    pub uptime: Millis,
    /// Static facts; `None` until the node has written them.
    pub info: Option<NodeInfo>,
    /// Why the runtime does not answer; `None` if it does.
    pub runtime_error: Option<String>,
    /// What it neither starts nor stops, because its version does not know all of it.
    pub holds: Holds,
    /// What it cannot start, and why.
    pub faults: Faults,
    /// What other nodes of the cluster, which are not up, have left on its host.
    pub orphans: BTreeMap<NodeId, Orphans>,
    /// Claims on the instances that it runs.
    pub claims: BTreeMap<InstanceId, Claim>,
    /// Named volumes whose data it holds.
    pub volumes: BTreeMap<VolumeKey, Stored<VolumeRecord>>,
    /// Results of the updates whose end it saw.
    pub update_results: BTreeMap<ServiceKey, UpdateResult>,
    /// Runs that it has begun, with how they ended. Since schema 6.
    pub runs: BTreeMap<InstanceId, RunRecord>,
    /// Times of schedules that it has seen come. Since schema 6.
    pub due: BTreeMap<Slot, DueRecord>,
    /// Ports that it cannot publish (`8080/tcp`), with the reason.
    pub ports: BTreeMap<String, String>,
    /// Receivers of alerts that it cannot reach as the node that sends to them, with the reason.
    pub unsent_alerts: BTreeMap<Name, String>,
    /// Accusations: nodes that it cannot reach, with the incarnation at that time.
    pub unreachable: BTreeMap<NodeId, u64>,
    /// For how long those nodes have been silent that it accuses, as far as services ask for it.
    pub silent: BTreeMap<NodeId, Silence>,
    /// Nodes that it has heard from since it started. It has no vote on others unless it accuses them.
    pub observed: BTreeSet<NodeId>,
    /// For how long it may be silent, in milliseconds, because it has announced a restart; `None` otherwise.
    pub restarting: Option<Millis>,
}

/// How long a node has been silent, as one observer knows it. Written only when a time has passed that a service asks for, so
/// that the document of the observer stays as it is meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// The incarnation of the node that is accused.
    pub incarnation: u64,
    /// The longest of those times that has passed.
    pub ms: Millis,
}

impl ClusterState {
    /// Reads the document, with the entries that are unreadable.
    pub(crate) fn read(document: &impl Maps, id: DocumentId) -> (Self, Vec<UnreadableEntry>) {
        let mut reader = Reader::new(document, id);
        let state = Self {
            services: reader.map("services"),
            scale: reader.map("scale"),
            drained: reader.map("drained"),
            left: reader.map("left"),
            moves: reader.map("moves"),
            files: reader.map("files"),
            images: reader.map("images"),
            tombstones: reader.map("tombstones"),
            tokens: reader.map("tokens"),
            revocations: reader.map("revocations"),
            joins: reader.map("joins"),
            projects: reader.map("projects"),
            trust: reader.map("trust"),
            voters: reader.map("voters"),
            receivers: reader.map("receivers"),
            alerts: reader.map("alerts"),
            history: Arc::new(reader.map("history")),
        };
        (state, reader.unreadable)
    }

    /// Returns the edits that turn `self` into `desired`. Entries that are equal are not touched, so that concurrent
    /// writes of other nodes survive.
    pub(crate) fn edits(&self, desired: &Self) -> Vec<Edit> {
        let mut edits = Vec::new();
        diff("services", &self.services, &desired.services, &mut edits);
        diff("scale", &self.scale, &desired.scale, &mut edits);
        diff("drained", &self.drained, &desired.drained, &mut edits);
        diff("left", &self.left, &desired.left, &mut edits);
        diff("moves", &self.moves, &desired.moves, &mut edits);
        diff("files", &self.files, &desired.files, &mut edits);
        diff("images", &self.images, &desired.images, &mut edits);
        diff("tombstones", &self.tombstones, &desired.tombstones, &mut edits);
        diff("tokens", &self.tokens, &desired.tokens, &mut edits);
        diff("revocations", &self.revocations, &desired.revocations, &mut edits);
        diff("joins", &self.joins, &desired.joins, &mut edits);
        diff("projects", &self.projects, &desired.projects, &mut edits);
        diff("trust", &self.trust, &desired.trust, &mut edits);
        diff("voters", &self.voters, &desired.voters, &mut edits);
        diff("receivers", &self.receivers, &desired.receivers, &mut edits);
        diff("alerts", &self.alerts, &desired.alerts, &mut edits);
        if !Arc::ptr_eq(&self.history, &desired.history) {
            diff("history", &self.history, &desired.history, &mut edits);
        }
        edits
    }

    /// Returns whether a token is revoked; `issued` in milliseconds since the Unix epoch.
    pub fn is_revoked(&self, id: &str, user: &str, issued: Millis) -> bool {
        let user = RevocationKey::User(user.to_owned());
        self.revocations.contains_key(&RevocationKey::Token(id.to_owned()))
            || self.revocations.get(&user).is_some_and(|it| issued <= it.before)
    }

    /// Returns the present voters; `None` before the first were chosen.
    pub fn voter_set(&self) -> Option<&VoterSet> {
        voters::present(&self.voters)
    }

    /// Returns the nodes that a person wants as voters, or does not want.
    pub fn voter_wishes(&self, wanted: bool) -> BTreeSet<NodeId> {
        voters::wishes(&self.voters, wanted)
    }

    /// Makes a set the present one.
    pub fn set_voters(&mut self, set: VoterSet) {
        voters::add(&mut self.voters, set);
    }

    /// Returns how many nodes have joined with a token.
    pub fn uses(&self, token: &str) -> usize {
        self.joins.keys().filter(|key| key.token == token).count()
    }

    /// Returns the number of replicas of a service.
    pub fn replicas(&self, service: &ServiceKey) -> u32 {
        self.scale.get(service).copied().unwrap_or(1)
    }
}

impl ServiceRecord {
    /// Returns whether an update result is that of this deployment.
    pub fn is_result(&self, result: &UpdateResult) -> bool {
        self.revision == result.revision && self.spec.container_digest() == result.digest
    }
}

impl NodeState {
    /// Returns what the node says of its copy of a volume; `None` also if it is of a version without snapshots.
    pub fn copy(&self, volume: &VolumeKey) -> Option<&VolumeCopy> {
        self.volumes.get(volume)?.copy.as_ref()
    }

    /// Reads the document, with the entries that are unreadable.
    pub(crate) fn read(document: &Document, id: DocumentId) -> (Self, Vec<UnreadableEntry>) {
        let mut reader = Reader::new(document, id);
        let state = Self {
            incarnation: reader.entry("self", "incarnation").unwrap_or(0),
            uptime: reader.entry("self", "uptime").unwrap_or(0),
            info: reader.entry("self", "info"),
            runtime_error: reader.entry("self", "runtime_error"),
            holds: reader.entry("self", "holds").unwrap_or_default(),
            faults: reader.entry("self", "faults").unwrap_or_default(),
            orphans: reader.entry("self", "orphans").unwrap_or_default(),
            claims: reader.map("claims"),
            silent: reader.entry("self", "silent").unwrap_or_default(),
            unreachable: reader.map("unreachable"),
            observed: reader.map::<_, bool>("observed").into_keys().collect(),
            volumes: reader.map("volumes"),
            update_results: reader.map("update_results"),
            runs: reader.map("runs"),
            due: reader.map("due"),
            ports: reader.map("ports"),
            restarting: reader.entry("self", "restarting"),
            unsent_alerts: reader.entry("self", "unsent_alerts").unwrap_or_default(),
        };
        (state, reader.unreadable)
    }

    /// Returns the edits that turn `self` into `desired`.
    pub(crate) fn edits(&self, desired: &Self) -> Vec<Edit> {
        let facts = |state: &Self| -> BTreeMap<String, Option<String>> {
            BTreeMap::from([
                ("incarnation".to_owned(), Some(json(&state.incarnation))),
                ("uptime".to_owned(), Some(json(&state.uptime))),
                ("info".to_owned(), state.info.as_ref().map(json)),
                ("runtime_error".to_owned(), state.runtime_error.as_ref().map(json)),
                ("holds".to_owned(), (!state.holds.is_empty()).then(|| json(&state.holds))),
                ("faults".to_owned(), (!state.faults.is_empty()).then(|| json(&state.faults))),
                ("orphans".to_owned(), (!state.orphans.is_empty()).then(|| json(&state.orphans))),
                ("silent".to_owned(), (!state.silent.is_empty()).then(|| json(&state.silent))),
                ("restarting".to_owned(), state.restarting.as_ref().map(json)),
                (
                    "unsent_alerts".to_owned(),
                    (!state.unsent_alerts.is_empty()).then(|| json(&state.unsent_alerts)),
                ),
            ])
        };
        let before = facts(self);
        let changed =
            facts(desired).into_iter().filter(|(key, value)| before.get(key) != Some(value));
        let mut edits: Vec<Edit> =
            changed.map(|(key, value)| Edit { map: "self", key, value }).collect();
        diff("claims", &self.claims, &desired.claims, &mut edits);
        diff("unreachable", &self.unreachable, &desired.unreachable, &mut edits);
        diff("volumes", &self.volumes, &desired.volumes, &mut edits);
        diff("update_results", &self.update_results, &desired.update_results, &mut edits);
        diff("runs", &self.runs, &desired.runs, &mut edits);
        diff("due", &self.due, &desired.due, &mut edits);
        diff("ports", &self.ports, &desired.ports, &mut edits);
        let flags =
            |of: &Self| of.observed.iter().map(|&node| (node, true)).collect::<BTreeMap<_, _>>();
        diff("observed", &flags(self), &flags(desired), &mut edits);
        edits
    }
}

/// Maps of scalars.
pub(crate) trait Maps {
    /// Returns the entries of one map; the value is `None` if it is not a string.
    fn map(&self, name: &str) -> BTreeMap<String, Option<String>>;
}

/// Reads the maps of a document and collects the entries that do not parse.
struct Reader<'a, D> {
    document: &'a D,
    id: DocumentId,
    unreadable: Vec<UnreadableEntry>,
}

impl<'a, D: Maps> Reader<'a, D> {
    fn new(document: &'a D, id: DocumentId) -> Self {
        Self { document, id, unreadable: Vec::new() }
    }

    /// Reads one map. Unreadable entries are left out, on every node alike.
    fn map<K: FromStr<Err: Display> + Ord, V: DeserializeOwned>(
        &mut self,
        map: &'static str,
    ) -> BTreeMap<K, V> {
        let mut read = BTreeMap::new();
        for (key, value) in self.document.map(map) {
            let parsed = key.parse::<K>().map_err(|error| EntryError::Key(error.to_string()));
            match parsed.and_then(|parsed| Ok((parsed, parse(value.as_deref())?))) {
                Ok((key, value)) => drop(read.insert(key, value)),
                Err(error) => self.reject(map, key, error),
            }
        }
        read
    }

    /// Reads one entry; `None` if it is missing or unreadable.
    fn entry<V: DeserializeOwned>(&mut self, map: &'static str, key: &str) -> Option<V> {
        let value = self.document.map(map).remove(key)?;
        parse(value.as_deref()).map_err(|error| self.reject(map, key.to_owned(), error)).ok()
    }

    fn reject(&mut self, map: &'static str, key: String, error: EntryError) {
        self.unreadable.push(UnreadableEntry { document: self.id, map, key, error });
    }
}

fn diff<K: ToString + Ord, V: Serialize + PartialEq>(
    map: &'static str,
    held: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
    edits: &mut Vec<Edit>,
) {
    let deleted = held.keys().filter(|key| !desired.contains_key(key));
    edits.extend(deleted.map(|key| Edit { map, key: key.to_string(), value: None }));
    let new = desired.iter().filter(|(key, value)| held.get(key) != Some(value));
    edits.extend(new.map(|(key, value)| Edit {
        map,
        key: key.to_string(),
        value: Some(json(value)),
    }));
}

/// Encodes a value. The plain types here have no value that JSON cannot represent.
fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Parses the JSON of a value, or says why it does not parse.
fn parse<T: DeserializeOwned>(value: Option<&str>) -> Result<T, EntryError> {
    let text = value.ok_or(EntryError::NotAString)?;
    serde_json::from_str(text).map_err(|error| EntryError::Value(error.to_string()))
}
