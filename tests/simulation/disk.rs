//! Disks: the store of the node itself, redb included, on a disk in memory. Beside it is what the store is to hold, which it is
//! compared with whenever an engine is loaded from it.
//!
//! Data written once survives every crash, unless the disk has a fault. A write is kept whole or not at all, also by a host that dies
//! in it.

use std::collections::{BTreeMap, BTreeSet};

use vc_engine::{Durable, Votes};
use vc_protocol::change::{Actor, ChangeRange, Checkpoint, DocumentId, SignedChange};
use vc_protocol::wire::{decode, encode};
use vc_store::{MemoryDisk, Store, StoreError};

use crate::operators::Written;
use crate::rng::Rng;

/// The key of a change.
type Key = (DocumentId, Actor, u64);

/// What a store is to hold.
#[derive(Debug, Clone, Default)]
struct Contents {
    changes: BTreeMap<Key, SignedChange>,
    certificates: BTreeSet<String>,
    /// No fault flips a bit of them: nothing would tell.
    votes: Votes,
    /// The changes that a node cannot read: those that are damaged, and those that follow one of these.
    unreadable: BTreeSet<Key>,
}

/// A copy of a disk.
#[derive(Debug, Clone)]
pub struct Copy {
    contents: Contents,
    bytes: Vec<u8>,
}

/// The disk of one node.
pub struct Disk {
    medium: MemoryDisk,
    store: Store,
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
    lies_since: Option<Box<Copy>>,
    /// Whether the last write failed.
    pub failed: bool,
}

/// A write failed, and changed nothing.
#[derive(Debug)]
pub struct WriteFailed;

impl Clone for Disk {
    fn clone(&self) -> Self {
        let mut disk = Self::new([]);
        disk.set_back(self.backup());
        disk
    }
}

fn open(medium: &MemoryDisk) -> Store {
    Store::on(medium).unwrap_or_else(|error| panic!("the store cannot be opened: {error}"))
}

impl Disk {
    /// Returns a disk that holds these certificates.
    pub fn new(certificates: impl IntoIterator<Item = String>) -> Self {
        let medium = MemoryDisk::default();
        let store = open(&medium);
        let mut disk = Self {
            medium,
            store,
            contents: Contents::default(),
            failing: 0,
            read_only: false,
            was_read_only: false,
            tears: false,
            lies_since: None,
            failed: false,
        };
        let certificates = certificates.into_iter().collect();
        disk.persist(Durable { certificates, ..Durable::default() }).expect("a disk without fault");
        disk
    }

    /// Writes atomically.
    pub fn persist(&mut self, durable: Durable) -> Result<(), WriteFailed> {
        self.failed = self.failing > 0 || self.read_only;
        if self.failed {
            self.failing = self.failing.saturating_sub(1);
            self.was_read_only |= self.read_only;
            self.medium.fail_power_after(0, false);
            let written = self.store.persist(&durable);
            assert!(written.is_err(), "a write is confirmed that failed");
            self.medium.restore_power();
            self.store.reopen().expect("a disk without fault");
            return Err(WriteFailed);
        }
        match self.store.persist(&durable) {
            Err(StoreError::Conflict(key)) => {
                panic!("the disk holds a different change with this number: {key}")
            }
            written => written.expect("a disk without fault"),
        }
        self.contents.write(durable);
        Ok(())
    }

    /// Writes while the power fails. Returns whether the write is kept: then whole, else nothing of it.
    pub fn tear(&mut self, durable: Durable, rng: &mut Rng) -> bool {
        let in_flush = rng.permille(500);
        let operations = rng.within((0, if in_flush { 4 } else { 40 }));
        self.medium.fail_power_after(operations, in_flush);
        let confirmed = self.store.persist(&durable).is_ok();
        self.medium = self.medium.after_power_loss(&mut |limit| rng.number() % limit);
        self.store = open(&self.medium);
        let (before, mut after) = (self.contents.clone(), self.contents.clone());
        after.write(durable);
        let held = self.store.load().expect("a readable store");
        let is_kept = after.is(&held);
        assert!(is_kept || !confirmed, "a confirmed write is lost with the power");
        assert!(is_kept || before.is(&held), "a write is kept in part");
        self.contents = if is_kept { after } else { before };
        is_kept
    }

    /// Confirms writes from now on that it loses with the power.
    pub fn lie(&mut self) {
        if self.lies_since.is_none() {
            self.lies_since = Some(Box::new(self.backup()));
        }
    }

    /// Writes for good what it has confirmed.
    pub fn sync(&mut self) {
        self.lies_since = None;
    }

    /// Loses what it has confirmed and not kept. Returns the number of changes that were lost.
    pub fn lose_power(&mut self) -> usize {
        if let Some(kept) = self.lies_since.take() {
            return self.set_back(*kept);
        }
        self.medium = MemoryDisk::holding(self.medium.bytes());
        self.store = open(&self.medium);
        0
    }

    /// Returns a copy of what it holds.
    pub fn backup(&self) -> Copy {
        Copy { contents: self.contents.clone(), bytes: self.medium.bytes() }
    }

