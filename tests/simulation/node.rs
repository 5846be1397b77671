//! Nodes: joins, starts, crashes and stalls.

use std::collections::{BTreeMap, VecDeque};

use vc_crdt::{KnownVersions, Replica};
use vc_engine::runtime::InstanceId;
use vc_engine::{Config, Durable, Engine, Input, Timing};
use vc_protocol::node::NodeInfo;
use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{Keypair, Millis, NodeId, Resources};

use crate::clock::Clocks;
use crate::disk::Disk;
use crate::history::Action;
use crate::marks::Mark;
use crate::operators::Kept;
use crate::runtime::Runtime;
use crate::versions::version_text;
use crate::volumes::Volumes;
use crate::world::{EPOCH, Event, World};

/// A node: its engine, and the state that outlives the engine.
pub struct Node {
    pub key: Keypair,
    pub id: NodeId,
    pub info: NodeInfo,
    pub certificate: String,
    /// What its version knows.
    pub knows: KnownVersions,
    pub disk: Disk,
    pub runtime: Runtime,
    pub volumes: Volumes,
    /// `None`: the process is down.
    pub engine: Option<Engine>,
    /// Number of the current engine; events scheduled for an earlier one are dropped.
    pub engine_id: u64,
    pub clocks: Clocks,
    /// Drawn at each start of the process.
    nonce: u64,
    /// It was removed from the cluster and turned off for good.
    pub off: bool,
    /// Milliseconds that its process takes for each event.
    pub slowness: Millis,
    /// When it last had a fault of its own, or its first start.
    pub disturbed: Millis,
    /// Until when the restart that it announced is within its bound.
    pub announced: Option<Millis>,
    /// The process is stalled until this time.
    pub busy_until: Millis,
    /// When the watchdog ends its instances that run under leases.
    pub deadlines: BTreeMap<InstanceId, Millis>,
    /// What waits for the process while it is stalled.
    pub waiting: VecDeque<Event>,
    /// The process dies after this many more outputs.
    pub crash_after: Option<u32>,
    /// Time of the scheduled wake-up.
    pub wake_at: Option<Millis>,
    /// Wake-ups in the current second: the second, and their number.
    pub wakes: (Millis, u32),
}

impl World {
    /// Adds a node that has its own certificate and those of all earlier nodes, and starts it. Returns its index.
    pub fn join(&mut self, capacity: Resources) -> usize {
        let index = self.nodes.len();
        let seed = u8::try_from(index + 1).expect("fewer than 255 nodes");
        let key = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
        let id = NodeId::of(&key.public()).expect("ed25519");
        let certificate =
            issue_certificate(&self.root, id, NodeRole::Server, EPOCH).expect("signed");
        let known = self.nodes.iter().map(|node| node.certificate.clone());
        let disk = Disk::new(known.chain([certificate.clone()]));
        let info = NodeInfo {
            version: version_text(&self.knows),
            capacity,
            labels: BTreeMap::from([("side".to_owned(), ["even", "odd"][index % 2].to_owned())]),
            ..NodeInfo::for_tests(&format!("m{index}"))
        };
        let runtime = Runtime::new(self.rng.permille(500));
        let clocks = Clocks::new(self.rng.within((0, 10_000)));
        self.nodes.push(Node {
            key,
            id,
            info,
            certificate,
            knows: self.knows,
            disk,
            runtime,
            volumes: Volumes::default(),
            engine: None,
            engine_id: 0,
            clocks,
            nonce: 0,
            off: false,
            slowness: 0,
            disturbed: self.now,
            announced: None,
            busy_until: 0,
            deadlines: BTreeMap::new(),
            waiting: VecDeque::new(),
            crash_after: None,
            wake_at: None,
            wakes: (0, 0),
        });
        self.boot(index);
        index
    }

    /// Starts the process of a node; no effect if it is up, or off.
    pub fn boot(&mut self, index: usize) {
        if self.is_running(index) || self.nodes[index].off {
            return;
        }
        self.trace_node(index, "process starts");
        self.disturb(index);
        self.nodes[index].nonce = self.rng.number();
        self.nodes[index].busy_until = self.now;
        let announced = self.nodes[index].announced.take();
        self.make_engine(index);
        self.dial_all(index);
        if let Some(until) = announced {
            let id = self.nodes[index].id;
            let others = self.running().into_iter().filter(|&other| other != index);
            let is_down = others.into_iter().any(|it| !self.engine(it).view().up.contains(&id));
            self.mark_if(self.now < until && !is_down, Mark::RestartKept);
            self.mark_if(self.now >= until && is_down, Mark::RestartOverdue);
        }
    }

