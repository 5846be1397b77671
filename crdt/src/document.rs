//! One Automerge document that consists of fixed maps of scalars.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{
    ActorId, Automerge, Change, ObjId, ObjType, ROOT, ReadDoc as _, ScalarValue, Value,
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

/// The names of the maps that a document has from its first change on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema(pub(crate) &'static [&'static str]);

#[derive(Clone)]
pub(crate) struct Document {
    automerge: Automerge,
    maps: BTreeMap<&'static str, ObjId>,
}

impl Document {
    /// Returns a document that holds only its genesis change. The change is equal on every node, so that all share the
    /// same maps.
    pub(crate) fn new(schema: Schema) -> Result<Self, DocumentError> {
        let mut automerge = Automerge::new().with_actor(ActorId::from(b"genesis".as_slice()));
        let mut transaction = automerge.transaction();
        let mut maps = BTreeMap::new();
        for &name in schema.0 {
            let id = transaction.put_object(ROOT, name, ObjType::Map).map_err(write_error)?;
            maps.insert(name, id);
        }
        transaction.commit_with(CommitOptions::default().with_time(0));
        Ok(Self { automerge, maps })
    }

    /// Writes edits as one change of `actor`. Returns `None` if nothing changes.
    pub(crate) fn write(
        &mut self,
        actor: &Actor,
        edits: &[Edit],
        at: Millis,
    ) -> Result<Option<Written>, DocumentError> {
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
        let mut copy = self.automerge.clone();
        let applied =
            catch_unwind(AssertUnwindSafe(move || copy.apply_changes(changes).map(|()| copy)));
        match applied {
            Ok(Ok(automerge)) => {
                self.automerge = automerge;
                Ok(())
            }
            Ok(Err(_)) => Err(DocumentError::Malformed),
            Err(_) => Err(DocumentError::Panicked),
        }
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

    const SCHEMA: Schema = Schema(&["entries"]);

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
            (Document::new(SCHEMA).expect("new"), Document::new(SCHEMA).expect("new"));
        let one = a.write(&actor(1), &[put("x", "1")], 5).expect("written").expect("a change");
        let two = b.write(&actor(2), &[put("y", "2")], 5).expect("written").expect("a change");
        b.apply(vec![decode(&one.bytes, &actor(1), 1).expect("decodes")]).expect("applies");
        a.apply(vec![decode(&two.bytes, &actor(2), 1).expect("decodes")]).expect("applies");
        assert_eq!(a.map("entries"), b.map("entries"));
        assert_eq!(a.map("entries").len(), 2);
    }

    #[test]
    fn writing_an_existing_value_makes_no_change() {
        let mut a = Document::new(SCHEMA).expect("new");
        assert!(a.write(&actor(1), &[put("x", "1")], 0).expect("written").is_some());
        assert!(a.write(&actor(1), &[put("x", "1")], 9).expect("written").is_none());
        let gone = Edit { map: "entries", key: "none".to_owned(), value: None };
        assert!(a.write(&actor(1), &[gone], 9).expect("written").is_none());
    }

    #[test]
    fn a_change_that_differs_from_its_envelope_is_rejected() {
        let mut a = Document::new(SCHEMA).expect("new");
        let one = a.write(&actor(1), &[put("x", "1")], 0).expect("written").expect("a change");
        assert!(decode(&one.bytes, &actor(2), 1).is_err());
        assert!(decode(&one.bytes, &actor(1), 2).is_err());
        for at in 0..one.bytes.len() {
            assert!(decode(&one.bytes[..at], &actor(1), 1).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_corrupt_change_leaves_the_document_usable() {
        let mut a = Document::new(SCHEMA).expect("new");
        let one = a
            .write(&actor(1), &[put("x", "1"), put("y", "2")], 0)
            .expect("written")
            .expect("a change");
        for at in 0..one.bytes.len() {
            for flip in [0x01, 0x55, 0x80, 0xff] {
                let mut bytes = one.bytes.clone();
                bytes[at] ^= flip;
                let mut b = Document::new(SCHEMA).expect("new");
                if let Ok(change) = decode(&bytes, &actor(1), 1) {
                    let _ = b.apply(vec![change]);
                }
                b.map("entries");
            }
        }
    }
}
