//! What the documents hold, as plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vc_protocol::instance::Claim;
use vc_protocol::node::NodeInfo;
use vc_protocol::spec::ServiceSpec;
use vc_protocol::{Millis, NodeId, ServiceKey, Slot};

use crate::document::{Document, Edit, Schema};

/// A service as it stands in the cluster document. How many replicas stands apart, so that `scale` and `deploy` by two
/// operators at the same moment both hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// What it is.
    pub spec: ServiceSpec,
    /// When it was deployed, by the clock of the node that took the command.
    pub updated: Millis,
    /// By whom.
    pub by: String,
}

/// What users want.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterState {
    /// Services.
    pub services: BTreeMap<ServiceKey, ServiceRecord>,
    /// Replicas wanted of each; a service without an entry wants one.
    pub scale: BTreeMap<ServiceKey, u32>,
    /// Machines to keep free.
    pub drained: BTreeMap<NodeId, bool>,
}

/// What one machine says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeState {
    /// Grows at each start, and whenever it finds itself called unreachable.
    pub incarnation: u64,
    /// Its stable facts; `None` until it has said so.
    pub info: Option<NodeInfo>,
    /// Why its runtime does not answer; `None`: it does.
    pub runtime_error: Option<String>,
    /// The slots that it fills.
    pub claims: BTreeMap<Slot, Claim>,
    /// The machines that it cannot reach, with the incarnation that it could not reach.
    pub unreachable: BTreeMap<NodeId, u64>,
    /// The machines that it has heard since it started: of the others it cannot say that they are there.
    pub heard: BTreeSet<NodeId>,
}

pub(crate) const CLUSTER: Schema = Schema(&["services", "scale", "drained"]);
pub(crate) const NODE: Schema = Schema(&["self", "claims", "unreachable", "heard"]);

impl ClusterState {
    pub(crate) fn read(document: &Document) -> Self {
        Self {
            services: read_map(document, "services"),
            scale: read_map(document, "scale"),
            drained: read_map(document, "drained"),
        }
    }

    /// The edits that turn `self` into `wanted`, and nothing else: what others write at the same time stays.
    pub(crate) fn edits(&self, wanted: &Self) -> Vec<Edit> {
        let mut edits = Vec::new();
        diff("services", &self.services, &wanted.services, &mut edits);
        diff("scale", &self.scale, &wanted.scale, &mut edits);
        diff("drained", &self.drained, &wanted.drained, &mut edits);
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
            heard: read_map::<_, bool>(document, "heard").into_keys().collect(),
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
        let flags =
            |of: &Self| of.heard.iter().map(|&node| (node, true)).collect::<BTreeMap<_, _>>();
        diff("heard", &flags(self), &flags(wanted), &mut edits);
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
