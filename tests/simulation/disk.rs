//! Disks. Data written once survives every crash.

use std::collections::{BTreeMap, BTreeSet};

use vc_engine::{Durable, Votes};
use vc_protocol::change::{Actor, Batch, ChangeRange, DocumentId, SignedChange};
use vc_protocol::wire::MAX_BATCH;

/// The disk of one node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    changes: BTreeMap<(DocumentId, Actor, u64), SignedChange>,
    certificates: BTreeSet<String>,
    votes: Votes,
    /// Number of following writes that fail.
    pub(crate) failing: u32,
}

impl Disk {
    /// Returns a disk that holds these certificates.
    pub(crate) fn new(certificates: impl IntoIterator<Item = String>) -> Self {
        Self { certificates: certificates.into_iter().collect(), ..Self::default() }
    }

    /// Writes atomically. Returns `false` if the write failed and nothing was written.
    pub(crate) fn persist(&mut self, durable: Durable) -> bool {
        if self.failing > 0 {
            self.failing -= 1;
            return false;
        }
        self.certificates.extend(durable.certificates);
        self.votes.leases.extend(durable.votes.leases);
        if durable.votes.change.is_some() {
            self.votes.change = durable.votes.change;
        }
        for change in durable.changes {
            let body = change.decode_unverified().expect("the engine persists readable changes");
            let held = self.changes.insert((body.document, body.actor, body.seq), change.clone());
            assert!(
                held.is_none_or(|held| held == change),
                "the disk holds a different change with this number, by {:?}",
                body.actor
            );
        }
        let replaced: BTreeSet<DocumentId> = durable.replaced.into_iter().collect();
        self.changes.retain(|(document, _, _), _| !replaced.contains(document));
        true
    }

    /// Returns everything on the disk.
    pub(crate) fn load(&self) -> Durable {
        Durable {
            changes: self.changes.values().cloned().collect(),
            certificates: self.certificates.iter().cloned().collect(),
            replaced: Vec::new(),
            votes: self.votes.clone(),
        }
    }

    /// Returns how many changes of the cluster document the disk holds.
    pub(crate) fn cluster_changes(&self) -> usize {
        let documents = self.changes.keys().map(|(document, _, _)| document);
        documents.filter(|document| matches!(document, DocumentId::Cluster { .. })).count()
    }

    /// Returns whether the disk holds this change.
    pub(crate) fn holds(&self, change: &SignedChange) -> bool {
        let body = change.decode_unverified().expect("a readable change");
        self.changes.get(&(body.document, body.actor, body.seq)) == Some(change)
    }

    /// Returns the changes of these ranges in batches of at most [`MAX_BATCH`] bytes, each with all certificates.
    pub(crate) fn replay(&self, runs: &[ChangeRange]) -> Vec<Batch> {
        let certificates: Vec<String> = self.certificates.iter().cloned().collect();
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
        for (_, change) in self.changes.iter().filter(|(key, _)| wanted(key)) {
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
