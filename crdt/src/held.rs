//! What this version of vc-node cannot read, and so must not touch.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::ServiceKey;
use vc_protocol::change::DocumentId;
use vc_protocol::node::Holds;

use crate::received::UnreadableEntry;
use crate::state::ClusterState;

/// What a node keeps as it is, because this version does not know all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// Documents with changes that depend on a schema change which this version does not know. While there are any, a node
    /// starts and stops nothing, and does not write the document.
    pub documents: BTreeSet<DocumentId>,
    /// Services that this node neither starts nor stops, with the reason.
    pub services: BTreeMap<ServiceKey, String>,
    /// Whether any entry is unreadable: it may refer to anything, so nothing is deleted for want of a reference.
    pub has_unreadable: bool,
}

impl Held {
    pub(crate) fn of(
        cluster: &ClusterState,
        documents: BTreeSet<DocumentId>,
        unreadable: &[UnreadableEntry],
    ) -> Self {
        let newer = cluster.services.iter().filter_map(|(key, record)| {
            let specs = [Some(&record.spec), record.previous.as_ref()];
            let mut fields = specs.into_iter().flatten().flat_map(|spec| spec.unknown_fields());
            let field = fields.next()?;
            Some((key.clone(), format!("has the field {field}, which this vc-node does not know")))
        });
        let mut services: BTreeMap<ServiceKey, String> = newer.collect();
        for entry in
            unreadable.iter().filter(|entry| matches!(entry.document, DocumentId::Cluster { .. }))
        {
            // The keys of other maps name no service, or name it in passing.
            if let ("services" | "scale", Ok(key)) = (entry.map, entry.key.parse()) {
                services.insert(key, format!("cannot be read by this vc-node: {}", entry.error));
            }
        }
        Self { documents, services, has_unreadable: !unreadable.is_empty() }
    }

    /// Returns whether this version can read everything.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.services.is_empty() && !self.has_unreadable
    }

    /// Returns what the others need to know of it.
    pub fn holds(&self) -> Holds {
        let services = self.services.keys().cloned().collect();
        Holds { all: !self.documents.is_empty(), services }
    }

    /// Returns why a node neither starts nor stops instances of a service; `None` if it does.
    pub fn reason(&self, service: &ServiceKey) -> Option<&str> {
        if !self.documents.is_empty() {
            return Some("waits: this vc-node does not know all of the documents, upgrade it");
        }
        self.services.get(service).map(String::as_str)
    }
}
