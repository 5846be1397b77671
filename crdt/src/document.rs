//! One Automerge document that consists of fixed maps of scalars.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::legacy::{Key as MapKey, ObjectId};
use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{
    ActorId, Automerge, Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc as _, ScalarValue, Value,
};
use vc_protocol::Millis;
use vc_protocol::change::Actor;

use crate::state::Maps;

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
    /// The checkpoint of a generation differs from the content that it stands for.
    #[error("the checkpoint differs from the content of the generation before")]
    Checkpoint,
    /// An entry that is not a string cannot be put into a checkpoint.
    #[error("the entry '{key}' in map {map} is not a string: no checkpoint can contain it")]
    NotAString {
        /// The map.
        map: &'static str,
        /// The key in the map.
        key: String,
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

/// One change of a document's schema: it adds maps.
#[derive(Debug, Clone, Copy)]
pub struct SchemaChange {
    /// The version of the documents' schemas that it belongs to, from 1. Those of one document ascend.
    pub version: u32,
    /// The maps that it adds.
    pub maps: &'static [&'static str],
    /// The Automerge change. The author is the actor `genesis`, the time is 0, and it depends on the schema change before it,
    /// so it is equal on every node; it is never sent. Its bytes are frozen: a document of one version has to be the start
    /// of that of the next. `None`: the only writer of the document makes the maps, and older versions read the others.
    pub bytes: Option<&'static [u8]>,
}

impl SchemaChange {
    fn decode(&self) -> Result<Option<Change>, DocumentError> {
        let change = self.bytes.map(|bytes| Change::from_bytes(bytes.to_vec())).transpose();
        change.map_err(|_| DocumentError::Schema(self.version))
    }
}

/// The schema changes of a kind of document, oldest first; the first is the genesis. New ones are appended.
#[derive(Debug, Clone, Copy)]
pub struct Schema(pub &'static [SchemaChange]);

impl Schema {
    /// Returns the newest version.
    pub(crate) fn version(self) -> u32 {
        self.0.last().map_or(0, |step| step.version)
    }

    fn maps(self) -> impl Iterator<Item = &'static str> {
        self.0.iter().flat_map(|step| step.maps.iter().copied())
    }
}

