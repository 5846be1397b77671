//! The world: nodes with their engines, a queue of events ordered by time, and one source of randomness.

use std::collections::{BTreeMap, BTreeSet};

use tracing::Level;
use vc_engine::runtime::InstanceId;
use vc_engine::{Engine, Input, Output};
use vc_protocol::{ClusterId, Keypair, Millis, NodeId};

use crate::history::{Action, History};
use crate::invariants::same_heads_same_plan::PlanRecorder;
use crate::invariants::{self, Check};
use crate::network::Network;
use crate::node::Node;
use crate::operators::Operators;
use crate::rng::Rng;
use crate::runtime::{ContainerEvent, RuntimeFaults};
use crate::swarm::Fault;
use crate::trace::{Trace, show};

/// When the world begins: some day in 2027.
pub(crate) const EPOCH: Millis = 1_800_000_000_000;
/// An engine that wakes up more often than this between two seconds spins.
const MAX_WAKES: u32 = 500;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// An engine gets an input, if it still lives the same life.
    Input { to: usize, life: u64, input: Box<Input> },
    /// An engine's deadline.
    Wake { of: usize, life: u64, at: Millis },
    /// The process of a node starts, if it is down.
    Boot { of: usize },
    /// The runtime lists what there is, and will again.
    List { of: usize, life: u64 },
    /// A container event.
    Container { of: usize, id: InstanceId, epoch: u64, event: ContainerEvent },
    /// Two nodes try to connect.
    Dial { a: usize, b: usize, number: u64 },
    /// An end of a connection is closed.
    Close { at: usize, peer: usize, connection: u64 },
    /// An end of a connection is closed, if nothing gets through.
    Timeout { at: usize, peer: usize, connection: u64 },
    /// A fault, or requests of operators.
    Fault(Fault),
}

/// The simulated world.
pub(crate) struct World {
    /// Milliseconds since the world began.
    pub(crate) now: Millis,
    pub(crate) rng: Rng,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) runtime_faults: RuntimeFaults,
    pub(crate) operators: Operators,
    pub(crate) history: History,
    pub(crate) cluster: ClusterId,
    pub(crate) root: Keypair,
    queue: BTreeMap<(Millis, u64), Event>,
    scheduled: u64,
    plans: PlanRecorder,
    trace: Trace,
    repeat: String,
    /// Whether the trace shows what plans want moved: `VC_SIM_MOVES=1`.
    explain: bool,
}

impl World {
    /// An empty world. `repeat`: the command that runs it again.
    pub(crate) fn new(seed: u64, repeat: String) -> Self {
        let root = Keypair::ed25519_from_bytes([250; 32]).expect("32 bytes");
        Self {
            now: 0,
            rng: Rng::new(seed),
            nodes: Vec::new(),
            network: Network::default(),
            runtime_faults: RuntimeFaults::default(),
            operators: Operators::default(),
            history: History::default(),
            cluster: ClusterId::of(&root.public()).expect("ed25519"),
            root,
            queue: BTreeMap::new(),
            scheduled: 0,
            plans: PlanRecorder::default(),
            trace: Trace::new(),
            repeat,
            explain: std::env::var_os("VC_SIM_MOVES").is_some(),
        }
    }

    /// Now, by the clock of a node.
    pub(crate) fn local(&self, of: usize) -> Millis {
        EPOCH + self.now + self.nodes[of].offset
    }

    /// The node with this id.
    pub(crate) fn node_of(&self, id: NodeId) -> usize {
        self.nodes.iter().position(|node| node.id == id).expect("a node of this world")
    }

    /// Whether its process is up.
    pub(crate) fn is_running(&self, of: usize) -> bool {
        self.nodes[of].engine.is_some()
    }

    /// Whether its process is up and does something.
    pub(crate) fn is_awake(&self, of: usize) -> bool {
        self.is_running(of) && self.nodes[of].busy_until <= self.now
    }

