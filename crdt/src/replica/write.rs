//! Writes of this node: changes of the cluster document and of its own node document.

use std::collections::btree_map::Entry;

use vc_protocol::Millis;
use vc_protocol::change::{
    Actor, Batch, ChangeBody, Checkpoint, DocumentId, SignedChange, Subject, next_generation,
};

use super::checkpoint::split;
use super::{NodeDocument, Replica};
use vc_protocol::planted::{PlantedBug, is_planted};

use crate::document::{Document, DocumentError, Edit, Written};
use crate::progress::last;
use crate::schema::RUNS;
use crate::state::{ClusterState, Maps as _, NodeState};

impl Replica {
    /// Returns the generation of this node's document; `None` before the first.
    pub fn own_generation(&self) -> Option<u64> {
        self.nodes.get(&self.id).map(|own| own.generation)
    }

    /// Returns the actor for this node's writes to the cluster document. It is kept across restarts, unless `may_reuse` is
    /// false: a data directory restored from a backup would use sequence numbers twice, as would one with later changes of the
    /// actor that do not count yet.
    fn actor(&mut self, may_reuse: bool, nonce: u64) -> Actor {
        let id = self.id;
        let generation = self.generation();
        let document = DocumentId::Cluster { generation };
        let actors = self.progress.versions.cluster.get(&generation);
        let mut actors = actors.into_iter().flat_map(|actors| actors.keys().rev());
        let is_usable = |actor: &Actor| {
            actor.belongs_to(id) && !self.stranded.contains_key(&(document, *actor))
        };
        let held = || actors.find(|actor| is_usable(actor)).copied();
        let actor = self.actor.or_else(|| may_reuse.then(held).flatten());
        *self.actor.insert(actor.unwrap_or_else(|| Actor::new(id, nonce)))
    }

    /// Writes the difference to `desired` into the cluster document. Returns `None` if there is none.
    ///
    /// Set `may_reuse` once it is known that no peer has later changes of this node's actor; otherwise a new actor is made
    /// from `nonce`.
    pub fn write_cluster(
        &mut self,
        desired: &ClusterState,
        by: Option<Subject>,
        now: Millis,
        may_reuse: bool,
        nonce: u64,
    ) -> Result<Option<SignedChange>, DocumentError> {
        let edits = self.cluster_state.edits(desired);
        let is_unreadable = |edit: &&Edit| {
            self.cluster_unreadable.iter().any(|it| it.map == edit.map && it.key == edit.key)
        };
        if let Some(edit) = edits.iter().find(is_unreadable) {
            return Err(DocumentError::Unreadable { map: edit.map, key: edit.key.clone() });
        }
        let actor = self.actor(may_reuse, nonce);
        self.write_edits(actor, &edits, by, now)
    }

    /// Writes the content with which a cluster begins whose only member is this node. Its document is empty.
    ///
    /// # Errors
    /// Automerge cannot write the document.
    pub fn found(
        &mut self,
        content: &ClusterState,
        by: &Subject,
        now: Millis,
        nonce: u64,
    ) -> Result<Vec<SignedChange>, DocumentError> {
        // No member is of an older version.
        self.cluster.upgrade(self.knows.cluster.version())?;
        let actor = self.actor(false, nonce);
        let mut changes = Vec::new();
        for edits in split(self.cluster_state.edits(content)) {
            changes.extend(self.write_edits(actor, &edits, Some(by.clone()), now)?);
        }
        Ok(changes)
    }

    fn write_edits(
        &mut self,
        actor: Actor,
        edits: &[Edit],
        by: Option<Subject>,
        now: Millis,
    ) -> Result<Option<SignedChange>, DocumentError> {
        let Some(written) = self.cluster.write(&actor, edits, now)? else { return Ok(None) };
        let generation = self.generation();
        let actors = self.progress.versions.cluster.entry(generation).or_default();
        check_sequence(last(actors, &actor), &written)?;
        actors.insert(actor, written.seq);
        self.read_cluster();
        let document = self.cluster_document();
        Ok(Some(self.sign(document, actor, by, now, None, written)))
    }

