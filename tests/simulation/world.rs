//! The simulated world: nodes with their engines, a queue of events ordered by virtual time, and one random stream.

use std::collections::{BTreeMap, BTreeSet};

use tracing::Level;
use vc_crdt::KnownVersions;
use vc_engine::runtime::InstanceId;
use vc_engine::{Engine, HISTORY, Input, Output};
use vc_protocol::gossip::SyncMessage;
use vc_protocol::{ClusterId, Keypair, Millis, NodeId};

use crate::check::Check;
use crate::faults::Fault;
use crate::history::{Action, History};
use crate::network::Network;
use crate::node::Node;
use crate::operators::Operators;
use crate::rng::Rng;
use crate::runtime::{ContainerEvent, RuntimeFaults};
use crate::trace::{Trace, show};

/// Start of virtual time, milliseconds since 1970: a day in 2027.
pub(crate) const EPOCH: Millis = 1_800_000_000_000;
/// Limit of wake-ups of an engine per second of virtual time; over it, its deadline never advances.
const MAX_WAKES: u32 = 500;

/// A scheduled event. Nodes are named by their index in [`World::nodes`].
#[derive(Debug)]
pub(crate) enum Event {
    /// Delivers an input to an engine.
    Input { to: usize, engine_id: u64, input: Box<Input> },
    /// The deadline of an engine has passed.
    Wake { index: usize, engine_id: u64, at: Millis },
    /// Starts the process of a node that is down.
    Boot { index: usize },
    /// The runtime lists its containers, and schedules the next list.
    List { index: usize, engine_id: u64 },
    /// A container reaches its next phase.
    Container { index: usize, id: InstanceId, epoch: u64, event: ContainerEvent },
    /// Two nodes try to connect.
    Dial { a: usize, b: usize, number: u64 },
    /// An end of a connection is closed.
    Close { at: usize, peer: usize, connection: u64 },
    /// An end of a connection is closed if the link is still dead.
    Timeout { at: usize, peer: usize, connection: u64 },
    /// A fault, or requests of operators.
    Fault(Fault),
}

/// Checks that the engine of a node satisfies the invariants that hold after every change of its view.
pub(crate) type ViewCheck = Box<dyn FnMut(usize, &Engine) -> Check>;

/// The state of the simulation.
pub(crate) struct World {
    /// Milliseconds of virtual time since [`EPOCH`].
    pub(crate) now: Millis,
    pub(crate) rng: Rng,
    /// All nodes, in the order in which they joined. The trace calls node N `mN`.
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) runtime_faults: RuntimeFaults,
    pub(crate) operators: Operators,
    /// Changes of a document after which a new generation starts.
    pub(crate) document_history: u64,
    pub(crate) history: History,
    pub(crate) cluster: ClusterId,
    pub(crate) root: Keypair,
    /// What the version of nodes that join knows.
    pub(crate) knows: KnownVersions,
    queue: BTreeMap<(Millis, u64), Event>,
    scheduled: u64,
    view_check: ViewCheck,
    trace: Trace,
    repeat: String,
    /// Whether the trace shows the moves of each plan with their reasons: `VC_SIM_MOVES=1`.
    explain: bool,
}

impl World {
    /// Returns a world without nodes that runs `view_check` whenever a view changes. `repeat`: the command that repeats the
    /// test.
    pub(crate) fn new(seed: u64, repeat: String, view_check: ViewCheck) -> Self {
        let root = Keypair::ed25519_from_bytes([250; 32]).expect("32 bytes");
        Self {
            now: 0,
            rng: Rng::new(seed),
            nodes: Vec::new(),
            network: Network::default(),
            runtime_faults: RuntimeFaults::default(),
            operators: Operators::default(),
            document_history: HISTORY,
            history: History::default(),
            cluster: ClusterId::of(&root.public()).expect("ed25519"),
            root,
            knows: KnownVersions::default(),
            queue: BTreeMap::new(),
            scheduled: 0,
            view_check,
            trace: Trace::new(),
            repeat,
            explain: std::env::var_os("VC_SIM_MOVES").is_some(),
        }
    }

    /// Returns the time by the clock of a node, milliseconds since 1970.
    pub(crate) fn local(&self, index: usize) -> Millis {
        EPOCH + self.now + self.nodes[index].offset
    }

    /// Returns the index of the node with this id.
    pub(crate) fn node_of(&self, id: NodeId) -> usize {
        self.nodes.iter().position(|node| node.id == id).expect("the id of a node")
    }

