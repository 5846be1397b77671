//! Writes a million changes of the cluster document, with a checkpoint every 2,000, and compares what is left with a
//! document without checkpoints: `cargo bench -p vc-crdt`. `VC_BENCH_CHANGES` sets the number of changes.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

use std::time::{Duration, Instant};

use vc_crdt::{KnownVersions, NewGeneration, Replica};
use vc_protocol::change::{DocumentId, SignedChange};
use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{ClusterId, Keypair, NodeId, ServiceKey};

/// Changes between two checkpoints, as in vc-engine.
const HISTORY: u64 = 2000;
const SERVICES: u64 = 50;

/// A node of its own, with what its disk keeps.
struct Node {
    replica: Replica,
    disk: Vec<(DocumentId, SignedChange)>,
    number: u64,
}

fn load(changes: Vec<SignedChange>) -> Replica {
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let id = NodeId::of(&key.public()).expect("ed25519");
    let cluster = ClusterId::of(&key.public()).expect("ed25519");
    let certificate = issue_certificate(&key, id, NodeRole::Server, 0).expect("signed");
    let knows = KnownVersions::default();
    let loaded = Replica::load(key, id, cluster, knows, vec![certificate], changes);
    let loaded = loaded.expect("a replica");
    assert_eq!(loaded.rejected, []);
    loaded.replica
}

impl Node {
    fn new() -> Self {
        Self { replica: load(Vec::new()), disk: Vec::new(), number: 0 }
    }

    /// Writes changes until there were `count`; starts generations if `checkpoints`.
    fn write(&mut self, count: u64, checkpoints: bool) {
        while self.number < count {
            self.number += 1;
            let mut wanted = self.replica.cluster().clone();
            let service: ServiceKey =
                format!("shop/s{}", self.number % SERVICES).parse().expect("a key");
            wanted.scale.insert(service, u32::try_from(self.number).expect("small"));
            let written = self.replica.write_cluster(&wanted, None, 0, false, 1);
            self.keep(written.expect("written").into_iter().collect());
            if checkpoints && self.replica.is_checkpoint_due(HISTORY) {
                let written = self.replica.write_checkpoint(0, self.number).expect("written");
                let NewGeneration { changes, dropped } = written.expect("not empty");
                self.disk.retain(|(document, _)| !dropped.contains(document));
                self.keep(changes);
            }
        }
    }

    fn keep(&mut self, changes: Vec<SignedChange>) {
        self.disk.extend(
            changes
                .into_iter()
                .map(|change| (change.decode_unverified().expect("a change").document, change)),
        );
    }

    /// Returns the size of the disk in bytes and the time to load it.
    fn measure(&self) -> (usize, Duration) {
        let size = self.disk.iter().map(|(_, change)| change.encoded_len()).sum();
        let changes = self.disk.iter().map(|(_, change)| change.clone()).collect();
        let start = Instant::now();
        let replica = load(changes);
        let time = start.elapsed();
        assert_eq!(replica.cluster(), self.replica.cluster());
        (size, time)
    }
}

/// Returns the resident memory of this process, in MiB.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") / 1024
}

fn report(name: &str, node: &Node, begun: Instant, written: u64) {
    let each = begun.elapsed() / u32::try_from(written.max(1)).expect("small");
    let memory = resident();
    let (size, time) = node.measure();
    println!(
        "{name:<22} {:>9} changes  {:>6} on disk, {:>7} KiB  load {time:>9.1?}  write {each:>8.1?}  {memory:>4} MiB",
        node.number,
        node.disk.len(),
        size / 1024,
    );
}

fn main() {
    let changes = std::env::var("VC_BENCH_CHANGES").ok().and_then(|it| it.parse().ok());
    let changes: u64 = changes.unwrap_or(1_000_000);
    let mut bounded = Node::new();
    let mut count = HISTORY * 2 - 1;
    while count < changes * 10 {
        let (begun, before) = (Instant::now(), bounded.number);
        bounded.write(count.min(changes), true);
        report("with checkpoints", &bounded, begun, bounded.number - before);
        count *= 10;
    }
    drop(bounded);
    let mut raw = Node::new();
    for count in [HISTORY * 2 - 1, 20_000.min(changes)] {
        let (begun, before) = (Instant::now(), raw.number);
        raw.write(count, false);
        report("without", &raw, begun, raw.number - before);
    }
}