/// A map, and a key in it.
pub(crate) type Key = (&'static str, String);

/// The entries of all maps; a value is `None` if it is not a string.
pub(crate) type Entries = BTreeMap<Key, Option<String>>;

pub(crate) struct Document {
    automerge: Automerge,
    schema: Schema,
    /// Number of schema changes that the document has.
    applied: usize,
    maps: BTreeMap<&'static str, ObjId>,
    /// The other changes, each after those that it depends on: what a document is built from again after a failure.
    changes: Vec<Vec<u8>>,
    /// Size of `changes` in bytes.
    size: usize,
    /// Maps that the next write makes, with their first entries.
    pending: BTreeMap<String, BTreeMap<String, ScalarValue>>,
}

impl Document {
    /// Returns a document that holds only its genesis change.
    pub(crate) fn new(schema: Schema) -> Result<Self, DocumentError> {
        Self::with_schema(schema, 1)
    }

    fn with_schema(schema: Schema, version: u32) -> Result<Self, DocumentError> {
        let mut document = Self {
            automerge: Automerge::new(),
            schema,
            applied: 0,
            maps: BTreeMap::new(),
            pending: BTreeMap::new(),
            changes: Vec::new(),
            size: 0,
        };
        document.upgrade(version)?;
        Ok(document)
    }

    /// Returns an empty document with the same schema changes.
    pub(crate) fn empty(&self) -> Result<Self, DocumentError> {
        Self::with_schema(self.schema, self.version())
    }

    /// Returns the start of the next generation of a document with one writer: it keeps the maps that this version does not
    /// know, with their entries.
    pub(crate) fn next_generation(&self) -> Result<Self, DocumentError> {
        let mut next = self.empty()?;
        for (name, id) in self.unknown_maps() {
            let entries = self.automerge.map_range(&id, ..).filter_map(|item| {
                let Value::Scalar(value) = item.value.into_value() else { return None };
                Some((item.key.to_string(), value.into_owned()))
            });
            next.pending.insert(name, entries.collect());
        }
        Ok(next)
    }

    /// Returns the newest version of the schema whose maps the document has.
    pub(crate) fn version(&self) -> u32 {
        self.schema.0[..self.applied].last().map_or(0, |step| step.version)
    }

    /// Returns the number of changes, without those of the schema.
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Returns the size of the changes in bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Applies the schema changes up to a version that every node which is up supports.
    pub(crate) fn upgrade(&mut self, version: u32) -> Result<(), DocumentError> {
        while let Some(step) = self.schema.0.get(self.applied)
            && step.version <= version
        {
            match step.decode()? {
                Some(change) => {
                    let refused = |_| DocumentError::Schema(step.version);
                    self.automerge.apply_changes([change]).map_err(refused)?;
                }
                None => self
                    .pending
                    .extend(step.maps.iter().map(|&name| (name.to_owned(), BTreeMap::new()))),
            }
            self.applied += 1;
            self.find_maps();
        }
        Ok(())
    }

    /// Looks up the maps that the document has by now. The first of a name stays.
    fn find_maps(&mut self) {
        for name in self.schema.maps() {
            if !self.maps.contains_key(name)
                && let Ok(Some((Value::Object(ObjType::Map), id))) = self.automerge.get(ROOT, name)
            {
                self.maps.insert(name, id);
            }
        }
        while let Some(step) = self.schema.0.get(self.applied)
            && step.bytes.is_none()
            && step.maps.iter().all(|name| self.maps.contains_key(name))
        {
            self.applied += 1;
        }
    }

    /// Returns the maps that the schema does not have.
    fn unknown_maps(&self) -> impl Iterator<Item = (String, ObjId)> {
        let unknown = |name: &str| self.schema.maps().all(|known| known != name);
        self.automerge.map_range(ROOT, ..).filter_map(move |item| {
            let (id, name) = (item.id(), item.key.to_string());
            let is_map = matches!(item.value.into_value(), Value::Object(ObjType::Map));
            (is_map && unknown(&name)).then_some((name, id))
        })
    }

    /// Returns whether a document with one writer has something that this version does not know. Its other maps are
    /// complete, unless [`Document::is_held`].
    pub(crate) fn needs_newer_version(&self) -> bool {
        self.is_held() || self.unknown_maps().next().is_some()
    }

    /// Returns whether some changes wait for others: for a schema change that this version does not know. What the document
    /// says is incomplete then.
    pub(crate) fn is_held(&self) -> bool {
        !self.automerge.get_missing_deps(&[]).is_empty()
    }

    /// Returns whether the document has a change.
    pub(crate) fn has(&self, hash: &ChangeHash) -> bool {
        self.automerge.get_change_meta_by_hash(hash).is_some()
    }

    /// Returns which of these changes depend on something that is neither in the document, nor among them, nor a schema
    /// change that this version knows.
    pub(crate) fn incomplete(&self, changes: &[&Change]) -> BTreeSet<usize> {
        let schema = self.schema.0.iter().skip(self.applied);
        let schema = schema.filter_map(|step| step.decode().ok().flatten());
        let mut known: BTreeSet<ChangeHash> = schema.map(|change| change.hash()).collect();
        let mut left: BTreeSet<usize> = (0..changes.len()).collect();
        loop {
            let before = left.len();
            left.retain(|&index| {
                let mut deps = changes[index].deps().iter();
                let complete = deps.all(|hash| known.contains(hash) || self.has(hash));
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
            if step.decode()?.is_some_and(|change| missing.contains(&change.hash())) {
                return self.upgrade(step.version).and_then(|()| self.follow_schema());
            }
        }
        Ok(())
    }

    /// Writes edits as one change of `actor`. Returns `None` if there are none.
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
        let mut maps: BTreeMap<&str, ObjId> = BTreeMap::new();
        for (name, entries) in &self.pending {
            if self.maps.contains_key(name.as_str()) {
                continue;
            }
            let map = transaction.put_object(ROOT, name, ObjType::Map).map_err(write_error)?;
            for (key, value) in entries {
                transaction.put(&map, key, value.clone()).map_err(write_error)?;
            }
            maps.insert(name, map);
        }
        for edit in edits {
            let made = || maps.get(edit.map);
            let Some(map) = self.maps.get(edit.map).or_else(made) else { continue };
            let held = transaction.get(map, &edit.key).map_err(write_error)?;
            // The change shows every edit, even of an entry that has this value, or is missing, in this document: Automerge
            // leaves out what changes nothing.
            match (&edit.value, held) {
                (Some(new), held) => {
                    if held.is_some_and(|(held, _)| held.as_str() == Some(new)) {
                        transaction.delete(map, &edit.key).map_err(write_error)?;
                    }
                    transaction.put(map, &edit.key, new.as_str()).map_err(write_error)?;
                }
                (None, held) => {
                    if held.is_none() {
                        transaction.put(map, &edit.key, "").map_err(write_error)?;
                    }
                    transaction.delete(map, &edit.key).map_err(write_error)?;
                }
            }
        }
        let seconds = i64::try_from(at / 1000).unwrap_or(i64::MAX);
        let (hash, _) = transaction.commit_with(CommitOptions::default().with_time(seconds));
        self.pending.clear();
        self.find_maps();
        let Some(hash) = hash else { return Ok(None) };
        let change = self.automerge.get_change_by_hash(&hash).ok_or_else(|| {
            DocumentError::Write("the change is missing after the commit".to_owned())
        })?;
        let written = Written { seq: change.seq(), bytes: change.raw_bytes().to_vec() };
        self.size += written.bytes.len();
        self.changes.push(written.bytes.clone());
        Ok(Some(written))
    }

    /// Applies changes of other nodes, all or none. Automerge can panic on malformed input: the document is built again
    /// then from what it had.
    pub(crate) fn apply(&mut self, changes: &[&Change]) -> Result<(), DocumentError> {
        let applied = catch_unwind(AssertUnwindSafe(|| {
            let applied = self.automerge.apply_changes(changes.iter().map(|&it| it.clone()));
            applied.map_err(|_| DocumentError::Malformed)?;
            self.follow_schema()?;
            self.find_maps();
            Ok(())
        }));
        if let Err(error) = applied.unwrap_or(Err(DocumentError::Panicked)) {
            self.rebuild()?;
            return Err(error);
        }
        self.size += changes.iter().map(|change| change.raw_bytes().len()).sum::<usize>();
        self.changes.extend(changes.iter().map(|change| change.raw_bytes().to_vec()));
        Ok(())
    }

    fn rebuild(&mut self) -> Result<(), DocumentError> {
        let mut document = self.empty()?;
        let changes = self.changes.iter().map(|bytes| Change::from_bytes(bytes.clone()));
        let changes: Result<Vec<Change>, _> = changes.collect();
        let changes = changes.map_err(|_| DocumentError::Malformed)?;
        document.apply(&changes.iter().collect::<Vec<_>>())?;
        document.pending = std::mem::take(&mut self.pending);
        *self = document;
        Ok(())
    }

    /// Returns the names of the maps.
    pub(crate) fn map_names(&self) -> impl Iterator<Item = &'static str> {
        self.maps.keys().copied()
    }

    /// Returns the value of an entry.
    pub(crate) fn get(&self, (map, key): &Key) -> Option<Option<String>> {
        let (value, _) = self.automerge.get(self.maps.get(map)?, key).ok()??;
        Some(value.as_str().map(str::to_owned))
    }

    /// Returns the entries that a change writes, deletions included.
    pub(crate) fn keys(&self, change: &Change) -> BTreeSet<Key> {
        let keys = change.decode().operations.into_iter().filter_map(|op| {
            let (ObjectId::Id(id), MapKey::Map(key)) = (op.obj, op.key) else { return None };
            let is_of = |map: &ObjId| match map {
                ObjId::Id(counter, actor, _) => (*counter, actor) == (id.counter(), id.actor()),
                ObjId::Root => false,
            };
            let (&map, _) = self.maps.iter().find(|(_, map)| is_of(map))?;
            Some((map, key.to_string()))
        });
        keys.collect()
    }

    /// Returns the entries that the changes write, without those changes that `except` selects.
    pub(crate) fn keys_except(&self, except: impl Fn(&Change) -> bool) -> BTreeSet<Key> {
        let changes = self.changes.iter().filter_map(|it| Change::from_bytes(it.clone()).ok());
        changes.filter(|change| !except(change)).flat_map(|change| self.keys(&change)).collect()
    }

    /// Returns the entries of all maps as they were with only the changes up to these sequence numbers.
    pub(crate) fn entries_at(&self, versions: &BTreeMap<Actor, u64>) -> Entries {
        let schema = self.schema.0.iter().take(self.applied);
        let schema = schema.filter_map(|step| step.decode().ok().flatten());
        let all = self.changes.iter().filter_map(|bytes| Change::from_bytes(bytes.clone()).ok());
        let included = all.filter(|change| covers(versions, change));
        let changes: Vec<Change> = schema.chain(included).collect();
        let deps: BTreeSet<&ChangeHash> = changes.iter().flat_map(|change| change.deps()).collect();
        let heads = changes.iter().map(Change::hash).filter(|hash| !deps.contains(hash));
        let heads: Vec<ChangeHash> = heads.collect();
        let maps = self.maps.iter().flat_map(|(&name, id)| {
            let range = self.automerge.map_range_at(id, .., &heads);
            range.map(text_entry).map(move |(key, value)| ((name, key), value))
        });
        maps.collect()
    }
}

impl Maps for Document {
    fn map(&self, name: &str) -> BTreeMap<String, Option<String>> {
        let Some(map) = self.maps.get(name) else { return BTreeMap::new() };
        self.automerge.map_range(map, ..).map(text_entry).collect()
    }
}

/// Returns whether these sequence numbers include a change.
pub(crate) fn covers(versions: &BTreeMap<Actor, u64>, change: &Change) -> bool {
    let actor = change.actor_id().to_bytes();
    let found = versions.iter().find(|(it, _)| it.as_bytes() == actor);
    found.is_some_and(|(_, &last)| change.seq() <= last)
}

/// Returns key and value of an entry; the value is `None` if it is not a string.
fn text_entry(item: automerge::iter::MapRangeItem<'_>) -> (String, Option<String>) {
    let text = match item.value.into_value() {
        Value::Scalar(scalar) => match scalar.as_ref() {
            ScalarValue::Str(text) => Some(text.to_string()),
            _ => None,
        },
        Value::Object(_) => None,
    };
    (item.key.to_string(), text)
}

/// Decodes one change and checks actor and sequence number against its envelope. Compressed changes are rejected: nodes
/// do not write them, and a small one can decompress to gigabytes.
pub(crate) fn decode(bytes: Vec<u8>, actor: &Actor, seq: u64) -> Result<Change, DocumentError> {
    /// Offset of the chunk type, behind four magic bytes and a checksum, and the type of an uncompressed change
    /// (Automerge binary format, section "Chunk container").
    const CHUNK_TYPE_OFFSET: usize = 8;
    const UNCOMPRESSED_CHANGE: u8 = 1;
    if bytes.get(CHUNK_TYPE_OFFSET) != Some(&UNCOMPRESSED_CHANGE) {
        return Err(DocumentError::Malformed);
    }
    let change = catch_unwind(AssertUnwindSafe(move || Change::from_bytes(bytes)))
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
mod tests;
