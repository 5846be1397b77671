//! A made-up next version of vc-node, as tests know it: one more map in each kind of document, and another tie-break in
//! placement.

use std::sync::OnceLock;

use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{ActorId, Automerge, Change, ObjType, ROOT, ReadDoc as _};
use vc_crdt::{KnownVersions, Schema, SchemaChange};
use vc_placement::{RULES, Rules};

use crate::world::World;

/// The map that the next version adds to the documents.
const MAP: &str = "next";

/// Returns what the next version knows.
pub fn next() -> KnownVersions {
    static NEXT: OnceLock<KnownVersions> = OnceLock::new();
    *NEXT.get_or_init(|| {
        let now = KnownVersions::default();
        let newest = Rules::newest();
        let rules = Rules { version: newest.version + 1, tie_break: |_, node| node, ..newest };
        KnownVersions {
            cluster: with_map(now.cluster, Some(added_map(now.cluster))),
            node: with_map(now.node, None),
            rules: [RULES, &[rules]].concat().leak(),
        }
    })
}

/// Returns the schema with one more change, which adds the map.
fn with_map(schema: Schema, bytes: Option<&'static [u8]>) -> Schema {
    let version = KnownVersions::default().supports().schema + 1;
    let added = SchemaChange { version, maps: &[MAP], bytes };
    Schema([schema.0, &[added]].concat().leak())
}

/// Returns the change that adds the map to documents of this schema.
fn added_map(schema: Schema) -> &'static [u8] {
    let mut automerge = Automerge::new().with_actor(ActorId::from(b"genesis".as_slice()));
    let released = schema.0.iter().filter_map(|step| step.bytes);
    let released = released.map(|bytes| Change::from_bytes(bytes.to_vec()).expect("a change"));
    automerge.apply_changes(released).expect("applies");
    let mut transaction = automerge.transaction();
    transaction.put_object(ROOT, MAP, ObjType::Map).expect("a map");
    let (hash, _) = transaction.commit_with(CommitOptions::default().with_time(0));
    let change = automerge.get_change_by_hash(&hash.expect("a change")).expect("the change");
    change.raw_bytes().to_vec().leak()
}

impl World {
    /// Stops the process of a node and starts another version of it on the same disk.
    pub fn change_version(&mut self, index: usize, knows: KnownVersions) {
        self.kill_process(index);
        let node = &mut self.nodes[index];
        node.knows = knows;
        node.info.version = version_text(&knows);
        self.boot(index);
    }

    /// Returns whether a node that is up holds all documents.
    pub fn holds(&self, index: usize) -> bool {
        !self.engine(index).view().held.documents.is_empty()
    }

    /// Returns the nodes whose process is up and that act by the plan.
    pub fn acting(&self) -> Vec<usize> {
        self.running().into_iter().filter(|&index| !self.holds(index)).collect()
    }
}

/// Returns the version of vc-node that knows this.
pub fn version_text(knows: &KnownVersions) -> String {
    format!("0.{}.0", knows.supports().plan)
}