    /// Replaces the engine of a node by a new one, loaded from its disk.
    pub fn make_engine(&mut self, index: usize) {
        let now = self.clock(index).monotonic;
        let node = &mut self.nodes[index];
        let nonce = node.nonce;
        let config = Config {
            key: node.key.clone(),
            id: node.id,
            cluster: self.cluster,
            info: node.info.clone(),
            nonce,
            timing: Timing::default(),
            history: self.document_history,
            knows: node.knows,
            audit: true,
            deadlines: node.deadlines.clone(),
        };
        node.engine = Some(Engine::new(config, node.disk.load(), now).expect("an engine"));
        node.engine_id += 1;
        node.wake_at = None;
        node.crash_after = None;
        let engine_id = node.engine_id;
        self.take_log(index);
        self.record(index, Action::Booted);
        let after = self.rng.within((5, 300));
        self.schedule(after, Event::List { index, engine_id });
        self.report_copies(index);
        self.rearm(index);
    }

    /// Lets a node announce that it restarts; no effect if its process is down.
    pub fn announce_restart(&mut self, index: usize) {
        self.trace_node(index, "announces a restart");
        if self.is_awake(index) {
            self.nodes[index].announced = Some(self.now + Timing::default().restart);
        }
        self.handle(index, Input::Restart);
    }

    /// Kills the process of a node; its containers keep running.
    pub fn kill_process(&mut self, index: usize) {
        self.disturb(index);
        if self.nodes[index].engine.take().is_some() {
            self.trace_node(index, "process killed");
            self.close_connections(index, false);
        }
    }

    /// Turns a node off that was removed from the cluster.
    pub fn turn_off(&mut self, index: usize) {
        self.trace_node(index, "is turned off for good");
        self.kill_host(index);
        // What it wrote before it heard that it was removed, and no other node has, is gone with it.
        self.lose(index, |node| {
            node.off = true;
            0
        });
        self.nodes[index].runtime.containers.clear();
    }

    /// Notes that a node has a fault now.
    pub fn disturb(&mut self, index: usize) {
        self.nodes[index].disturbed = self.now;
    }

    /// Cuts the power of a host: ends its process and its containers.
    pub fn kill_host(&mut self, index: usize) {
        self.trace_node(index, "host killed");
        self.disturb(index);
        self.lose(index, |node| node.disk.lose_power());
        if self.nodes[index].engine.take().is_some() {
            self.close_connections(index, true);
        }
        self.stop_containers(index);
    }

    /// Stalls the process of a node for `duration` milliseconds; delayed events are executed afterwards.
    pub fn stall(&mut self, index: usize, duration: Millis) {
        self.trace_node(index, &format!("stalls for {duration} ms"));
        self.disturb(index);
        let node = &mut self.nodes[index];
        node.busy_until = node.busy_until.max(self.now + duration);
    }

    /// Flips a bit in what the disk of a node holds whose process is down.
    pub fn flip_bit(&mut self, index: usize, bit: u64) {
        let cluster = self.cluster;
        self.lose(index, |node| {
            let lost = node.disk.flip_bit(bit);
            let Durable { certificates, changes, .. } = node.disk.load();
            let (key, knows) = (node.key.clone(), node.knows);
            let loaded = Replica::load(key, node.id, cluster, knows, certificates, changes);
            node.disk.note_readable(&loaded.expect("documents").accepted);
            lost
        });
    }

    /// Lets a disk lose something, and notes what no disk has any more. `loses` returns the number of changes
    /// that the disk loses.
    pub fn lose(&mut self, index: usize, loses: impl FnOnce(&mut Node) -> usize) {
        let recorded = self.recorded();
        let votes = self.nodes[index].disk.votes().clone();
        let lost = loses(&mut self.nodes[index]);
        self.watch.lost_votes |= *self.nodes[index].disk.votes() != votes;
        if lost > 0 {
            self.trace_node(index, &format!("its disk loses {lost} changes"));
            self.mark(Mark::ConfirmedWriteLost);
        }
        let left = self.recorded();
        for (request, kept) in recorded {
            let left = left.get(&request).copied().unwrap_or(Kept::Unknown);
            if left < kept {
                self.trace_world(&format!(
                    "request {request}: what is left of its change: {left:?}"
                ));
                self.operators.lost(request, left);
            }
        }
    }

    fn recorded(&self) -> BTreeMap<u64, Kept> {
        let present = self.nodes.iter().filter(|node| !node.off);
        self.operators.recorded(&present.map(|node| &node.disk).collect::<Vec<_>>())
    }
}
