//! Nodes: joins, starts, crashes and stalls.

use std::collections::BTreeMap;

use vc_crdt::KnownVersions;
use vc_engine::runtime::InstanceId;
use vc_engine::{Config, Engine, Input, Timing};
use vc_protocol::node::NodeInfo;
use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{Keypair, Millis, NodeId, Resources};

use crate::disk::Disk;
use crate::history::Action;
use crate::runtime::Runtime;
use crate::versions::version_text;
use crate::world::{EPOCH, Event, World};

/// A node: its engine, and the state that outlives the engine.
pub(crate) struct Node {
    pub(crate) key: Keypair,
    pub(crate) id: NodeId,
    pub(crate) info: NodeInfo,
    pub(crate) certificate: String,
    /// What its version knows.
    pub(crate) knows: KnownVersions,
    pub(crate) disk: Disk,
    pub(crate) runtime: Runtime,
    /// `None`: the process is down.
    pub(crate) engine: Option<Engine>,
    /// Number of the current engine; events scheduled for an earlier one are dropped.
    pub(crate) engine_id: u64,
    /// Milliseconds that its clock is ahead.
    pub(crate) offset: Millis,
    /// The process is stalled until this time.
    pub(crate) busy_until: Millis,
    /// When the watchdog ends its instances that run under leases.
    pub(crate) deadlines: BTreeMap<InstanceId, Millis>,
    /// The process dies after this many more outputs.
    pub(crate) crash_after: Option<u32>,
    /// Time of the scheduled wake-up.
    pub(crate) wake_at: Option<Millis>,
    /// Wake-ups in the current second: the second, and their number.
    pub(crate) wakes: (Millis, u32),
}

impl World {
    /// Adds a node that has its own certificate and those of all earlier nodes, and starts it. Returns its index.
    pub(crate) fn join(&mut self, capacity: Resources) -> usize {
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
        let offset = self.rng.within((0, 10_000));
        self.nodes.push(Node {
            key,
            id,
            info,
            certificate,
            knows: self.knows,
            disk,
            runtime,
            engine: None,
            engine_id: 0,
            offset,
            busy_until: 0,
            deadlines: BTreeMap::new(),
            crash_after: None,
            wake_at: None,
            wakes: (0, 0),
        });
        self.boot(index);
        index
    }

    /// Starts the process of a node; no effect if it is up.
    pub(crate) fn boot(&mut self, index: usize) {
        if self.is_running(index) {
            return;
        }
        self.trace_node(index, "process starts");
        self.make_engine(index);
        self.dial_all(index);
    }

    /// Replaces the engine of a node by a new one, loaded from its disk.
    pub(crate) fn make_engine(&mut self, index: usize) {
        let (now, nonce) = (self.local(index), self.rng.next());
        let node = &mut self.nodes[index];
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
        self.record(index, Action::Booted);
        let after = self.rng.within((5, 300));
        self.schedule(after, Event::List { index, engine_id });
        self.rearm(index);
    }

    /// Lets a node announce that it restarts; no effect if its process is down.
    pub(crate) fn announce_restart(&mut self, index: usize) {
        self.trace_node(index, "announces a restart");
        self.handle(index, Input::Restart);
    }

    /// Kills the process of a node; its containers keep running.
    pub(crate) fn kill_process(&mut self, index: usize) {
        if self.nodes[index].engine.take().is_some() {
            self.trace_node(index, "process killed");
            self.close_connections(index, false);
        }
    }

    /// Cuts the power of a host: ends its process and its containers.
    pub(crate) fn kill_host(&mut self, index: usize) {
        self.trace_node(index, "host killed");
        if self.nodes[index].engine.take().is_some() {
            self.close_connections(index, true);
        }
        self.stop_containers(index);
    }

    /// Stalls the process of a node for `duration` milliseconds; delayed events are executed afterwards.
    pub(crate) fn stall(&mut self, index: usize, duration: Millis) {
        self.trace_node(index, &format!("stalls for {duration} ms"));
        self.nodes[index].busy_until = self.now + duration;
    }
}
