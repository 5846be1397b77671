//! The simulated world: nodes with their engines, a queue of events ordered by virtual time, and one random stream.

use std::collections::{BTreeMap, BTreeSet};

use tracing::Level;
use vc_crdt::KnownVersions;
use vc_engine::alerts::Delivery;
use vc_engine::runtime::InstanceId;
use vc_engine::{Clock, Durable, Engine, HISTORY, Input, Output};
use vc_protocol::change::{Batch, DocumentId};
use vc_protocol::gossip::SyncMessage;
use vc_protocol::lease::Epoch;
use vc_protocol::{ClusterId, Keypair, Millis, NodeId, Slot};

use crate::check::Check;
use crate::faults::{Planned, Recovery};
use crate::history::{Action, History};
use crate::kind::Kind;
use crate::marks::Mark;
use crate::network::Network;
use crate::node::Node;
use crate::operators::Operators;
use crate::rng::Rng;
use crate::runtime::{ContainerEvent, RuntimeFaults};
use crate::trace::{Recorded, Trace, record, show};
use crate::volumes::Written;
use crate::watch::Watch;

/// Start of virtual time, milliseconds since 1970: a day in 2027.
pub const EPOCH: Millis = 1_800_000_000_000;
/// Limit of wake-ups of an engine per second of virtual time; over it, its deadline never advances.
const MAX_WAKES: u32 = 500;
/// Limit of events that wait, for each node; over it, nodes produce more than they take in.
const MAX_QUEUED: usize = 5_000;
/// Pause between attempts to recover from a failed write, as the driver makes them.
const RECOVERY_INTERVAL: Millis = 2_000;
/// Time between the news that a node has left and the end of its connections.
const NOTICE: Millis = 500;

/// A scheduled event. Nodes are named by their index in [`World::nodes`].
#[derive(Debug)]
pub enum Event {
    /// Delivers an input to an engine.
    Input { to: usize, engine_id: u64, input: Box<Input> },
    /// The deadline of an engine has passed.
    Wake { index: usize, engine_id: u64, at: Millis },
    /// Starts the process of a node that is down.
    Boot { index: usize },
    /// The watchdog of a node looks at the deadlines.
    Watchdog { index: usize },
    /// The process of a node goes on with what waits for it.
    Awake { index: usize },
    /// The runtime lists its containers, and schedules the next list.
    List { index: usize, engine_id: u64 },
    /// A container reaches its next phase.
    Container { index: usize, id: InstanceId, epoch: u64, event: ContainerEvent },
    /// A node carries out what it is to do with its copies of volumes.
    Volumes { index: usize, engine_id: u64 },
    /// An instance writes to its volume, if one may.
    Write,
    /// Two nodes try to connect.
    Dial { a: usize, b: usize, number: u64 },
    /// An end of a connection is closed.
    Close { at: usize, peer: usize, connection: u64 },
    /// An end of a connection is closed if the link is still dead.
    Timeout { at: usize, peer: usize, connection: u64 },
    /// A fault, or requests of operators.
    Inject(Planned),
    /// The end of a fault.
    Recover(Recovery),
}

/// Checks that the engine of a node satisfies the invariants that hold after every change of its view.
pub type ViewCheck = Box<dyn FnMut(usize, &Engine) -> Check>;

