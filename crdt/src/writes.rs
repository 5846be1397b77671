//! What a signed change of the cluster document writes.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use automerge::legacy::{Key, ObjectId, OpType};
use automerge::{Change, ScalarValue};
use vc_protocol::change::{ChangeBody, DocumentId, SignedChange};

use crate::document::decode;
use crate::schema::CLUSTER;

/// One entry that a change writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The map; `None` for one that this version does not know.
    pub map: Option<&'static str>,
    /// The key in the map.
    pub key: String,
    /// The JSON text; `None` if the entry is deleted, or is no text.
    pub value: Option<String>,
}

/// A change of the cluster document with what it writes.
#[derive(Debug, Clone)]
pub struct ClusterChange {
    /// What the author signed, without the payload.
    pub body: ChangeBody,
    /// The generation of the document.
    pub generation: u64,
    /// Greater than that of each change that it depends on.
    pub order: u64,
    /// The entries, in the order of their names.
    pub writes: Vec<Write>,
}

impl ClusterChange {
    /// Decodes an accepted change. Returns `None` if it is one of a node document.
    pub fn of(signed: &SignedChange) -> Option<Self> {
        let mut body = signed.decode_unverified().ok()?;
        let DocumentId::Cluster { generation } = body.document else { return None };
        let payload = std::mem::take(&mut body.payload);
        let change = decode(payload, &body.actor, body.seq).ok()?;
        let mut entries = BTreeMap::new();
        for op in change.decode().operations {
            let (ObjectId::Id(id), Key::Map(key)) = (op.obj, op.key) else { continue };
            let map = maps().get(&(id.counter(), id.actor().to_bytes().to_vec())).copied();
            let value = match op.action {
                OpType::Put(ScalarValue::Str(text)) => Some(text.to_string()),
                _ => None,
            };
            // The last operation of a change on a key counts: the others make it show in the change.
            entries.insert((map, key.to_string()), value);
        }
        let write = |((map, key), value)| Write { map, key, value };
        let writes = entries.into_iter().map(write).collect();
        Some(Self { body, generation, order: change.start_op().get(), writes })
    }
}

/// Returns the names of the maps by the ids of the operations that make them.
fn maps() -> &'static BTreeMap<(u64, Vec<u8>), &'static str> {
    static MAPS: OnceLock<BTreeMap<(u64, Vec<u8>), &'static str>> = OnceLock::new();
    MAPS.get_or_init(|| {
        let steps = CLUSTER.0.iter().filter_map(|step| {
            let change = Change::from_bytes(step.bytes?.to_vec()).ok()?;
            Some((change, step.maps))
        });
        let maps = steps.flat_map(|(change, names)| {
            let (first, actor) = (change.start_op().get(), change.actor_id().to_bytes().to_vec());
            (first..).zip(names).map(move |(counter, &name)| ((counter, actor.clone()), name))
        });
        maps.collect()
    })
}
