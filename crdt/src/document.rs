//! One Automerge document that consists of fixed maps of scalars.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{
    ActorId, Automerge, Change, ChangeHash, ObjId, ROOT, ReadDoc as _, ScalarValue, Value,
};
use vc_protocol::Millis;
use vc_protocol::change::Actor;

/// Why a document could not be changed. The document is left as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Automerge cannot decode the change, or actor or sequence number differ from the envelope.
    #[error("the change does not decode or differs from its envelope")]
    Malformed,
    /// Automerge panicked on the change.
    #[error("Automerge panics on the change")]
    Panicked,
    /// Automerge rejected a local write.
    #[error("cannot write the document: {0}")]
    Write(String),
    /// The document has changes that depend on a schema change which this version does not know.
    #[error("this vc-node does not know all of the document: upgrade it, or use a newer node")]
    Held,
    /// The write touches an entry that this version cannot read.
    #[error("the entry '{key}' in map {map} was written by a newer vc-node: upgrade this node")]
    Unreadable {
        /// The map.
        map: &'static str,
        /// The key in the map.
        key: String,
    },
    /// The sequence number of a local write is not the next one of its actor.
    #[error("a write has sequence number {found} instead of {expected}")]
    Sequence {
        /// The next number of the actor, by what is stored.
        expected: u64,
        /// The number that Automerge gave.
        found: u64,
    },
    /// The bytes of a schema change are not what they were when it was released.
    #[error("the schema change of version {0} does not decode")]
    Schema(u32),
}

/// One scalar to set or to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) map: &'static str,
    pub(crate) key: String,
    /// `None` deletes the key.
    pub(crate) value: Option<String>,
}

/// A change encoded by Automerge, with its sequence number.
pub(crate) struct Written {
    pub(crate) seq: u64,
    pub(crate) bytes: Vec<u8>,
}

/// One change of a document's schema: it adds maps. The author is the actor `genesis`, the time is 0, and it depends on the
/// schema change before it, so it is equal on every node; it is never sent. Its bytes are frozen: a document of one
/// version has to be the start of that of the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SchemaChange {
    /// The version of the documents' schemas that it belongs to, from 1. Those of one document ascend.
    pub(crate) version: u32,
    /// The maps that it adds.
    pub(crate) maps: &'static [&'static str],
    /// The Automerge change.
    pub(crate) bytes: &'static [u8],
}

impl SchemaChange {
    fn decode(&self) -> Result<Change, DocumentError> {
        Change::from_bytes(self.bytes.to_vec()).map_err(|_| DocumentError::Schema(self.version))
    }
}

/// The schema changes of a kind of document, oldest first; the first is the genesis. New ones are appended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema(pub(crate) &'static [SchemaChange]);

#[derive(Clone)]
pub(crate) struct Document {
    automerge: Automerge,
    schema: Schema,
    /// Number of schema changes that the document has.
    applied: usize,
    maps: BTreeMap<&'static str, ObjId>,
}

impl Document {
    /// Returns a document that holds only its genesis change.
    pub(crate) fn new(schema: Schema) -> Result<Self, DocumentError> {
        let automerge = Automerge::new();
        let mut document = Self { automerge, schema, applied: 0, maps: BTreeMap::new() };
        document.upgrade(1)?;
        Ok(document)
    }

    /// Applies the schema changes up to a version that every node which is up supports.
    pub(crate) fn upgrade(&mut self, version: u32) -> Result<(), DocumentError> {
        while let Some(step) = self.schema.0.get(self.applied)
            && step.version <= version
        {
            let refused = DocumentError::Schema(step.version);
            self.automerge.apply_changes([step.decode()?]).map_err(|_| refused.clone())?;
            for &name in step.maps {
                let found = self.automerge.get(ROOT, name).map_err(write_error)?;
                let (_, id) = found.ok_or_else(|| refused.clone())?;
                self.maps.insert(name, id);
            }
            self.applied += 1;
        }
        Ok(())
    }

