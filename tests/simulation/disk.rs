//! Disks. Data written once survives every crash, unless the disk has a fault. A write is kept whole or not at all, also by a host
//! that dies in it: redb rolls a torn commit back to the one before, which a test of the node's store shows.

use std::collections::{BTreeMap, BTreeSet};

use vc_engine::{Durable, Votes};
use vc_protocol::change::{Actor, Batch, ChangeRange, Checkpoint, DocumentId, SignedChange};
use vc_protocol::wire::MAX_BATCH;

use crate::operators::Written;

/// What is on a disk.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    changes: BTreeMap<(DocumentId, Actor, u64), SignedChange>,
    certificates: BTreeSet<String>,
    votes: Votes,
}

/// The disk of one node.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    contents: Contents,
    /// Number of following writes that fail.
    pub failing: u32,
    /// Every write fails.
    pub read_only: bool,
    /// Whether it was read-only since the last write that succeeded.
    pub was_read_only: bool,
    /// The host dies in the next write.
    pub tears: bool,
    /// What was on the disk when it began to confirm writes that it does not keep.
    lies_since: Option<Box<Contents>>,
    /// Whether the last write failed.
    pub failed: bool,
}

/// A write failed, and changed nothing.
#[derive(Debug)]
pub struct WriteFailed;

impl Disk {
    /// Returns a disk that holds these certificates.
    pub fn new(certificates: impl IntoIterator<Item = String>) -> Self {
        let certificates = certificates.into_iter().collect();
        Self { contents: Contents { certificates, ..Contents::default() }, ..Self::default() }
    }

    /// Writes atomically.
    pub fn persist(&mut self, durable: Durable) -> Result<(), WriteFailed> {
        self.failed = self.failing > 0 || self.read_only;
        if self.failed {
            self.failing = self.failing.saturating_sub(1);
            self.was_read_only |= self.read_only;
            return Err(WriteFailed);
        }
        self.contents.write(durable);
        Ok(())
    }

    /// Confirms writes from now on that it loses with the power.
    pub fn lie(&mut self) {
        self.lies_since.get_or_insert_with(|| Box::new(self.contents.clone()));
    }

    /// Writes for good what it has confirmed.
    pub fn sync(&mut self) {
        self.lies_since = None;
    }

    /// Loses what it has confirmed and not kept. Returns the number of changes that were lost.
    pub fn lose_power(&mut self) -> usize {
        self.lies_since.take().map(|kept| self.set_back(*kept)).unwrap_or_default()
    }

    /// Returns a copy of what it holds.
    pub fn backup(&self) -> Contents {
        self.contents.clone()
    }

    /// Replaces everything by a copy from earlier. Returns the number of changes that were lost.
    pub fn set_back(&mut self, copy: Contents) -> usize {
        self.lies_since = None;
        let before = std::mem::replace(&mut self.contents, copy).changes;
        before.keys().filter(|key| !self.contents.changes.contains_key(key)).count()
    }

    /// Returns everything on the disk.
    pub fn load(&self) -> Durable {
        Durable {
            changes: self.contents.changes.values().cloned().collect(),
            certificates: self.contents.certificates.iter().cloned().collect(),
            replaced: Vec::new(),
            votes: self.contents.votes.clone(),
        }
    }

    /// Returns how many changes of the cluster document the disk holds.
    pub fn cluster_changes(&self) -> usize {
        let documents = self.contents.changes.keys().map(|(document, _, _)| document);
        documents.filter(|document| matches!(document, DocumentId::Cluster { .. })).count()
    }

    /// Returns how many changes of each node document the disk holds.
    pub fn node_changes(&self) -> BTreeMap<DocumentId, usize> {
        let mut counts = BTreeMap::new();
        for (document, _, _) in self.contents.changes.keys() {
            if matches!(document, DocumentId::Node { .. }) {
                *counts.entry(*document).or_default() += 1;
            }
        }
        counts
    }

    /// Returns whether the disk holds this change.
    pub fn holds(&self, change: &SignedChange) -> bool {
        let body = change.decode_unverified().expect("a readable change");
        self.contents.changes.get(&(body.document, body.actor, body.seq)) == Some(change)
    }

    /// Returns whether the disk holds a change of the cluster document, or a checkpoint that contains it.
    pub fn records(&self, written: &Written) -> bool {
        let contains = |checkpoint: Checkpoint| match checkpoint.covers.get(&written.generation) {
            Some(actors) => actors.get(&written.actor).is_some_and(|&last| last >= written.seq),
            // All members had it when its generation was dropped.
            None => checkpoint.covers.keys().next().is_some_and(|&it| it > written.generation),
        };
        let is_first = |(key, _): &(&(DocumentId, Actor, u64), &SignedChange)| key.2 == 1;
        let mut first = self.contents.changes.iter().filter(is_first).map(|(_, change)| change);
        self.holds(&written.change)
            || first.any(|change| {
                let body = change.decode_unverified().expect("a readable change");
                body.checkpoint.is_some_and(contains)
            })
    }

    /// Returns the changes of these ranges in batches of at most [`MAX_BATCH`] bytes, each with all certificates.
    pub fn replay(&self, runs: &[ChangeRange]) -> Vec<Batch> {
        let certificates: Vec<String> = self.contents.certificates.iter().cloned().collect();
        let new = || Batch { certificates: certificates.clone(), changes: Vec::new() };
        let fixed: usize = certificates.iter().map(String::len).sum();
        let wanted = |(document, actor, seq): &(DocumentId, Actor, u64)| {
            let holds = |run: &ChangeRange| {
                run.document == *document && run.actor.is_none_or(|it| it == *actor)
            };
            runs.iter().any(|run| holds(run) && (run.from..=run.to).contains(seq))
        };
        let mut batches = vec![new()];
        let mut size = fixed;
        for (_, change) in self.contents.changes.iter().filter(|(key, _)| wanted(key)) {
            if size + change.encoded_len() > MAX_BATCH && size > fixed {
                batches.push(new());
                size = fixed;
            }
            size += change.encoded_len();
            batches.last_mut().expect("never empty").changes.push(change.clone());
        }
        batches
    }
}

impl Contents {
    /// Panics when a change has the number of another one.
    fn write(&mut self, durable: Durable) {
        let Durable { changes, certificates, replaced, votes } = durable;
        self.certificates.extend(certificates);
        self.votes.leases.extend(votes.leases);
        self.votes.leases.retain(|key, _| !votes.forgotten.contains(key));
        if votes.change.is_some() {
            self.votes.change = votes.change;
        }
        for change in changes {
            let body = change.decode_unverified().expect("the engine persists readable changes");
            let held = self.changes.insert((body.document, body.actor, body.seq), change.clone());
            assert!(
                held.is_none_or(|held| held == change),
                "the disk holds a different change with this number, by {:?}",
                body.actor
            );
        }
        let replaced: BTreeSet<DocumentId> = replaced.into_iter().collect();
        self.changes.retain(|(document, _, _), _| !replaced.contains(document));
    }
}
