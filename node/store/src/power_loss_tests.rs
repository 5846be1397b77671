//! A host that loses power while the store writes: of what was not flushed, its disk keeps any sectors.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::Keypair;

use super::tests::change;
use super::*;

/// The generator SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// What a store holds.
#[derive(Debug, Clone, Default, PartialEq)]
struct Held {
    changes: BTreeMap<(Vec<u8>, u64), SignedChange>,
    certificates: BTreeSet<String>,
}

impl Held {
    fn write(&mut self, durable: &Durable) {
        let replaced: Vec<Vec<u8>> = durable.replaced.iter().map(|it| document_key(*it)).collect();
        self.changes.retain(|(document, _), _| !replaced.contains(document));
        for change in &durable.changes {
            let body = change.decode_unverified().expect("a change");
            self.changes.insert((document_key(body.document), body.seq), change.clone());
        }
        self.certificates.extend(durable.certificates.iter().cloned());
    }

    fn of(store: &Store) -> Self {
        let mut held = Self::default();
        held.write(&store.load().expect("read"));
        held
    }
}

/// Returns the write with this number: changes of the cluster document, a certificate, and a new generation of a node document.
fn write(number: u64, rng: &mut Rng, key: &Keypair) -> Durable {
    let node = NodeId::of(&key.public()).expect("ed25519");
    let own = |generation| DocumentId::Node { node, generation };
    let cluster = DocumentId::Cluster { generation: 0 };
    let count = if rng.below(4) == 0 { 60 } else { rng.below(4) };
    let seqs = (1..=count).map(|n| number * 100 + n);
    let of_cluster = seqs.map(|seq| change(cluster, key, seq));
    Durable {
        changes: of_cluster.chain([change(own(number), key, 1)]).collect(),
        certificates: vec![format!("certificate {number}")],
        replaced: vec![own(number - 1)],
        ..Durable::default()
    }
}

#[test]
fn a_write_in_which_the_power_fails_is_kept_whole_or_not_at_all() {
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let (mut kept, mut rolled_back) = (0, 0);
    for seed in 0..40 {
        let mut rng = Rng(seed);
        let mut disk = MemoryDisk::default();
        let mut store = Store::on(&disk).expect("opened");
        let (mut held, mut number) = (Held::default(), 0);
        // The file that is left is written again, and loses power again.
        for _ in 0..3 {
            let in_flush = rng.below(2) == 0;
            disk.fail_power_after(rng.below(if in_flush { 8 } else { 80 }), in_flush);
            let after = loop {
                number += 1;
                let durable = write(number, &mut rng, &key);
                let written = store.persist(&durable);
                let mut after = held.clone();
                after.write(&durable);
                match written {
                    Ok(()) => held = after,
                    Err(_) => break after,
                }
            };
            drop(store);
            disk = disk.after_power_loss(&mut |limit| rng.below(limit));
            store = Store::on(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let found = Held::of(&store);
            match (found == held, found == after) {
                (true, _) => rolled_back += 1,
                (_, true) => kept += 1,
                _ => panic!("seed {seed}: write {number} is kept in part"),
            }
            held = found;
        }
    }
    assert!(kept > 5 && rolled_back > 5, "{kept} kept, {rolled_back} rolled back");
}

/// Nothing tells that a bit of a vote has flipped: votes are few, and rewritten.
#[test]
fn a_flipped_bit_never_passes_for_a_change_that_was_written() {
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let mut rng = Rng(7);
    let disk = MemoryDisk::default();
    let store = Store::on(&disk).expect("opened");
    for number in 1..=4 {
        store.persist(&write(number, &mut rng, &key)).expect("written");
    }
    let written = Held::of(&store);
    drop(store);
    let bytes = disk.bytes();
    let (mut refused, mut damaged) = (0, 0);
    for _ in 0..400 {
        let mut flipped = bytes.clone();
        let bit = rng.below(8 * bytes.len() as u64);
        flipped[usize::try_from(bit / 8).expect("small")] ^= 1 << (bit % 8);
        let loaded = Store::on(&MemoryDisk::holding(flipped)).and_then(|store| store.load());
        let Ok(loaded) = loaded else {
            refused += 1;
            continue;
        };
        let valid = loaded.changes.iter().filter(|change| change.check_signature().is_ok());
        let valid: Vec<&SignedChange> = valid.collect();
        assert!(valid.iter().all(|change| written.changes.values().any(|it| it == *change)));
        damaged += usize::from(valid.len() < written.changes.len());
    }
    assert!(damaged > 10, "{damaged} with damaged changes, {refused} refused");
}