    /// Replaces everything by a copy from earlier. Returns the number of changes that were lost.
    pub fn set_back(&mut self, copy: Copy) -> usize {
        self.lies_since = None;
        self.medium = MemoryDisk::holding(copy.bytes);
        self.store = open(&self.medium);
        let before = std::mem::replace(&mut self.contents, copy.contents).changes;
        before.keys().filter(|key| !self.contents.changes.contains_key(key)).count()
    }

    /// Flips a bit of a stored change: the one with this number, counted over all of them again and again. Returns the number of
    /// changes that were lost.
    pub fn flip_bit(&mut self, number: u64) -> usize {
        let changes = &mut self.contents.changes;
        let bits: u64 = changes.values().map(|it| 8 * encode(it).len() as u64).sum();
        let mut left = number % bits.max(1);
        let found = changes.iter().find_map(|(key, change)| {
            let bytes = encode(change);
            let length = 8 * bytes.len() as u64;
            if left >= length {
                left -= length;
                return None;
            }
            let mut damaged = bytes;
            damaged[(left / 8) as usize] ^= 1 << (left % 8);
            Some((*key, damaged))
        });
        let Some((key, damaged)) = found else { return 0 };
        self.store.damage(key, &damaged).expect("a disk without fault");
        match decode::<SignedChange>(&damaged) {
            Ok(damaged) => drop(changes.insert(key, damaged)),
            // The store leaves out what it cannot decode.
            Err(_) => drop(changes.remove(&key)),
        }
        1
    }

    /// Notes which of its changes a node can read.
    pub fn note_readable(&mut self, accepted: &[SignedChange]) {
        let key = |change: &SignedChange| {
            let body = change.decode_unverified().expect("an accepted change");
            (body.document, body.actor, body.seq)
        };
        let readable: BTreeSet<Key> = accepted.iter().map(key).collect();
        let all = self.contents.changes.keys().copied();
        self.contents.unreadable = all.filter(|key| !readable.contains(key)).collect();
    }

    /// Returns what the node has promised and granted as a voter.
    pub fn votes(&self) -> &Votes {
        &self.contents.votes
    }

    /// Returns everything on the disk. Panics if that is not what was written.
    pub fn load(&self) -> Durable {
        let held = self.store.load().expect("a readable store");
        assert!(self.contents.is(&held), "the store holds something else than was written");
        held
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

    /// Returns whether the disk holds a change of the cluster document, and its node can read it.
    pub fn records(&self, written: &Written) -> bool {
        let document = DocumentId::Cluster { generation: written.generation };
        let key = (document, written.actor, written.seq);
        self.holds(&written.change) && !self.contents.unreadable.contains(&key)
    }

    /// Returns whether the disk holds a checkpoint that contains a change of the cluster document, and its node can read it.
    pub fn contains(&self, written: &Written) -> bool {
        let contains = |checkpoint: Checkpoint| match checkpoint.covers.get(&written.generation) {
            Some(actors) => actors.get(&written.actor).is_some_and(|&last| last >= written.seq),
            // All members had it when its generation was dropped.
            None => checkpoint.covers.keys().next().is_some_and(|&it| it > written.generation),
        };
        let Contents { changes, unreadable, .. } = &self.contents;
        let mut first = changes.iter().filter(|(key, _)| key.2 == 1 && !unreadable.contains(key));
        first.any(|(_, change)| {
            let body = change.decode_unverified().ok();
            body.and_then(|body| body.checkpoint).is_some_and(contains)
        })
    }

    /// Returns the changes of these ranges, in batches.
    pub fn replay(&self, ranges: &[ChangeRange]) -> Vec<Vec<SignedChange>> {
        self.store.replay(ranges).expect("a readable store")
    }
}

impl Contents {
    fn write(&mut self, durable: Durable) {
        let Durable { changes, certificates, replaced, votes } = durable;
        self.certificates.extend(certificates);
        self.votes.leases.extend(votes.leases);
        self.votes.leases.retain(|key, _| !votes.forgotten.contains(key));
        if votes.change.is_some() {
            self.votes.change = votes.change;
        }
        let replaced: BTreeSet<DocumentId> = replaced.into_iter().collect();
        self.changes.retain(|(document, _, _), _| !replaced.contains(document));
        for change in changes {
            let body = change.decode_unverified().expect("the engine persists readable changes");
            if !replaced.contains(&body.document) {
                let key = (body.document, body.actor, body.seq);
                self.unreadable.remove(&key);
                self.changes.insert(key, change);
            }
        }
    }

    /// Returns whether this is what was loaded from a store.
    fn is(&self, loaded: &Durable) -> bool {
        let mut changes: Vec<&SignedChange> = loaded.changes.iter().collect();
        let key = |change: &&SignedChange| {
            let body = change.decode_unverified().ok();
            body.map(|body| (body.document, body.actor, body.seq))
        };
        changes.sort_by_cached_key(key);
        let mut wanted: Vec<&SignedChange> = self.changes.values().collect();
        wanted.sort_by_cached_key(key);
        changes == wanted
            && self.certificates.iter().eq(&loaded.certificates)
            && self.votes == loaded.votes
    }
}
