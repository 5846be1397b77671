//! Checkpoints: new generations of the cluster document, which bound its history.
//!
//! One server writes the whole content as the first changes of a new generation. Every node that has the complete checkpoint
//! goes on with that generation, and drops the one before the last. Changes that the checkpoint does not contain, because
//! they were on their way, stay valid (`ClusterDocument`). `vc-engine` has a checkpoint written only while all members are up
//! and agree by [`Replica::settled`]: what is dropped is known to all of them, and no node writes there any more.
//! Causal stability is the term for it (Baquero, Almeida and Shoker, "Making operation-based CRDTs operation-based", 2014).

use std::collections::BTreeMap;

use vc_protocol::change::{
    Actor, Checkpoint, ClusterVersions, DocumentId, SignedChange, generation_of, next_generation,
};
use vc_protocol::wire::fingerprint;
use vc_protocol::{Millis, NodeId};

use super::Replica;
use super::receive::{Incoming, report_new};
use crate::cluster_document::Start;
use crate::document::{Document, DocumentError, Edit, Schema};
use crate::progress::last;
use crate::received::Received;
use crate::state::ClusterState;

/// Growth of the history after which a checkpoint is due, in bytes, beside twice the size of the last checkpoint.
const MAX_GROWTH: usize = 8 << 20;
/// Size of keys and values in one change of a checkpoint, in bytes; a larger entry has a change of its own.
const PART: usize = 256 << 10;

/// Splits edits into those of several changes.
pub(super) fn split(edits: impl IntoIterator<Item = Edit>) -> Vec<Vec<Edit>> {
    let mut parts: Vec<Vec<Edit>> = Vec::new();
    let mut size = 0;
    for edit in edits {
        let added = edit.key.len() + edit.value.as_ref().map_or(0, String::len);
        match parts.last_mut() {
            Some(part) if size + added <= PART => {
                size += added;
                part.push(edit);
            }
            _ => {
                size = added;
                parts.push(vec![edit]);
            }
        }
    }
    parts
}

/// A later generation of the cluster document, until its checkpoint is complete.
pub(super) struct Upcoming {
    generation: u64,
    start: Start,
    document: Document,
    /// Made durable once the checkpoint is complete.
    changes: Vec<SignedChange>,
}

impl Upcoming {
    fn new(schema: Schema, generation: u64, first: &Incoming) -> Result<Self, DocumentError> {
        let checkpoint = first.body.checkpoint.clone().ok_or(DocumentError::Malformed)?;
        let start = Start { actor: first.body.actor, checkpoint };
        Ok(Self { generation, start, document: Document::new(schema)?, changes: Vec::new() })
    }

    /// Returns the generation, the actor of its checkpoint, and of how many changes that one consists.
    pub(super) fn parts(&self) -> ((u64, Actor), u64) {
        ((self.generation, self.start.actor), self.start.checkpoint.parts)
    }
}

/// The result of [`Replica::write_checkpoint`].
#[derive(Debug)]
pub struct NewGeneration {
    /// The changes of the checkpoint.
    pub changes: Vec<SignedChange>,
    /// The documents whose changes are dropped.
    pub dropped: Vec<DocumentId>,
}

impl Replica {
    /// Returns the generation of the cluster document.
    pub(super) fn generation(&self) -> u64 {
        generation_of(&self.progress.versions.cluster)
    }

    /// Returns the document of a generation; `None` if none of its changes is known.
    pub(super) fn cluster_generation(&self, generation: u64) -> Option<&Document> {
        let upcoming = self.upcoming.as_ref().filter(|it| it.generation == generation);
        if let Some(upcoming) = upcoming {
            Some(&upcoming.document)
        } else if generation == self.generation() {
            Some(self.cluster.present())
        } else {
            self.cluster.previous().filter(|_| generation < self.generation())
        }
    }

    /// Applies changes of a later generation than the present one, which it follows once its checkpoint is complete.
    pub(super) fn apply_upcoming(
        &mut self,
        generation: u64,
        incoming: &[Incoming],
        received: &mut Received,
    ) -> Result<(), DocumentError> {
        let Some(first) = incoming.first() else { return Ok(()) };
        let held = self.upcoming.take_if(|it| it.generation == generation);
        let mut upcoming =
            held.map_or_else(|| Upcoming::new(self.knows.cluster, generation, first), Ok)?;
        let changes: Vec<_> = incoming.iter().map(|it| &it.change).collect();
        let applied = upcoming.document.apply(&changes);
        if applied.is_ok() {
            upcoming.changes.extend(incoming.iter().map(|it| it.signed.clone()));
            incoming.iter().for_each(|change| self.progress.advance(&change.body));
        }
        let versions = self.progress.upcoming.as_ref().filter(|(it, _)| *it == generation);
        let known = versions.map_or(0, |(_, actors)| last(actors, &upcoming.start.actor));
        if applied.is_ok() && known >= upcoming.start.checkpoint.parts {
            return self.follow(upcoming, received);
        }
        if known > 0 {
            self.upcoming = Some(upcoming);
        }
        applied
    }

    /// Goes on with a later generation, whose checkpoint is complete.
    fn follow(&mut self, upcoming: Upcoming, received: &mut Received) -> Result<(), DocumentError> {
        let Upcoming { generation, start, document, changes } = upcoming;
        let (_, actors) = self.progress.upcoming.take().unwrap_or_default();
        if !self.is_correct(&start, &document) {
            return Err(DocumentError::Checkpoint);
        }
        let before = std::mem::take(&mut self.cluster_unreadable);
        received.replaced.extend(self.enter(generation, actors, start, document)?);
        received.accepted.extend(changes);
        report_new(&before, &self.cluster_unreadable, received);
        Ok(())
    }