    /// Returns whether some changes wait for others: for a schema change that this version does not know. What the document
    /// says is incomplete then.
    pub(crate) fn is_held(&self) -> bool {
        !self.automerge.get_missing_deps(&[]).is_empty()
    }

    /// Returns which of these changes depend on something that is neither in the document, nor among them, nor a schema
    /// change that this version knows.
    pub(crate) fn incomplete(&self, changes: &[Change]) -> BTreeSet<usize> {
        let schema = self.schema.0.iter().skip(self.applied);
        let schema = schema.filter_map(|step| step.decode().ok());
        let mut known: BTreeSet<ChangeHash> = schema.map(|change| change.hash()).collect();
        let mut left: BTreeSet<usize> = (0..changes.len()).collect();
        loop {
            let before = left.len();
            left.retain(|&index| {
                let mut deps = changes[index].deps().iter();
                let complete = deps.all(|hash| {
                    known.contains(hash) || self.automerge.get_change_meta_by_hash(hash).is_some()
                });
                if complete {
                    known.insert(changes[index].hash());
                }
                !complete
            });
            if left.len() == before {
                return left;
            }
        }
    }

    /// Applies the schema changes that received changes depend on.
    fn follow_schema(&mut self) -> Result<(), DocumentError> {
        let missing = self.automerge.get_missing_deps(&[]);
        if missing.is_empty() {
            return Ok(());
        }
        for step in self.schema.0.iter().skip(self.applied) {
            if missing.contains(&step.decode()?.hash()) {
                return self.upgrade(step.version).and_then(|()| self.follow_schema());
            }
        }
        Ok(())
    }

    /// Writes edits as one change of `actor`. Returns `None` if nothing changes.
    ///
    /// # Errors
    /// The document is held, or Automerge refuses the edits.
    pub(crate) fn write(
        &mut self,
        actor: &Actor,
        edits: &[Edit],
        at: Millis,
    ) -> Result<Option<Written>, DocumentError> {
        if self.is_held() {
            return Err(DocumentError::Held);
        }
        self.automerge.set_actor(ActorId::from(actor.as_bytes()));
        let mut transaction = self.automerge.transaction();
        for edit in edits {
            let Some(map) = self.maps.get(edit.map) else { continue };
            let held = transaction.get(map, &edit.key).map_err(write_error)?;
            match (&edit.value, held) {
                (Some(new), Some((Value::Scalar(old), _))) if old.as_str() == Some(new) => {}
                (Some(new), _) => {
                    transaction.put(map, &edit.key, new.as_str()).map_err(write_error)?
                }
                (None, Some(_)) => transaction.delete(map, &edit.key).map_err(write_error)?,
                (None, None) => {}
            }
        }
        let seconds = i64::try_from(at / 1000).unwrap_or(i64::MAX);
        let (hash, _) = transaction.commit_with(CommitOptions::default().with_time(seconds));
        let Some(hash) = hash else { return Ok(None) };
        let change = self.automerge.get_change_by_hash(&hash).ok_or_else(|| {
            DocumentError::Write("the change is missing after the commit".to_owned())
        })?;
        Ok(Some(Written { seq: change.seq(), bytes: change.raw_bytes().to_vec() }))
    }

    /// Applies changes of other nodes. Automerge can panic on malformed input, so it works on a copy and panics are
    /// caught.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) -> Result<(), DocumentError> {
        let mut copy = self.clone();
        let applied = catch_unwind(AssertUnwindSafe(move || {
            copy.automerge.apply_changes(changes).map_err(|_| DocumentError::Malformed)?;
            copy.follow_schema()?;
            Ok(copy)
        }));
        *self = applied.unwrap_or(Err(DocumentError::Panicked))?;
        Ok(())
    }

    /// Returns the entries of one map; the value is `None` if it is not a string.
    pub(crate) fn map(&self, name: &str) -> BTreeMap<String, Option<String>> {
        let Some(map) = self.maps.get(name) else { return BTreeMap::new() };
        self.automerge
            .map_range(map, ..)
            .map(|item| {
                let text = match item.value.into_value() {
                    Value::Scalar(scalar) => match scalar.as_ref() {
                        ScalarValue::Str(text) => Some(text.to_string()),
                        _ => None,
                    },
                    Value::Object(_) => None,
                };
                (item.key.to_string(), text)
            })
            .collect()
    }
}

