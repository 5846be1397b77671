//! Disks. Data written once survives every crash, unless the disk has a fault.

use std::collections::{BTreeMap, BTreeSet};

use vc_engine::{Durable, Votes};
use vc_protocol::change::{Actor, Batch, ChangeRange, DocumentId, SignedChange};
use vc_protocol::wire::MAX_BATCH;

use crate::rng::Rng;

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
    /// The host dies in the next write, which is kept in part.
    pub tears: bool,
    /// Whether a part of a write was lost since the disk was made: what is left may have gaps.
    pub torn: bool,
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
        self.contents.write(durable, |_| true);
        Ok(())
    }

    /// Writes a random part.
    pub fn tear(&mut self, durable: Durable, rng: &mut Rng) {
        self.torn = true;
        self.contents.write(durable, |_| rng.permille(500));
    }

    /// Confirms writes from now on that it loses with the power.
    pub fn lie(&mut self) {
        self.lies_since.get_or_insert_with(|| Box::new(self.contents.clone()));
    }

    /// Writes for good what it has confirmed.
    pub fn sync(&mut self) {
        self.lies_since = None;
    }

    /// Loses what it has confirmed and not kept. Returns the changes that were lost.
    pub fn lose_power(&mut self) -> Vec<SignedChange> {
        self.lies_since.take().map(|kept| self.set_back(*kept)).unwrap_or_default()
    }

    /// Returns a copy of what it holds.
    pub fn backup(&self) -> Contents {
        self.contents.clone()
    }

    /// Replaces everything by a copy from earlier. Returns the changes that were lost.
    pub fn set_back(&mut self, copy: Contents) -> Vec<SignedChange> {
        self.lies_since = None;
        let before = std::mem::replace(&mut self.contents, copy).changes;
        let lost = before.into_iter().filter(|(key, _)| !self.contents.changes.contains_key(key));
        lost.map(|(_, change)| change).collect()
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
    /// Writes the parts that `keeps` lets through. Panics when a change has the number of another one.
    fn write(&mut self, durable: Durable, mut keeps: impl FnMut(usize) -> bool) {
        let Durable { changes, certificates, replaced, votes } = durable;
        self.certificates.extend(certificates);
        self.votes.leases.extend(votes.leases);
        if votes.change.is_some() {
            self.votes.change = votes.change;
        }
        for (n, change) in changes.into_iter().enumerate() {
            if !keeps(n) {
                continue;
            }
            let body = change.decode_unverified().expect("the engine persists readable changes");
            let held = self.changes.insert((body.document, body.actor, body.seq), change.clone());
            assert!(
                held.is_none_or(|held| held == change),
                "the disk holds a different change with this number, by {:?}",
                body.actor
            );
        }
        let replaced: BTreeSet<DocumentId> =
            replaced.into_iter().filter(|_| keeps(usize::MAX)).collect();
        self.changes.retain(|(document, _, _), _| !replaced.contains(document));
    }
}
