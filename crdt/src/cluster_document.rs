//! The cluster document: its present generation, and the changes of the one before that the checkpoint does not contain.

use std::collections::{BTreeMap, BTreeSet};

use automerge::Change;
use vc_protocol::change::{Actor, Checkpoint, generation_of};
use vc_protocol::planted::{PlantedBug, is_planted};
use vc_protocol::{Millis, NodeId};

use crate::document::{Document, DocumentError, Edit, Entries, Key, Schema, Written, covers};
use crate::state::Maps;
use crate::trust::TrustKey;

/// How a generation begins.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// The actor of the checkpoint.
    pub(crate) actor: Actor,
    pub(crate) checkpoint: Checkpoint,
}

impl Start {
    /// Returns the generation that the checkpoint follows.
    pub(crate) fn follows(&self) -> u64 {
        generation_of(&self.checkpoint.covers)
    }

    /// Returns whether a change of this generation is part of the checkpoint.
    fn is_part(&self, change: &Change) -> bool {
        change.actor_id().to_bytes() == self.actor.as_bytes()
            && change.seq() <= self.checkpoint.parts
    }

    /// Returns whether the checkpoint contains a change of the generation that it follows.
    fn covers(&self, change: &Change) -> bool {
        let actors = self.checkpoint.covers.last_key_value().map(|(_, actors)| actors);
        actors.is_some_and(|actors| covers(actors, change))
    }

    /// Returns the sequence numbers of the checkpoint.
    pub(crate) fn versions(&self) -> BTreeMap<Actor, u64> {
        BTreeMap::from([(self.actor, self.checkpoint.parts)])
    }
}

/// Who may not write a generation, as its checkpoint says. It is fixed for a generation: otherwise nodes that learn of a
/// removal at different times would not accept the same changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exclusions {
    /// The nodes that had left.
    pub(crate) left: BTreeSet<NodeId>,
    /// The epoch of the signing key.
    pub(crate) epoch: u32,
}

impl Exclusions {
    fn of(start: &Start, document: &Document) -> Self {
        let mut exclusions = Self::default();
        for (map, key) in document.entries_at(&start.versions()).into_keys() {
            match map {
                "left" => exclusions.left.extend(key.parse::<NodeId>()),
                "trust" => {
                    if let Ok(TrustKey::Epoch(epoch)) = key.parse() {
                        exclusions.epoch = epoch.max(exclusions.epoch);
                    }
                }
                _ => {}
            }
        }
        exclusions
    }
}

/// One generation after the other: what was on its way when a checkpoint was written stays valid in the generation before,
/// and holds for entries that were not written since. So the content is a function of the changes of both, and nodes with the
/// same changes read the same.
pub(crate) struct ClusterDocument {
    present: Document,
    /// How the present generation begins; `None` in generation 0.
    start: Option<Start>,
    /// Size of the checkpoint in bytes.
    start_size: usize,
    exclusions: Exclusions,
    /// Those of the generation before.
    previous_exclusions: Exclusions,
    /// The generation before; `None` in generation 0.
    previous: Option<Document>,
    /// Entries that changes of the generation before have written, and the checkpoint does not contain.
    late: BTreeSet<Key>,
    /// Entries that were written since the checkpoint.
    written: BTreeSet<Key>,
}

impl ClusterDocument {
    /// Returns the empty document of generation 0.
    pub(crate) fn new(schema: Schema) -> Result<Self, DocumentError> {
        Ok(Self {
            present: Document::new(schema)?,
            start: None,
            start_size: 0,
            exclusions: Exclusions::default(),
            previous_exclusions: Exclusions::default(),
            previous: None,
            late: BTreeSet::new(),
            written: BTreeSet::new(),
        })
    }

    /// Goes on with the generation that begins with `start`. `is_next` says whether it follows the present one, whose
    /// changes remain of value then.
    pub(crate) fn enter(
        &mut self,
        start: Start,
        document: Document,
        is_next: bool,
    ) -> Result<(), DocumentError> {
        let before = std::mem::replace(&mut self.present, document);
        let previous = if is_next { before } else { self.present.empty()? };
        let exclusions = Exclusions::of(&start, &self.present);
        let before = std::mem::replace(&mut self.exclusions, exclusions);
        self.previous_exclusions = if is_next { before } else { Exclusions::default() };
        self.late = previous.keys_except(|change| start.covers(change));
        self.written = self.present.keys_except(|change| start.is_part(change));
        self.start_size = self.present.size();
        (self.start, self.previous) = (Some(start), Some(previous));
        Ok(())
    }

    pub(crate) fn present(&self) -> &Document {
        &self.present
    }