/// Decodes one change and checks actor and sequence number against its envelope. Compressed changes are rejected: nodes
/// do not write them, and a small one can decompress to gigabytes.
pub(crate) fn decode(bytes: &[u8], actor: &Actor, seq: u64) -> Result<Change, DocumentError> {
    /// Offset of the chunk type, behind four magic bytes and a checksum, and the type of an uncompressed change
    /// (Automerge binary format, section "Chunk container").
    const CHUNK_TYPE_OFFSET: usize = 8;
    const UNCOMPRESSED_CHANGE: u8 = 1;
    if bytes.get(CHUNK_TYPE_OFFSET) != Some(&UNCOMPRESSED_CHANGE) {
        return Err(DocumentError::Malformed);
    }
    let owned = bytes.to_vec();
    let change = catch_unwind(AssertUnwindSafe(move || Change::from_bytes(owned)))
        .map_err(|_| DocumentError::Panicked)?
        .map_err(|_| DocumentError::Malformed)?;
    if change.actor_id().to_bytes() != actor.as_bytes() || change.seq() != seq {
        return Err(DocumentError::Malformed);
    }
    Ok(change)
}

fn write_error(error: impl std::fmt::Display) -> DocumentError {
    DocumentError::Write(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vc_protocol::NodeId;

    use crate::schema::tests::{NEWER, OLDER};

    fn actor(n: u64) -> Actor {
        let key = vc_protocol::Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        Actor::new(NodeId::of(&key.public()).expect("ed25519"), n)
    }

    fn put(key: &str, value: &str) -> Edit {
        Edit { map: "entries", key: key.to_owned(), value: Some(value.to_owned()) }
    }

    #[test]
    fn documents_created_independently_share_their_maps() {
        let (mut a, mut b) =
            (Document::new(OLDER).expect("new"), Document::new(OLDER).expect("new"));
        let one = a.write(&actor(1), &[put("x", "1")], 5).expect("written").expect("a change");
        let two = b.write(&actor(2), &[put("y", "2")], 5).expect("written").expect("a change");
        b.apply(vec![decode(&one.bytes, &actor(1), 1).expect("decodes")]).expect("applies");
        a.apply(vec![decode(&two.bytes, &actor(2), 1).expect("decodes")]).expect("applies");
        assert_eq!(a.map("entries"), b.map("entries"));
        assert_eq!(a.map("entries").len(), 2);
    }

    #[test]
    fn writing_an_existing_value_makes_no_change() {
        let mut a = Document::new(OLDER).expect("new");
        assert!(a.write(&actor(1), &[put("x", "1")], 0).expect("written").is_some());
        assert!(a.write(&actor(1), &[put("x", "1")], 9).expect("written").is_none());
        let gone = Edit { map: "entries", key: "none".to_owned(), value: None };
        assert!(a.write(&actor(1), &[gone], 9).expect("written").is_none());
    }

    #[test]
    fn a_change_that_differs_from_its_envelope_is_rejected() {
        let mut a = Document::new(OLDER).expect("new");
        let one = a.write(&actor(1), &[put("x", "1")], 0).expect("written").expect("a change");
        assert!(decode(&one.bytes, &actor(2), 1).is_err());
        assert!(decode(&one.bytes, &actor(1), 2).is_err());
        for at in 0..one.bytes.len() {
            assert!(decode(&one.bytes[..at], &actor(1), 1).is_err(), "cut at {at}");
        }
    }

    fn more(key: &str, value: &str) -> Edit {
        Edit { map: "more", ..put(key, value) }
    }

    fn change(written: &Written, n: u64) -> Change {
        decode(&written.bytes, &actor(n), written.seq).expect("decodes")
    }

    #[test]
    fn a_document_without_a_newer_map_is_held_and_loses_nothing() {
        let mut old = Document::new(OLDER).expect("new");
        let first = old.write(&actor(1), &[put("x", "1")], 0).expect("written").expect("a change");
        let mut new = Document::new(NEWER).expect("new");
        new.apply(vec![change(&first, 1)]).expect("applies");
        new.upgrade(2).expect("upgraded");
        let second = new.write(&actor(2), &[more("y", "2"), put("x", "3")], 0);
        let second = second.expect("written").expect("a change");
        assert!(!old.is_held() && !new.is_held());

        old.apply(vec![change(&second, 2)]).expect("accepted");
        assert!(old.is_held());
        assert_eq!(old.map("entries"), BTreeMap::from([("x".to_owned(), Some("1".to_owned()))]));
        let refused = old.write(&actor(1), &[put("z", "4")], 0).err();
        assert_eq!(refused, Some(DocumentError::Held));

        // The upgraded node reads the same changes, and writes where it stopped.
        let mut upgraded = Document::new(NEWER).expect("new");
        upgraded.apply(vec![change(&first, 1), change(&second, 2)]).expect("applies");
        assert!(!upgraded.is_held());
        assert_eq!(upgraded.map("more"), new.map("more"));
        assert_eq!(upgraded.map("entries"), new.map("entries"));
        let third = upgraded.write(&actor(1), &[put("z", "4")], 0).expect("written");
        assert_eq!(third.map(|written| written.seq), Some(2));
    }

    #[test]
    fn a_document_waits_for_the_changes_that_a_change_depends_on() {
        let mut a = Document::new(OLDER).expect("new");
        let one = a.write(&actor(1), &[put("x", "1")], 0).expect("written").expect("a change");
        let two = a.write(&actor(2), &[put("x", "2")], 0).expect("written").expect("a change");
        let mut b = Document::new(OLDER).expect("new");
        b.apply(vec![change(&two, 2)]).expect("accepted");
        assert!(b.is_held());
        b.apply(vec![change(&one, 1)]).expect("applies");
        assert!(!b.is_held());
        assert_eq!(a.map("entries"), b.map("entries"));
    }

    #[test]
    fn nodes_that_add_a_map_at_different_times_share_it() {
        let (mut a, mut b) =
            (Document::new(NEWER).expect("new"), Document::new(NEWER).expect("new"));
        let early = b.write(&actor(2), &[put("x", "1")], 0).expect("written").expect("a change");
        a.upgrade(2).expect("upgraded");
        let one = a.write(&actor(1), &[more("y", "1")], 0).expect("written").expect("a change");
        b.apply(vec![change(&one, 1)]).expect("applies");
        b.upgrade(2).expect("upgraded");
        a.apply(vec![change(&early, 2)]).expect("applies");
        let two = b.write(&actor(2), &[more("z", "2")], 0).expect("written").expect("a change");
        a.apply(vec![change(&two, 2)]).expect("applies");
        assert_eq!(a.map("more").len(), 2);
        assert_eq!(a.map("more"), b.map("more"));
        assert_eq!(a.map("entries"), b.map("entries"));
    }

    #[test]
    fn a_corrupt_change_leaves_the_document_usable() {
        let mut a = Document::new(OLDER).expect("new");
        let one = a
            .write(&actor(1), &[put("x", "1"), put("y", "2")], 0)
            .expect("written")
            .expect("a change");
        for at in 0..one.bytes.len() {
            for flip in [0x01, 0x55, 0x80, 0xff] {
                let mut bytes = one.bytes.clone();
                bytes[at] ^= flip;
                let mut b = Document::new(OLDER).expect("new");
                if let Ok(change) = decode(&bytes, &actor(1), 1) {
                    let _ = b.apply(vec![change]);
                }
                b.map("entries");
            }
        }
    }
}