/// The state of the simulation.
pub struct World {
    /// Milliseconds of virtual time since [`EPOCH`].
    pub now: Millis,
    pub rng: Rng,
    /// All nodes, in the order in which they joined. The trace calls node N `mN`.
    pub nodes: Vec<Node>,
    pub network: Network,
    pub runtime_faults: RuntimeFaults,
    pub operators: Operators,
    /// Changes of a document after which a new generation starts.
    pub document_history: u64,
    pub history: History,
    /// The last epoch and node of each slot that ran under a lease.
    pub epochs: BTreeMap<Slot, (Epoch, usize)>,
    /// What instances have written to volumes.
    pub written: Written,
    /// What receivers of alerts got, with the node that sent it. They confirm everything.
    pub notified: Vec<(usize, Delivery)>,
    /// Until when instances write to their volumes all the time.
    pub writes_until: Millis,
    pub cluster: ClusterId,
    pub root: Keypair,
    /// What the version of nodes that join knows.
    pub knows: KnownVersions,
    /// The kinds of faults that there may be.
    pub kinds: BTreeSet<Kind>,
    pub marks: BTreeSet<Mark>,
    pub watch: Watch,
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
    pub fn new(seed: u64, repeat: String, view_check: ViewCheck) -> Self {
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
            epochs: BTreeMap::new(),
            written: Written::default(),
            notified: Vec::new(),
            writes_until: 0,
            cluster: ClusterId::of(&root.public()).expect("ed25519"),
            root,
            knows: KnownVersions::default(),
            kinds: BTreeSet::new(),
            marks: BTreeSet::new(),
            watch: Watch::default(),
            queue: BTreeMap::new(),
            scheduled: 0,
            view_check,
            trace: Trace::start(),
            repeat,
            explain: std::env::var_os("VC_SIM_MOVES").is_some(),
        }
    }

    /// Returns the time by the clocks of a node.
    pub fn clock(&self, index: usize) -> Clock {
        self.nodes[index].clocks.at(self.now)
    }

    /// Notes that the run has reached a state.
    pub fn mark(&mut self, mark: Mark) {
        if self.marks.insert(mark) {
            self.trace_world(&format!("mark: {}", mark.name()));
        }
    }

    /// The same, if it has.
    pub fn mark_if(&mut self, reached: bool, mark: Mark) {
        if reached {
            self.mark(mark);
        }
    }

    /// Returns the nodes that are not turned off for good.
    pub fn present(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&index| !self.nodes[index].off).collect()
    }

    /// Returns the index of the node with this id.
    pub fn node_of(&self, id: NodeId) -> usize {
        self.nodes.iter().position(|node| node.id == id).expect("the id of a node")
    }

    /// Returns whether the process of a node is up.
    pub fn is_running(&self, index: usize) -> bool {
        self.nodes[index].engine.is_some()
    }

    /// Returns whether the process of a node is up and not stalled.
    pub fn is_awake(&self, index: usize) -> bool {
        self.is_running(index) && self.nodes[index].busy_until <= self.now
    }

    /// Returns all nodes whose process is up.
    pub fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&index| self.is_running(index)).collect()
    }

    /// Returns the engine of a node. Panics when its process is down.
    pub fn engine(&self, index: usize) -> &Engine {
        self.nodes[index].engine.as_ref().expect("its process is up")
    }

    /// Schedules an event, `after` milliseconds from now.
    pub fn schedule(&mut self, after: Millis, event: Event) {
        self.scheduled += 1;
        self.queue.insert((self.now + after, self.scheduled), event);
    }

    /// Schedules an input for the current engine of a node; dropped if that engine ends before.
    pub fn deliver(&mut self, after: Millis, to: usize, input: Input) {
        let engine_id = self.nodes[to].engine_id;
        self.schedule(after, Event::Input { to, engine_id, input: Box::new(input) });
    }

    /// Appends an action to the history.
    pub fn record(&mut self, index: usize, action: Action) {
        self.history.record(self.now, index, action);
    }

    /// Appends a line about a node to the trace.
    pub fn trace_node(&mut self, index: usize, line: &str) {
        self.trace.push(format!("{:>8} m{index} {line}", self.now));
    }

    /// Appends a line about the whole world to the trace.
    pub fn trace_world(&mut self, line: &str) {
        self.trace.push(format!("{:>8} == {line}", self.now));
    }

    /// Advances time by `duration` milliseconds.
    pub fn run(&mut self, duration: Millis) {
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
    pub fn run_until(&mut self, limit: Millis, what: &str, holds: impl Fn(&Self) -> Check) {
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
    pub fn require(&self, check: Check) {
        if let Err(why) = check {
            panic!("{why}");
        }
    }

    /// Executes an event. Those of a stalled process are delayed, those of an earlier engine dropped.
    fn dispatch(&mut self, event: Event) {
        assert!(
            self.queue.len() < MAX_QUEUED * (self.nodes.len() + 1),
            "{} events wait",
            self.queue.len()
        );
        let (index, engine_id) = match &event {
            Event::Input { to, engine_id, .. } => (Some(*to), *engine_id),
            Event::Wake { index, engine_id, .. }
            | Event::List { index, engine_id }
            | Event::Volumes { index, engine_id } => (Some(*index), *engine_id),
            _ => (None, 0),
        };
        if let Some(index) = index {
            let node = &self.nodes[index];
            if node.engine_id != engine_id || node.engine.is_none() {
                return;
            }
            if node.busy_until > self.now {
                return self.wait(index, event);
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
            Event::Watchdog { index } => self.watchdog(index),
            Event::Awake { index } => self.wake_up(index),
            Event::List { index, engine_id } => {
                self.list(index);
                self.schedule(30_000, Event::List { index, engine_id });
            }
            Event::Container { index, id, epoch, event } => {
                self.container_event(index, id, epoch, event)
            }
            Event::Volumes { index, .. } => self.step_volumes(index),
            Event::Write => self.write_on(),
            Event::Dial { a, b, number } => self.dial(a, b, number),
            Event::Close { at, peer, connection } => self.close(at, peer, connection),
            Event::Timeout { at, peer, connection } => self.timeout(at, peer, connection),
            Event::Inject(planned) => self.inject(planned),
            Event::Recover(recovery) => self.recover(recovery),
        }
    }

    /// Keeps an event of a stalled process for later.
    fn wait(&mut self, index: usize, event: Event) {
        let node = &mut self.nodes[index];
        node.waiting.push_back(event);
        if node.waiting.len() == 1 {
            let after = node.busy_until - self.now;
            self.schedule(after, Event::Awake { index });
        }
    }

    /// Executes what waits for a process, until it stalls again.
    pub fn wake_up(&mut self, index: usize) {
        while let Some(event) = self.nodes[index].waiting.pop_front() {
            let left = self.nodes[index].busy_until.saturating_sub(self.now);
            if left > 0 {
                self.nodes[index].waiting.push_front(event);
                return self.schedule(left, Event::Awake { index });
            }
            self.dispatch(event);
        }
    }

    /// Passes an input to an engine and performs its outputs.
    pub fn handle(&mut self, index: usize, input: Input) {
        let now = self.clock(index);
        let Some(engine) = self.nodes[index].engine.as_mut() else { return };
        let pending = self.operators.begin(engine, &input);
        let has_left = engine.replica().cluster().left.contains_key(&engine.replica().id());
        let outputs = engine.handle(now, input);
        if let Some(pending) = pending {
            let accepts = |it: &Output| matches!(it, Output::Answer(_, Ok(_)));
            let is_refused = !outputs.iter().any(accepts);
            assert!(!has_left || is_refused, "m{index} accepts a command after it was removed");
            self.operators.finish(engine, pending, &outputs);
        }
        self.take_log(index);
        self.perform(index, outputs);
        let node = &mut self.nodes[index];
        if node.slowness > 0 {
            node.busy_until = node.busy_until.max(self.now + node.slowness);
        }
        if node.engine.as_ref().is_some_and(Engine::has_left) {
            self.mark(Mark::NodeLeft);
            return self.kill_process(index);
        }
        self.rearm(index);
    }

    /// Moves the engine's log to the trace. Panics when it has an error.
    pub fn take_log(&mut self, index: usize) {
        for (level, line) in self.trace.logged() {
            self.trace_node(index, &format!("{level} {line}"));
            self.mark_if(line.starts_with("reported as unreachable"), Mark::AccusationRefuted);
            self.mark_if(line.starts_with("another process has written"), Mark::SetBack);
            let is_damage = self.kinds.contains(&Kind::FlippedBit)
                && ["ignored invalid data on the disk", "stored change cannot be decoded"]
                    .iter()
                    .any(|damage| line.starts_with(damage));
            self.mark_if(is_damage, Mark::DamageIgnored);
            assert!(level != Level::ERROR || is_damage, "m{index} logged an error: {line}");
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
                Output::RemoveVolume { volume, .. } | Output::ForgetVolume { volume, .. } => {
                    self.trace_node(index, &format!("removes its copy of {volume}"));
                    self.nodes[index].volumes.copies.remove(&volume);
                }
                Output::Volumes(tasks) => self.set_volume_tasks(index, tasks),
                Output::Persist(durable) => {
                    if !self.persist(index, durable) {
                        return;
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
                    self.network.sent.sync += 1;
                    self.send(index, peer, &message, Input::Sync);
                }
                Output::Lease(peer, message) => {
                    let peer = self.node_of(peer);
                    self.network.sent.lease += 1;
                    self.send(index, peer, &message, Input::Lease);
                }
                Output::Deadlines(deadlines) => self.set_deadlines(index, deadlines),
                Output::Replay(peer, runs) => {
                    self.record(index, Action::Replayed);
                    let peer = self.node_of(peer);
                    let certificates = self.engine(index).replica().certificates();
                    for changes in self.nodes[index].disk.replay(&runs) {
                        self.network.sent.sync += 1;
                        let batch = Batch { certificates: certificates.clone(), changes };
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
                    self.mark_if(self.operators.refused, Mark::Refused);
                }
                Output::Notify(delivery) => {
                    self.trace_node(index, &format!("sends {delivery:?}"));
                    let after = self.rng.within((50, 500));
                    let confirmed = Input::Delivered(delivery.receiver.clone(), Ok(()));
                    self.notified.push((index, delivery));
                    self.deliver(after, index, confirmed);
                }
                Output::Audit(_) | Output::Rejected(..) => {}
                Output::ViewChanged => self.check_view(index),
                Output::Stop(reason) => {
                    // Its directory was set back more than once: for a restarted process that is as if another one ran.
                    let is_set_back = self.kinds.iter().any(|kind| kind.loses_writes());
                    assert!(is_set_back, "m{index} stops: {reason}");
                    self.kill_process(index);
                    return self.schedule(5_000, Event::Boot { index });
                }
            }
        }
    }

    /// Writes to the disk of a node. Returns whether the outputs that follow are to be performed.
    fn persist(&mut self, index: usize, durable: Durable) -> bool {
        let changes = durable.changes.clone();
        let replaced = durable.replaced.clone();
        let tears = std::mem::take(&mut self.nodes[index].disk.tears);
        let had_failed = self.nodes[index].disk.failed;
        if tears {
            let mut rng = Rng::new(self.rng.number());
            if !self.nodes[index].disk.tear(durable, &mut rng) {
                self.trace_node(index, "the host dies in a write, which is rolled back");
                self.mark(Mark::WriteTorn);
                self.kill_host(index);
                return false;
            }
        } else if self.nodes[index].disk.persist(durable).is_err() {
            self.disturb(index);
            self.trace_node(index, "write failed: the engine is replaced");
            self.make_engine(index);
            // Without the space that is kept back, the driver waits.
            let waits = self.nodes[index].disk.read_only || self.rng.permille(500);
            if waits {
                self.nodes[index].busy_until = self.now + RECOVERY_INTERVAL;
            }
            self.restore_connections(index);
            return false;
        }
        self.mark_if(had_failed, Mark::RecoveredFromFailedWrite);
        if had_failed && std::mem::take(&mut self.nodes[index].disk.was_read_only) {
            self.mark(Mark::RecoveredFromReadOnlyDisk);
        }
        if !changes.is_empty() {
            self.record(index, Action::Persisted(changes.len()));
            self.operators.persisted(&changes);
        }
        let is_own = |it: &DocumentId| matches!(it, DocumentId::Node { node, .. } if *node == self.nodes[index].id);
        let renews = replaced.iter().any(is_own);
        let checkpoints = replaced.iter().any(|it| matches!(it, DocumentId::Cluster { .. }));
        self.mark_if(renews && self.network.is_cut(), Mark::GenerationUnderCut);
        self.mark_if(checkpoints, Mark::Checkpoint);
        let changed = self.watch.membership_changed;
        let is_churn = changed.is_some_and(|at| self.now < at + 20_000);
        self.mark_if(checkpoints && is_churn, Mark::CheckpointUnderChurn);
        if tears {
            self.trace_node(index, "the host dies after a write");
            self.kill_host(index);
        }
        !tears
    }

    /// Runs the check of a changed view, and traces the plan's moves.
    fn check_view(&mut self, index: usize) {
        let engine = self.nodes[index].engine.as_ref().expect("its process is up");
        let check = (self.view_check)(index, engine);
        self.require(check);
        self.watch_view(index);
        for peer in self.network.peers(index, self.nodes.len()) {
            if self.knows_left(index, peer) {
                self.close_after(NOTICE, index, peer);
            }
        }
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
    pub fn rearm(&mut self, index: usize) {
        let now = self.clock(index).monotonic;
        let second = self.now / 1000;
        let jitter = self.rng.within((0, 3));
        let node = &mut self.nodes[index];
        let Some(engine) = node.engine.as_ref() else { return };
        let (deadline, what) = engine.poll_timeout();
        let Some(after) = node.clocks.until(self.now, deadline) else { return };
        let at = self.now + after.max(1);
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
    pub fn up(&self, index: usize) -> BTreeSet<usize> {
        self.engine(index).view().up.iter().map(|&id| self.node_of(id)).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let lines = self.trace.take_lines();
        let recorded = Recorded {
            hash: self.trace.hash(),
            simulated: self.now,
            marks: std::mem::take(&mut self.marks),
            lines,
        };
        let Some(recorded) = record(recorded) else { return };
        if std::thread::panicking() {
            if !self.trace.is_live() {
                recorded.lines.iter().for_each(|line| show(line));
            }
            show(&format!("failed at {} ms; repeat with: {}", self.now, self.repeat));
        }
    }
}