    /// All nodes whose process is up.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&of| self.is_running(of)).collect()
    }

    /// An engine that is up.
    pub(crate) fn engine(&self, of: usize) -> &Engine {
        self.nodes[of].engine.as_ref().expect("its process is up")
    }

    pub(crate) fn schedule(&mut self, after: Millis, event: Event) {
        self.scheduled += 1;
        self.queue.insert((self.now + after, self.scheduled), event);
    }

    /// An input for an engine, unless its process ends before.
    pub(crate) fn deliver(&mut self, after: Millis, to: usize, input: Input) {
        let life = self.nodes[to].life;
        self.schedule(after, Event::Input { to, life, input: Box::new(input) });
    }

    pub(crate) fn enter(&mut self, of: usize, action: Action) {
        self.history.enter(self.now, of, action);
    }

    /// A line of the trace about a node.
    pub(crate) fn note(&mut self, of: usize, line: &str) {
        self.trace.note(format!("{:>8} m{of} {line}", self.now));
    }

    /// A line of the trace about the world.
    pub(crate) fn say(&mut self, line: &str) {
        self.trace.note(format!("{:>8} == {line}", self.now));
    }

    /// Advances time.
    pub(crate) fn run(&mut self, for_: Millis) {
        let until = self.now + for_;
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.happen(event);
        }
        self.now = until;
    }

    /// Advances time until something holds. Panics when it does not within `most`.
    pub(crate) fn run_until(&mut self, most: Millis, what: &str, holds: impl Fn(&Self) -> Check) {
        let until = self.now + most;
        loop {
            match holds(self) {
                Ok(()) => return,
                Err(why) => assert!(self.now < until, "not within {most} ms: {what}: {why}"),
            }
            self.run(250);
        }
    }

    /// Panics when something does not hold.
    pub(crate) fn require(&self, check: Check) {
        if let Err(why) = check {
            panic!("{why}");
        }
    }

    fn happen(&mut self, event: Event) {
        let (of, life) = match &event {
            Event::Input { to, life, .. } => (Some(*to), *life),
            Event::Wake { of, life, .. } | Event::List { of, life } => (Some(*of), *life),
            _ => (None, 0),
        };
        if let Some(of) = of {
            let node = &self.nodes[of];
            if node.life != life || node.engine.is_none() {
                return;
            }
            if node.busy_until > self.now {
                let after = node.busy_until - self.now;
                return self.schedule(after, event);
            }
        }
        match event {
            Event::Input { to, input, .. } => self.handle(to, *input),
            Event::Wake { of, at, .. } => {
                if self.nodes[of].wake_at == Some(at) {
                    self.nodes[of].wake_at = None;
                    self.handle(of, Input::Wake);
                }
            }
            Event::Boot { of } => self.boot(of),
            Event::List { of, life } => {
                self.list(of);
                self.schedule(30_000, Event::List { of, life });
            }
            Event::Container { of, id, epoch, event } => self.container_event(of, id, epoch, event),
            Event::Dial { a, b, number } => self.dial(a, b, number),
            Event::Close { at, peer, connection } => self.close(at, peer, connection),
            Event::Timeout { at, peer, connection } => self.timeout(at, peer, connection),
            Event::Fault(fault) => self.inject(fault),
        }
    }

    /// Passes an input to an engine and performs its outputs.
    pub(crate) fn handle(&mut self, of: usize, input: Input) {
        let now = self.local(of);
        let Some(engine) = self.nodes[of].engine.as_mut() else { return };
        let mutation = self.operators.before(engine, &input);
        let outputs = engine.handle(now, input);
        if let Some(mutation) = mutation {
            self.operators.after(engine, mutation, &outputs);
        }
        self.take_log(of);
        self.perform(of, outputs);
        self.rearm(of);
    }

    fn take_log(&mut self, of: usize) {
        for (level, line) in self.trace.logged() {
            self.note(of, &format!("{level} {line}"));
            assert!(level != Level::ERROR, "m{of} logged an error: {line}");
        }
    }

    fn perform(&mut self, of: usize, outputs: Vec<Output>) {
        for output in outputs {
            if let Some(left) = &mut self.nodes[of].crash_after {
                if *left == 0 {
                    return self.kill_process(of);
                }
                *left -= 1;
            }
            match output {
                Output::Runtime(action) => self.act(of, action),
                Output::RemoveVolume(_) => {}
                Output::Persist(durable) => {
                    let changes = durable.changes.clone();
                    if !self.nodes[of].disk.persist(durable) {
                        self.note(of, "disk full: its engine starts anew");
                        self.make_engine(of);
                        return self.connections_again(of);
                    }
                    if !changes.is_empty() {
                        self.enter(of, Action::Persisted(changes.len()));
                        self.operators.persisted(&changes);
                    }
                }
                Output::Gossip(gossip) => {
                    if matches!(gossip, vc_protocol::gossip::Gossip::Changes(_)) {
                        self.enter(of, Action::Published);
                    }
                    self.publish(of, &gossip);
                }
                Output::Send(peer, message) => {
                    let peer = self.node_of(peer);
                    self.send(of, peer, &message);
                }
                Output::Replay(peer, runs) => {
                    self.enter(of, Action::Replayed);
                    let peer = self.node_of(peer);
                    for batch in self.nodes[of].disk.replay(&runs) {
                        self.send(of, peer, &vc_protocol::gossip::SyncMessage::Changes(batch));
                    }
                }
                Output::Disconnect(peer) => {
                    let peer = self.node_of(peer);
                    self.enter(of, Action::Disconnected);
                    self.disconnect(of, peer);
                }
                Output::Answer(request, answer) => {
                    self.note(of, &format!("answers {request}: {answer:?}"));
                    self.operators.answered(request, answer);
                }
                Output::ViewChanged => self.look(of),
            }
        }
    }

    /// Checks the invariants that hold at every moment.
    fn look(&mut self, of: usize) {
        let view = self.engine(of).view();
        let fingerprint = self.engine(of).replica().versions().fingerprint();
        let check = self
            .plans
            .record(of, fingerprint, &view)
            .and_then(|()| invariants::no_overcommit::plan(&view));
        self.require(check);
        if self.explain {
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
                self.note(of, &line);
            }
        }
    }

    /// Plans to wake an engine at its deadline.
    pub(crate) fn rearm(&mut self, of: usize) {
        let now = self.local(of);
        let second = self.now / 1000;
        let jitter = self.rng.within((0, 3));
        let node = &mut self.nodes[of];
        let Some(engine) = node.engine.as_ref() else { return };
        let (deadline, what) = engine.poll_timeout();
        let at = self.now + deadline.saturating_sub(now).max(1);
        if node.wake_at.is_some_and(|planned| planned <= at) {
            return;
        }
        node.wakes = if node.wakes.0 == second { (second, node.wakes.1 + 1) } else { (second, 0) };
        assert!(
            node.wakes.1 < MAX_WAKES,
            "m{of} spins: its deadline is '{what}', {deadline}, and it is {now}"
        );
        let at = at + jitter;
        node.wake_at = Some(at);
        let life = node.life;
        self.schedule(at - self.now, Event::Wake { of, life, at });
    }

    /// The ids of the nodes that an engine thinks are up.
    pub(crate) fn up(&self, of: usize) -> BTreeSet<usize> {
        self.engine(of).view().up.iter().map(|&id| self.node_of(id)).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.trace.print();
            show(&format!("at {} ms. To repeat: {}", self.now, self.repeat));
        }
    }
}
