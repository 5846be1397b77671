//! A host that loses power while the store writes: of what was not flushed, its disk keeps any sectors.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;
use vc_protocol::Keypair;

use super::tests::change;
use super::*;

/// What a disk writes as a whole, in bytes.
const SECTOR: usize = 512;

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

/// What was written and not flushed.
#[derive(Debug)]
enum Unflushed {
    Sector { at: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Default)]
struct Contents {
    /// What reads return.
    bytes: Vec<u8>,
    flushed: Vec<u8>,
    unflushed: Vec<Unflushed>,
    /// Operations until the power fails.
    left: Option<u64>,
    /// Whether it fails in a flush: everything is written by then.
    fails_in_flush: bool,
}

/// A disk in memory.
#[derive(Debug, Default, Clone)]
struct Disk(Arc<Mutex<Contents>>);

impl Disk {
    fn holding(bytes: Vec<u8>) -> Self {
        let contents = Contents { flushed: bytes.clone(), bytes, ..Contents::default() };
        Self(Arc::new(Mutex::new(contents)))
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().expect("not poisoned")
    }

    /// Counts an operation that changes something. Errors: the power has failed.
    fn powered(&self, is_flush: bool) -> io::Result<MutexGuard<'_, Contents>> {
        let mut contents = self.contents();
        let counts = is_flush || !contents.fails_in_flush;
        match &mut contents.left {
            Some(0) if counts => return Err(io::Error::other("no power")),
            Some(left) if counts => *left -= 1,
            _ => {}
        }
        Ok(contents)
    }

    /// Returns what it holds after the power failed: what was flushed, and some of the rest.
    fn after_power_loss(&self, rng: &mut Rng) -> Vec<u8> {
        let contents = self.contents();
        let mut bytes = contents.flushed.clone();
        // From nothing to everything.
        let kept = rng.below(151);
        for it in &contents.unflushed {
            if rng.below(100) >= kept {
                continue;
            }
            match it {
                Unflushed::Length(length) => bytes.resize(*length, 0),
                Unflushed::Sector { at, bytes: sector } => {
                    // Behind the end of the file nothing is read.
                    if let Some(place) = bytes.get_mut(*at..at + sector.len()) {
                        place.copy_from_slice(sector);
                    }
                }
            }
        }
        bytes
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("small")
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.contents().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (at, length) = (index(offset), out.len());
        let contents = self.contents();
        out.copy_from_slice(contents.bytes.get(at..at + length).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut contents = self.powered(false)?;
        contents.bytes.resize(index(length), 0);
        contents.unflushed.push(Unflushed::Length(index(length)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut contents = self.powered(true)?;
        contents.flushed = contents.bytes.clone();
        contents.unflushed.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut contents = self.powered(false)?;
        let (mut at, mut rest) = (index(offset), data);
        contents.bytes[at..at + data.len()].copy_from_slice(data);
        while !rest.is_empty() {
            let (sector, behind) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
            contents.unflushed.push(Unflushed::Sector { at, bytes: sector.to_vec() });
            (at, rest) = (at + sector.len(), behind);
        }
        Ok(())
    }
}

fn open(disk: &Disk) -> Result<Store, StoreError> {
    let path = PathBuf::from(FILE);
    let opened = Database::builder().set_cache_size(CACHE).create_with_backend(disk.clone());
    let database = RwLock::new(Some(opened.expect("opened")));
    let store = Store { dir: PathBuf::new(), path, database };
    store.prepare().map(|()| store)
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
        let mut disk = Disk::default();
        let mut store = open(&disk).expect("opened");
        let (mut held, mut number) = (Held::default(), 0);
        // The file that is left is written again, and loses power again.
        for _ in 0..3 {
            let in_flush = rng.below(2) == 0;
            disk.contents().fails_in_flush = in_flush;
            disk.contents().left = Some(rng.below(if in_flush { 8 } else { 80 }));
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
            disk = Disk::holding(disk.after_power_loss(&mut rng));
            store = open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
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