    /// Enters a generation. Returns the documents whose changes are dropped.
    fn enter(
        &mut self,
        generation: u64,
        actors: BTreeMap<Actor, u64>,
        start: Start,
        document: Document,
    ) -> Result<Vec<DocumentId>, DocumentError> {
        let follows = start.follows();
        let is_next = follows == self.generation();
        self.cluster.enter(start, document, is_next)?;
        let mut dropped = std::mem::take(&mut self.progress.versions.cluster);
        let previous = dropped.remove(&follows).filter(|_| is_next).unwrap_or_default();
        let versions = ClusterVersions::from([(follows, previous), (generation, actors)]);
        self.progress.versions.cluster = versions;
        self.actor = None;
        self.read_cluster();
        Ok(dropped.into_keys().map(|generation| DocumentId::Cluster { generation }).collect())
    }

    pub(super) fn read_cluster(&mut self) {
        (self.cluster_state, self.cluster_unreadable) =
            ClusterState::read(&self.cluster, self.cluster_document());
        self.follow_signing_key();
    }

    /// Returns whether a checkpoint has the content that follows from the changes that it covers, if this node has them and
    /// knows all of both.
    fn is_correct(&self, start: &Start, document: &Document) -> bool {
        if self.cluster.is_held() || document.is_held() {
            return true;
        }
        let (mut versions, mut covers) =
            (self.progress.versions.cluster.clone(), start.checkpoint.covers.clone());
        let (Some((of, known)), Some((generation, covered))) =
            (versions.pop_last(), covers.pop_last())
        else {
            return true;
        };
        let includes_all = covered.iter().all(|(actor, &seq)| last(&known, actor) >= seq);
        let knows_all = of == generation && versions == covers && includes_all;
        !knows_all || self.cluster.entries_at(&covered) == document.entries_at(&start.versions())
    }

    /// Returns a fingerprint of the members, the author of the next checkpoint and the changes of the generation of the
    /// cluster document before the present one. While all members agree, a new generation can begin. A node that holds the
    /// cluster document names no members and no author: it does not read which nodes have left, and writes no checkpoint.
    pub fn settled(&self) -> u64 {
        self.settled_as(self.cluster.is_held())
    }

    /// Returns what members say of [`Replica::settled`] that agree with this node, which reads the cluster document: those that
    /// read it, and those that hold it.
    pub fn agreeing(&self) -> [u64; 2] {
        [false, true].map(|is_held| self.settled_as(is_held))
    }

    fn settled_as(&self, is_held: bool) -> u64 {
        let members: Vec<NodeId> =
            if is_held { Vec::new() } else { self.present_members().collect() };
        let author = if is_held { None } else { self.checkpoint_author() };
        let generations: Vec<u64> = self.progress.versions.cluster.keys().copied().collect();
        let mut previous = self.progress.versions.cluster.clone();
        previous.pop_last();
        fingerprint(&(members, author, generations, previous))
    }

    /// Returns the members that have not left, in order.
    pub fn present_members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members().filter(|node| !self.cluster_state.left.contains_key(node))
    }

    /// Returns the server that starts the next generation of the cluster document: the first that reads all documents.
    pub fn checkpoint_author(&self) -> Option<NodeId> {
        let holds = |node: &NodeId| self.node_states.get(node).is_some_and(|it| it.holds.all);
        self.servers().find(|node| !self.cluster_state.left.contains_key(node) && !holds(node))
    }

    /// Returns whether the history of the cluster document has grown by so many changes, or by megabytes, that a new
    /// generation is due.
    pub fn is_checkpoint_due(&self, history: u64) -> bool {
        let (changes, bytes) = self.cluster.growth();
        // After a rotation two are due, until no former member may write a generation any more.
        if self.cluster.epoch() < self.membership.signing().epoch {
            return true;
        }
        changes >= history || bytes > MAX_GROWTH + 2 * self.cluster.start_size()
    }

    /// Starts a new generation of the cluster document with the same content and without history. Returns `None` if the document
    /// is empty.
    ///
    /// # Errors
    /// The document is held, or has an entry that is not a string.
    pub fn write_checkpoint(
        &mut self,
        now: Millis,
        nonce: u64,
    ) -> Result<Option<NewGeneration>, DocumentError> {
        if self.cluster.is_held() {
            return Err(DocumentError::Held);
        }
        let edits = self.cluster.entries().into_iter().map(|((map, key), value)| match value {
            Some(value) => Ok(Edit { map, key, value: Some(value) }),
            None => Err(DocumentError::NotAString { map, key }),
        });
        let parts = split(edits.collect::<Result<Vec<Edit>, DocumentError>>()?);
        if parts.is_empty() {
            return Ok(None);
        }
        let covers = self.progress.versions.cluster.clone();
        let generation = next_generation(self.generation(), nonce);
        let id = DocumentId::Cluster { generation };
        let actor = Actor::new(self.id, nonce);
        let start = Start { actor, checkpoint: Checkpoint { covers, parts: parts.len() as u64 } };
        let mut document = self.cluster.present().empty()?;
        let mut changes = Vec::with_capacity(parts.len());
        for edits in &parts {
            let written = document.write(&actor, edits, now)?;
            let written = written.ok_or_else(|| DocumentError::Write("no change".to_owned()))?;
            let checkpoint = changes.is_empty().then(|| start.checkpoint.clone());
            changes.push(self.sign(id, actor, None, now, checkpoint, written));
        }
        let dropped = self.enter(generation, start.versions(), start, document)?;
        self.actor = Some(actor);
        Ok(Some(NewGeneration { changes, dropped }))
    }
}