    /// Returns whether the process of a node is up.
    pub(crate) fn is_running(&self, index: usize) -> bool {
        self.nodes[index].engine.is_some()
    }

    /// Returns whether the process of a node is up and not stalled.
    pub(crate) fn is_awake(&self, index: usize) -> bool {
        self.is_running(index) && self.nodes[index].busy_until <= self.now
    }

    /// Returns all nodes whose process is up.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&index| self.is_running(index)).collect()
    }

    /// Returns the engine of a node. Panics when its process is down.
    pub(crate) fn engine(&self, index: usize) -> &Engine {
        self.nodes[index].engine.as_ref().expect("its process is up")
    }

    /// Schedules an event, `after` milliseconds from now.
    pub(crate) fn schedule(&mut self, after: Millis, event: Event) {
        self.scheduled += 1;
        self.queue.insert((self.now + after, self.scheduled), event);
    }

    /// Schedules an input for the current engine of a node; dropped if that engine ends before.
    pub(crate) fn deliver(&mut self, after: Millis, to: usize, input: Input) {
        let engine_id = self.nodes[to].engine_id;
        self.schedule(after, Event::Input { to, engine_id, input: Box::new(input) });
    }

    /// Appends an action to the history.
    pub(crate) fn record(&mut self, index: usize, action: Action) {
        self.history.record(self.now, index, action);
    }

    /// Appends a line about a node to the trace.
    pub(crate) fn trace_node(&mut self, index: usize, line: &str) {
        self.trace.push(format!("{:>8} m{index} {line}", self.now));
    }

    /// Appends a line about the whole world to the trace.
    pub(crate) fn trace_world(&mut self, line: &str) {
        self.trace.push(format!("{:>8} == {line}", self.now));
    }

    /// Advances time by `duration` milliseconds.
    pub(crate) fn run(&mut self, duration: Millis) {
        let until = self.now + duration;
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.dispatch(event);
        }
        self.now = until;
    }

    /// Advances time until a check succeeds. Panics with its last violation after `limit` milliseconds.
    pub(crate) fn run_until(&mut self, limit: Millis, what: &str, holds: impl Fn(&Self) -> Check) {
        let until = self.now + limit;
        loop {
            match holds(self) {
                Ok(()) => return,
                Err(why) => assert!(self.now < until, "not within {limit} ms: {what}: {why}"),
            }
            self.run(250);
        }
    }

    /// Panics when a check has failed.
    pub(crate) fn require(&self, check: Check) {
        if let Err(why) = check {
            panic!("{why}");
        }
    }

    /// Executes an event. Those of a stalled process are delayed, those of an earlier engine dropped.
    fn dispatch(&mut self, event: Event) {
        let (index, engine_id) = match &event {
            Event::Input { to, engine_id, .. } => (Some(*to), *engine_id),
            Event::Wake { index, engine_id, .. } | Event::List { index, engine_id } => {
                (Some(*index), *engine_id)
            }
            _ => (None, 0),
        };
        if let Some(index) = index {
            let node = &self.nodes[index];
            if node.engine_id != engine_id || node.engine.is_none() {
                return;
            }
            if node.busy_until > self.now {
                let after = node.busy_until - self.now;
                return self.schedule(after, event);
            }
        }
        match event {
            Event::Input { to, input, .. } => self.handle(to, *input),
            Event::Wake { index, at, .. } => {
                if self.nodes[index].wake_at == Some(at) {
                    self.nodes[index].wake_at = None;
                    self.handle(index, Input::Wake);
                }
            }
            Event::Boot { index } => self.boot(index),
            Event::List { index, engine_id } => {
                self.list(index);
                self.schedule(30_000, Event::List { index, engine_id });
            }
            Event::Container { index, id, epoch, event } => {
                self.container_event(index, id, epoch, event)
            }
            Event::Dial { a, b, number } => self.dial(a, b, number),
            Event::Close { at, peer, connection } => self.close(at, peer, connection),
            Event::Timeout { at, peer, connection } => self.timeout(at, peer, connection),
            Event::Fault(fault) => self.inject(fault),
        }
    }

    /// Passes an input to an engine and performs its outputs.
    pub(crate) fn handle(&mut self, index: usize, input: Input) {
        let now = self.local(index);
        let Some(engine) = self.nodes[index].engine.as_mut() else { return };
        let pending = self.operators.begin(engine, &input);
        let outputs = engine.handle(now, input);
        if let Some(pending) = pending {
            self.operators.finish(engine, pending, &outputs);
        }
        self.take_log(index);
        self.perform(index, outputs);
        self.rearm(index);
    }

    /// Moves the engine's log to the trace. Panics when it has an error.
    fn take_log(&mut self, index: usize) {
        for (level, line) in self.trace.logged() {
            self.trace_node(index, &format!("{level} {line}"));
            assert!(level != Level::ERROR, "m{index} logged an error: {line}");
        }
    }

    fn perform(&mut self, index: usize, outputs: Vec<Output>) {
        for output in outputs {
            if let Some(left) = &mut self.nodes[index].crash_after {
                if *left == 0 {
                    return self.kill_process(index);
                }
                *left -= 1;
            }
            match output {
                Output::Runtime(action) => self.run_action(index, action),
                Output::RemoveVolume(_) => {}
                Output::Persist(durable) => {
                    let changes = durable.changes.clone();
                    if !self.nodes[index].disk.persist(durable) {
                        self.trace_node(index, "write failed: the engine is replaced");
                        self.make_engine(index);
                        return self.restore_connections(index);
                    }
                    if !changes.is_empty() {
                        self.record(index, Action::Persisted(changes.len()));
                        self.operators.persisted(&changes);
                    }
                }
                Output::Gossip(gossip) => {
                    if matches!(gossip, vc_protocol::gossip::Gossip::Changes(_)) {
                        self.record(index, Action::Published);
                    }
                    self.publish(index, &gossip);
                }
                Output::Send(peer, message) => {
                    let peer = self.node_of(peer);
                    self.send(index, peer, &message, Input::Sync);
                }
                Output::Lease(peer, message) => {
                    let peer = self.node_of(peer);
                    self.send(index, peer, &message, Input::Lease);
                }
                Output::Deadlines(deadlines) => self.nodes[index].deadlines = deadlines,
                Output::Replay(peer, runs) => {
                    self.record(index, Action::Replayed);
                    let peer = self.node_of(peer);
                    for batch in self.nodes[index].disk.replay(&runs) {
                        self.send(index, peer, &SyncMessage::Changes(batch), Input::Sync);
                    }
                }
                Output::Disconnect(peer) => {
                    let peer = self.node_of(peer);
                    self.record(index, Action::Disconnected);
                    self.disconnect(index, peer);
                }
                Output::Answer(request, answer) => {
                    self.trace_node(index, &format!("answer to request {request}: {answer:?}"));
                    self.operators.answered(request, answer);
                }
                Output::Audit(_) | Output::Rejected(..) => {}
                Output::ViewChanged => self.check_view(index),
                Output::Stop(reason) => panic!("node {index} stops: {reason}"),
            }
        }
    }

    /// Runs the check of a changed view, and traces the plan's moves.
    fn check_view(&mut self, index: usize) {
        let engine = self.nodes[index].engine.as_ref().expect("its process is up");
        let check = (self.view_check)(index, engine);
        self.require(check);
        if self.explain {
            let view = self.engine(index).view();
            for it in &view.plan.moves {
                let name = |node: Option<NodeId>| {
                    node.map_or_else(|| "-".to_owned(), |node| view.name(node))
                };
                let line = format!(
                    "plan: {} {} -> {}: {}",
                    it.slot,
                    name(it.from),
                    name(it.to),
                    it.reason
                );
                self.trace_node(index, &line);
            }
        }
    }

    /// Schedules a wake-up of an engine at its deadline.
    pub(crate) fn rearm(&mut self, index: usize) {
        let now = self.local(index);
        let second = self.now / 1000;
        let jitter = self.rng.within((0, 3));
        let node = &mut self.nodes[index];
        let Some(engine) = node.engine.as_ref() else { return };
        let (deadline, what) = engine.poll_timeout();
        let at = self.now + deadline.saturating_sub(now).max(1);
        if node.wake_at.is_some_and(|planned| planned <= at) {
            return;
        }
        node.wakes = if node.wakes.0 == second { (second, node.wakes.1 + 1) } else { (second, 0) };
        assert!(
            node.wakes.1 < MAX_WAKES,
            "m{index} wakes up too often: deadline '{what}' at {deadline}, now {now}"
        );
        let at = at + jitter;
        node.wake_at = Some(at);
        let engine_id = node.engine_id;
        self.schedule(at - self.now, Event::Wake { index, engine_id, at });
    }

    /// Returns the nodes that an engine considers up.
    pub(crate) fn up(&self, index: usize) -> BTreeSet<usize> {
        self.engine(index).view().up.iter().map(|&id| self.node_of(id)).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.trace.print();
            show(&format!("failed at {} ms; repeat with: {}", self.now, self.repeat));
        }
    }
}
