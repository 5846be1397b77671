//! Nodes: joining, starting and dying.

use std::collections::BTreeMap;

use vc_engine::{Config, Engine, Timing};
use vc_protocol::node::{NodeInfo, RuntimeKind};
use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{Keypair, Millis, NodeId, Resources};

use crate::disk::Disk;
use crate::history::Action;
use crate::runtime::Runtime;
use crate::world::{EPOCH, Event, World};

/// A node: what survives its engine, and its engine.
pub(crate) struct Node {
    pub(crate) key: Keypair,
    pub(crate) id: NodeId,
    pub(crate) info: NodeInfo,
    pub(crate) certificate: String,
    pub(crate) disk: Disk,
    pub(crate) runtime: Runtime,
    /// `None`: the process is down.
    pub(crate) engine: Option<Engine>,
    /// The number of engines so far.
    pub(crate) life: u64,
    /// How far its clock is ahead.
    pub(crate) offset: Millis,
    /// It does nothing before this time.
    pub(crate) busy_until: Millis,
    /// The process dies after this many more outputs.
    pub(crate) crash_after: Option<u32>,
    pub(crate) wake_at: Option<Millis>,
    pub(crate) wakes: (Millis, u32),
}

impl World {
    /// A node joins: it has its certificate and those of all others. Its process starts at once.
    pub(crate) fn join(&mut self, capacity: Resources) -> usize {
        let of = self.nodes.len();
        let seed = u8::try_from(of + 1).expect("fewer than 255 nodes");
        let key = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
        let id = NodeId::of(&key.public()).expect("ed25519");
        let certificate =
            issue_certificate(&self.root, id, NodeRole::Server, EPOCH).expect("signed");
        let known = self.nodes.iter().map(|node| node.certificate.clone());
        let disk = Disk::new(known.chain([certificate.clone()]));
        let info = NodeInfo {
            name: format!("m{of}").parse().expect("a name"),
            version: "0.1.0".to_owned(),
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
            runtime: RuntimeKind::Docker,
            capacity,
            labels: BTreeMap::from([("side".to_owned(), ["even", "odd"][of % 2].to_owned())]),
            addresses: Vec::new(),
        };
        let runtime = Runtime::new(self.rng.permille(500));
        let offset = self.rng.within((0, 10_000));
        self.nodes.push(Node {
            key,
            id,
            info,
            certificate,
            disk,
            runtime,
            engine: None,
            life: 0,
            offset,
            busy_until: 0,
            crash_after: None,
            wake_at: None,
            wakes: (0, 0),
        });
        self.boot(of);
        of
    }

    /// The process of a node starts.
    pub(crate) fn boot(&mut self, of: usize) {
        if self.is_running(of) {
            return;
        }
        self.note(of, "starts");
        self.make_engine(of);
        self.dial_all(of);
    }

    /// An engine from what is on disk, in the place of the one before.
    pub(crate) fn make_engine(&mut self, of: usize) {
        let (now, nonce) = (self.local(of), self.rng.next());
        let node = &mut self.nodes[of];
        let config = Config {
            key: node.key.clone(),
            id: node.id,
            cluster: self.cluster,
            info: node.info.clone(),
            nonce,
            timing: Timing::default(),
        };
        node.engine = Some(Engine::new(config, node.disk.load(), now).expect("an engine"));
        node.life += 1;
        node.wake_at = None;
        node.crash_after = None;
        let life = node.life;
        self.enter(of, Action::Booted);
        let after = self.rng.within((5, 300));
        self.schedule(after, Event::List { of, life });
        self.rearm(of);
    }

    /// The process of a node dies; what it ran goes on.
    pub(crate) fn kill_process(&mut self, of: usize) {
        if self.nodes[of].engine.take().is_some() {
            self.note(of, "process killed");
            self.connections_end(of, false);
        }
    }

    /// A node loses power.
    pub(crate) fn kill_host(&mut self, of: usize) {
        self.note(of, "host killed");
        if self.nodes[of].engine.take().is_some() {
            self.connections_end(of, true);
        }
        self.containers_end(of);
    }

    /// The process of a node does nothing for a while, then catches up.
    pub(crate) fn stall(&mut self, of: usize, for_: Millis) {
        self.note(of, &format!("does nothing for {for_} ms"));
        self.nodes[of].busy_until = self.now + for_;
    }
}