    /// Writes the difference to `desired` into this node's document. Returns `None` if there is none.
    pub fn write_node(
        &mut self,
        desired: &NodeState,
        now: Millis,
    ) -> Result<Option<SignedChange>, DocumentError> {
        let none = NodeState::default();
        let held = self.node_states.get(&self.id).unwrap_or(&none);
        if held == desired {
            return Ok(None);
        }
        let edits = held.edits(desired);
        let generation = self.nodes.get(&self.id).map_or(1, |own| own.generation);
        self.append_own(generation, &edits, desired, now)
    }

    /// Starts a new generation of this node's document with `state` and without history. Entries that this version cannot
    /// read are taken over, and maps that it does not know.
    ///
    /// `nonce` is a random number that is new at each start: two processes on copies of one data directory do not write the
    /// same generation.
    pub fn start_generation(
        &mut self,
        state: &NodeState,
        now: Millis,
        nonce: u64,
    ) -> Result<Option<SignedChange>, DocumentError> {
        let last = self.nodes.get(&self.id).map_or(0, |own| own.generation);
        let nonce = if is_planted(PlantedBug::RepeatedGeneration) { 0 } else { nonce };
        let generation = next_generation(last, nonce);
        let mut edits = NodeState::default().edits(state);
        if let Some(old) = self.nodes.get(&self.id) {
            if old.document.is_held() {
                return Err(DocumentError::Held);
            }
            edits.extend(old.unreadable.iter().filter_map(|entry| {
                let value = old.document.map(entry.map).remove(&entry.key)?;
                Some(Edit { map: entry.map, key: entry.key.clone(), value: Some(value?) })
            }));
        }
        let document = match self.nodes.get(&self.id) {
            Some(old) => old.document.next_generation()?,
            None => Document::new(self.knows.node)?,
        };
        let own = NodeDocument { generation, seq: 0, document, unreadable: Vec::new() };
        self.nodes.insert(self.id, own);
        let written = self.append_own(generation, &edits, state, now)?;
        if let Some(own) = self.nodes.get_mut(&self.id) {
            let document = DocumentId::Node { node: self.id, generation };
            own.unreadable = NodeState::read(&own.document, document).1;
        }
        Ok(written)
    }

    /// Returns the number of changes in the present generation of this node's document.
    pub fn own_change_count(&self) -> u64 {
        self.nodes.get(&self.id).map_or(0, |own| own.seq)
    }

    fn append_own(
        &mut self,
        generation: u64,
        edits: &[Edit],
        desired: &NodeState,
        now: Millis,
    ) -> Result<Option<SignedChange>, DocumentError> {
        let actor = Actor::new(self.id, generation);
        let own = match self.nodes.entry(self.id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(NodeDocument {
                generation,
                seq: 0,
                document: Document::new(self.knows.node)?,
                unreadable: Vec::new(),
            }),
        };
        let Some(written) = own.document.write(&actor, edits, now)? else { return Ok(None) };
        check_sequence(own.seq, &written)?;
        own.seq = written.seq;
        self.progress.versions.nodes.insert(self.id, (generation, written.seq));
        let mut state = desired.clone();
        if own.document.version() < RUNS {
            // The document has no maps for them: nothing is written.
            (state.runs, state.due) = Default::default();
        }
        self.node_states.insert(self.id, state);
        let document = DocumentId::Node { node: self.id, generation };
        Ok(Some(self.sign(document, actor, None, now, None, written)))
    }

    pub(super) fn sign(
        &self,
        document: DocumentId,
        actor: Actor,
        by: Option<Subject>,
        at: Millis,
        checkpoint: Option<Checkpoint>,
        written: Written,
    ) -> SignedChange {
        let body = ChangeBody {
            cluster: self.cluster_id,
            document,
            actor,
            seq: written.seq,
            author: self.id,
            on_behalf_of: by,
            timestamp: at,
            checkpoint,
            payload: written.bytes,
        };
        SignedChange::sign(&body, &self.key)
    }

    /// Returns these changes with this node's certificate, for gossip.
    pub fn batch(&self, changes: Vec<SignedChange>) -> Batch {
        let own = self.own_certificate().map(str::to_owned);
        Batch { certificates: own.into_iter().collect(), changes }
    }
}

/// Errors: the change does not follow the last one that is known of its actor.
fn check_sequence(last: u64, written: &Written) -> Result<(), DocumentError> {
    let (expected, found) = (last + 1, written.seq);
    if found == expected { Ok(()) } else { Err(DocumentError::Sequence { expected, found }) }
}
