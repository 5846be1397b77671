//! A problem of the cluster: a line for people, with what identifies it.

use std::collections::BTreeMap;

use vc_crdt::View;
use vc_placement::rendezvous;
use vc_protocol::alert::ProblemKind;
use vc_protocol::control::NodeRow;
use vc_protocol::node::NodeProblem;
use vc_protocol::{ClusterId, NodeId, ServiceKey, Slot, VolumeKey};

/// A problem of the cluster. `vc status` lists them, and alerts are made of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind of problem it is.
    pub kind: ProblemKind,
    /// What it is about, as labels of an alert: `node`, `project`, `service`, `volume`. With the kind it identifies the problem.
    pub labels: BTreeMap<&'static str, String>,
    /// The line for people. It may change while the problem stays.
    pub text: String,
}

impl Problem {
    /// Returns a problem that is about nothing in particular yet.
    pub fn new(kind: ProblemKind, text: String) -> Self {
        Self { kind, labels: BTreeMap::new(), text }
    }

    /// Returns a problem that one process alone sees.
    pub fn of_process(view: &View, problem: &NodeProblem) -> Self {
        Self::new(problem.kind, problem.text.clone()).of_node(view, problem.node)
    }

    /// Returns whether it is the same problem, whatever the texts say.
    pub fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.labels == other.labels
    }

    /// Says what it is about.
    #[must_use]
    pub fn with(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.labels.insert(label, value.into());
        self
    }

    /// Says that it is about a node.
    #[must_use]
    pub fn of_node(self, view: &View, node: NodeId) -> Self {
        self.with(NODE, view.name(node)).with("node_id", node.to_string())
    }

    /// As [`of_node`](Self::of_node), with the node's row.
    #[must_use]
    pub(crate) fn of_row(self, row: &NodeRow) -> Self {
        self.with(NODE, row.name.clone()).with("node_id", row.id.to_string())
    }

    /// Says that it is about a service.
    #[must_use]
    pub fn of_service(self, service: &ServiceKey) -> Self {
        self.with(PROJECT, service.project.as_str()).with("service", service.service.as_str())
    }

    /// Says that it is about a slot.
    #[must_use]
    pub fn of_slot(self, slot: &Slot) -> Self {
        self.of_service(&slot.service).with("replica", slot.replica.to_string())
    }

    /// Says that it is about a volume.
    #[must_use]
    pub fn of_volume(self, volume: &VolumeKey) -> Self {
        self.with(PROJECT, volume.project.as_str()).with("volume", volume.volume.as_str())
    }

    /// Returns the project that it is about.
    pub fn project(&self) -> Option<&str> {
        self.labels.get(PROJECT).map(String::as_str)
    }

    /// Returns 16 hexadecimal digits that identify it, on every node alike and whatever its text says.
    pub fn fingerprint(&self, cluster: ClusterId) -> String {
        let cluster = cluster.to_string();
        let mut parts = vec![cluster.as_str(), self.kind.as_str()];
        // A node may get another name; its id stays.
        let labels = self.labels.iter().filter(|(label, _)| **label != NODE);
        parts.extend(labels.flat_map(|(label, value)| [*label, value.as_str()]));
        format!("{:016x}", rendezvous(&parts))
    }
}

/// The label with the name of a node.
const NODE: &str = "node";
/// The label with the name of a project.
const PROJECT: &str = "project";

#[cfg(test)]
mod tests {
    use vc_protocol::Keypair;

    use super::*;

    #[test]
    fn a_fingerprint_is_that_of_the_subject_and_not_of_the_text() {
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes").public();
        let cluster = ClusterId::of(&key).expect("ed25519");
        let down = |name: &str, id: &str, text: &str| {
            let problem = Problem::new(ProblemKind::NodeDown, text.to_owned());
            problem.with(NODE, name).with("node_id", id).fingerprint(cluster)
        };
        let attic = down("attic", "a", "node attic is down");
        assert_eq!(attic.len(), 16);
        assert_eq!(attic, down("cellar", "a", "node cellar is down for 20 s"));
        assert_ne!(attic, down("attic", "b", "node attic is down"));
    }
}
