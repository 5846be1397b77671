//! The cluster document as a backup has it, and what of it another cluster begins with.

use std::collections::BTreeMap;

use vc_protocol::Stored;
use vc_protocol::change::DocumentId;
use vc_protocol::spec::ServiceSpec;
use vc_protocol::volume::Origin;

use crate::document::Edit;
use crate::received::UnreadableEntry;
use crate::schema::CLUSTER;
use crate::state::{ClusterState, Maps};

/// The entries of a document: map, key, JSON.
pub type Entries = BTreeMap<String, BTreeMap<String, String>>;

/// Why the entries of a backup cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntriesError {
    /// A newer version wrote it.
    #[error(
        "it has a map '{0}', which this version does not know: use the version that wrote it, or a newer one"
    )]
    UnknownMap(String),
    /// An entry cannot be read.
    #[error(transparent)]
    Unreadable(Box<UnreadableEntry>),
}

struct Read<'a>(&'a Entries);

impl Maps for Read<'_> {
    fn map(&self, name: &str) -> BTreeMap<String, Option<String>> {
        let entries = self.0.get(name).into_iter().flatten();
        entries.map(|(key, value)| (key.clone(), Some(value.clone()))).collect()
    }
}

impl ClusterState {
    /// Returns the entries, as the document has them.
    pub fn entries(&self) -> Entries {
        let mut entries = Entries::new();
        for Edit { map, key, value } in Self::default().edits(self) {
            let Some(value) = value else { continue };
            entries.entry(map.to_owned()).or_default().insert(key, value);
        }
        entries
    }

    /// Reads entries. Fields that this version does not know are kept where the document keeps them.
    ///
    /// # Errors
    /// A map or an entry is that of a newer version: what it says would be lost.
    pub fn from_entries(entries: &Entries) -> Result<Self, EntriesError> {
        let is_known = |map: &str| CLUSTER.0.iter().any(|step| step.maps.contains(&map));
        if let Some(map) = entries.keys().find(|map| !is_known(map)) {
            return Err(EntriesError::UnknownMap(map.clone()));
        }
        let (state, unreadable) = Self::read(&Read(entries), DocumentId::Cluster { generation: 0 });
        match unreadable.into_iter().next() {
            Some(entry) => Err(EntriesError::Unreadable(Box::new(entry))),
            None => Ok(state),
        }
    }

    /// Returns what another cluster begins with: what people asked for, without what is about the nodes and the keys of this one.
    /// Sealed files and tokens are of its keys: the caller makes them anew. So are the addresses of receivers of alerts, which are left out. Directories that a node had are not used in place any more:
    /// another node with such a path has other data there.
    #[must_use]
    pub fn for_another_cluster(mut self) -> Self {
        self.drained.clear();
        self.left.clear();
        self.moves.clear();
        self.files.clear();
        self.tombstones.clear();
        self.tokens.clear();
        self.revocations.clear();
        self.joins.clear();
        self.trust.clear();
        self.voters.clear();
        self.receivers.clear();
        self.alerts.clear();
        for record in self.services.values_mut() {
            forget_nodes(&mut record.spec);
            if let Some(previous) = &mut record.previous {
                forget_nodes(previous);
            }
        }
        let mut history = (*self.history).clone();
        history.values_mut().for_each(|version| forget_nodes(&mut version.spec));
        self.history = history.into();
        self
    }
}

fn forget_nodes(spec: &mut Stored<ServiceSpec>) {
    for volume in spec.volumes.values_mut() {
        match &mut volume.origin {
            Some(Origin::Directory { node, .. } | Origin::Uploaded { node, .. }) => *node = None,
            None => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use vc_protocol::volume::VolumeSpec;
    use vc_protocol::{Keypair, NodeId};

    use super::*;
    use crate::state::{ImageRecord, MoveOrder, SealedFile, ServiceRecord};

    fn node() -> NodeId {
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    /// A document with something about a node in each way.
    fn state() -> ClusterState {
        let mut spec = ServiceSpec::default();
        let origin =
            Origin::Directory { path: "/srv".to_owned(), node: Some(node()), must_exist: false };
        let volume = VolumeSpec { origin: Some(origin), ..VolumeSpec::default() };
        spec.volumes.insert("data".parse().expect("a name"), volume);
        let mut spec = serde_json::to_value(&spec).expect("JSON");
        spec["later"] = true.into();
        let record = ServiceRecord {
            spec: serde_json::from_value(spec).expect("a spec"),
            previous: None,
            revision: 7,
            updated: 8,
            deployed_by: "ada".to_owned(),
            trace: None,
        };
        let mut state = ClusterState::default();
        state.services.insert("shop/db".parse().expect("a service"), record.into());
        state.scale.insert("shop/db".parse().expect("a service"), 2);
        state.drained.insert(node(), true);
        state.left.insert(node(), 1);
        let order = MoveOrder { from: node(), to: node(), lamport: 1 };
        state.moves.insert("shop/db.1".parse().expect("a slot"), order);
        let sealed = SealedFile { sealed: "AAAA".to_owned() };
        state.files.insert("shop/secret/0/key".parse().expect("a file"), sealed);
        let image = ImageRecord { id: "sha256:1".to_owned(), size: 1, pushed: 1, projects: None };
        state.images.insert("web:1".to_owned(), image);
        state.history = Arc::default();
        state
    }

    #[test]
    fn entries_are_read_as_they_were_with_fields_of_later_versions() {
        let state = state();
        let entries = state.entries();
        assert!(entries["services"]["shop/db"].contains(r#""later":true"#));
        assert_eq!(ClusterState::from_entries(&entries), Ok(state));
        assert_eq!(ClusterState::from_entries(&Entries::new()), Ok(ClusterState::default()));
    }

    #[test]
    fn a_map_or_an_entry_of_a_newer_version_is_refused() {
        let mut entries = state().entries();
        entries.insert("quotas".to_owned(), BTreeMap::new());
        let error = ClusterState::from_entries(&entries).expect_err("refused");
        assert_eq!(error, EntriesError::UnknownMap("quotas".to_owned()));
        let mut entries = state().entries();
        entries
            .entry("scale".to_owned())
            .or_default()
            .insert("shop/db".to_owned(), "[]".to_owned());
        let error = ClusterState::from_entries(&entries).expect_err("refused");
        assert!(matches!(error, EntriesError::Unreadable(_)), "{error}");
    }

    #[test]
    fn another_cluster_begins_with_what_people_asked_for_and_without_the_nodes() {
        let state = state().for_another_cluster();
        assert_eq!((state.services.len(), state.scale.len(), state.images.len()), (1, 1, 1));
        let text = format!("{:?}", state.entries());
        assert!(!text.contains(&node().to_string()), "{text}");
        assert!(text.contains("later"), "{text}");
        assert!(state.files.is_empty());
    }
}