    /// Returns who may not write the present generation, or the one before.
    pub(crate) fn exclusions(&self, is_present: bool) -> &Exclusions {
        if is_present { &self.exclusions } else { &self.previous_exclusions }
    }

    /// Returns the epoch of the signing key at the start of the present generation and of the one before, whichever is lower.
    pub(crate) fn epoch(&self) -> u32 {
        let previous = self.previous.as_ref().map(|_| self.previous_exclusions.epoch);
        previous.unwrap_or(self.exclusions.epoch).min(self.exclusions.epoch)
    }

    pub(crate) fn previous(&self) -> Option<&Document> {
        self.previous.as_ref()
    }

    /// Returns the number of changes since the checkpoint, and their size in bytes beyond that of the checkpoint.
    pub(crate) fn growth(&self) -> (u64, usize) {
        let parts = self.start.as_ref().map_or(0, |start| start.checkpoint.parts);
        let changes = (self.present.len() as u64).saturating_sub(parts);
        (changes, self.present.size().saturating_sub(self.start_size))
    }

    /// Returns the size of the checkpoint in bytes.
    pub(crate) fn start_size(&self) -> usize {
        self.start_size
    }

    /// Returns whether one of the generations waits for changes that this version does not know.
    pub(crate) fn is_held(&self) -> bool {
        self.present.is_held() || self.previous.as_ref().is_some_and(Document::is_held)
    }

    /// Applies the schema changes up to a version.
    pub(crate) fn upgrade(&mut self, version: u32) -> Result<(), DocumentError> {
        self.present.upgrade(version)
    }

    /// Applies changes of the present generation, all or none.
    pub(crate) fn apply(&mut self, changes: &[&Change]) -> Result<(), DocumentError> {
        self.present.apply(changes)?;
        for change in changes {
            if self.start.as_ref().is_none_or(|start| !start.is_part(change)) {
                self.written.extend(self.present.keys(change));
            }
        }
        Ok(())
    }

    /// Applies changes of the generation before, all or none.
    pub(crate) fn apply_late(&mut self, changes: &[&Change]) -> Result<(), DocumentError> {
        let (Some(previous), Some(start)) = (&mut self.previous, &self.start) else {
            return Ok(());
        };
        previous.apply(changes)?;
        if is_planted(PlantedBug::LateChangesLost) {
            return Ok(());
        }
        for change in changes.iter().filter(|change| !start.covers(change)) {
            self.late.extend(previous.keys(change));
        }
        Ok(())
    }

    /// Writes edits as one change of the present generation. Returns `None` if there are none.
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
        let written = self.present.write(actor, edits, at)?;
        self.written.extend(edits.iter().map(|edit| (edit.map, edit.key.clone())));
        Ok(written)
    }

    /// Returns the entries of all maps; a value is `None` if it is not a string.
    pub(crate) fn entries(&self) -> Entries {
        let maps = self.present.map_names();
        let entries =
            maps.flat_map(|map| self.map(map).into_iter().map(move |(key, it)| ((map, key), it)));
        entries.collect()
    }

    /// Returns the entries as they were with only the changes up to these sequence numbers of the present generation.
    pub(crate) fn entries_at(&self, versions: &BTreeMap<Actor, u64>) -> Entries {
        let mut entries = self.present.entries_at(versions);
        let is_part = |change: &Change| self.start.as_ref().is_some_and(|it| it.is_part(change));
        let written = self.present.keys_except(|it| is_part(it) || !covers(versions, it));
        for (key, value) in self.late_entries(&written) {
            set(&mut entries, key.clone(), value);
        }
        entries
    }

    /// Returns the late entries that were not written since, with their values; `None` if the entry is deleted.
    fn late_entries<'a>(
        &'a self,
        written: &'a BTreeSet<Key>,
    ) -> impl Iterator<Item = (&'a Key, Option<Option<String>>)> {
        let late = self.previous.iter().flat_map(|it| self.late.iter().map(move |key| (it, key)));
        late.filter(|(_, key)| !written.contains(key)).map(|(it, key)| (key, it.get(key)))
    }
}

/// Puts an entry into a map, or removes it.
fn set<K: Ord, V>(entries: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(entries.insert(key, value)),
        None => drop(entries.remove(&key)),
    }
}

impl Maps for ClusterDocument {
    fn map(&self, name: &str) -> BTreeMap<String, Option<String>> {
        let mut entries = self.present.map(name);
        for ((_, key), value) in self.late_entries(&self.written).filter(|(key, _)| key.0 == name) {
            set(&mut entries, key.clone(), value);
        }
        entries
    }
}
