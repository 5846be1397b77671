//! The node's state machine: it decides, the shell acts.
//!
//! [`Engine::handle`] takes one [`Input`] and the time, and returns [`Output`]s to be carried out in their order. It
//! never waits, reads no clock and draws no randomness, so the very same engine runs in a node and, by the dozen under
//! virtual time, in the simulator. When nothing comes in, [`Engine::deadline`] says when to call it again and why.

mod anti_entropy;
mod detector;
mod mutation;
pub mod report;
pub mod runtime;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vc_crdt::{DocumentError, NodeState, Replica, View, liveness};
use vc_protocol::change::{Batch, DocumentId, Run, SignedChange, Subject};
use vc_protocol::gossip::{Gossip, Heartbeat, SyncMessage};
use vc_protocol::instance::InstanceState;
use vc_protocol::node::{NodeInfo, Usage};
use vc_protocol::spec::Dependency;
use vc_protocol::wire::{MAX_GOSSIP, encode};
use vc_protocol::{ClusterId, Keypair, Millis, NodeId, Slot};

use anti_entropy::AntiEntropy;
use detector::Detector;
use runtime::{Observed, Phase, RuntimeAction, RuntimeEvent};
use workload::{Desired, Workload};

pub use mutation::{Mutation, find_node, find_service, find_services};

/// Changes in our own document after which it starts anew.
const HISTORY: u64 = 2000;
/// An accusation answered within this time was wrong, not a machine that came back.
const WRONG: Millis = 3000;

/// The rhythms of a node, all in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two heartbeats.
    pub heartbeat: Millis,
    /// Between two looks at who is silent.
    pub judgement: Millis,
    /// The shortest silence that is suspect.
    pub suspect: Millis,
    /// The silence that is suspect in one that was never heard.
    pub first_contact: Millis,
    /// Between two comparisons with some peer, whatever gossip brings.
    pub anti_entropy: Millis,
    /// A runtime may be away so long before its instances are given up.
    pub runtime_grace: Millis,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: 500,
            judgement: 250,
            suspect: 2000,
            first_contact: 6000,
            anti_entropy: 10_000,
            runtime_grace: 5000,
        }
    }
}

/// What an engine is made of.
pub struct Config {
    /// The node's key.
    pub key: Keypair,
    /// Its id.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// What it says of itself.
    pub info: NodeInfo,
    /// A random number, new at each start.
    pub nonce: u64,
    /// Its rhythms.
    pub timing: Timing,
}

/// What is kept on disk.
#[derive(Debug, Clone, Default)]
pub struct Durable {
    /// Changes.
    pub changes: Vec<SignedChange>,
    /// Membership certificates.
    pub certificates: Vec<String>,
    /// Documents whose changes are needed no more.
    pub replaced: Vec<DocumentId>,
}

impl Durable {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.certificates.is_empty() && self.replaced.is_empty()
    }
}

/// What happens to a node.
#[derive(Debug, Clone)]
pub enum Input {
    /// The deadline has come.
    Wake,
    /// A member is connected.
    Connected(NodeId),
    /// No connection to it is left.
    Disconnected(NodeId),
    /// A gossip message whose signature says it is from this member.
    Gossip(NodeId, Gossip),
    /// A message on a stream from a connected member.
    Sync(NodeId, SyncMessage),
    /// Something happened in the runtime.
    Runtime(RuntimeEvent),
    /// What this machine uses now.
    Usage(Usage),
    /// What this machine says of itself has changed, as its addresses do.
    Info(NodeInfo),
    /// A certificate that authentication brought.
    Certificate(String),
    /// A user wants a change; the caller has checked that he may.
    Mutate {
        /// Comes back in [`Output::Answer`].
        request: u64,
        /// Who.
        by: Subject,
        /// What.
        mutation: Mutation,
    },
}

/// What the shell is to do, in this order.
#[derive(Debug, Clone)]
pub enum Output {
    /// Tell the runtime.
    Runtime(RuntimeAction),
    /// Make this durable before going on. When that fails: perform nothing of what follows, and make a new engine from
    /// what is durable.
    Persist(Durable),
    /// Publish.
    Gossip(Gossip),
    /// Send to a connected member; may be lost.
    Send(NodeId, SyncMessage),
    /// Read these runs of changes from disk and send them to a connected member, in batches; may be lost.
    Replay(NodeId, Vec<Run>),
    /// Its connections are dead: close them.
    Disconnect(NodeId),
    /// Answer a [`Input::Mutate`]: lines for people, or why not.
    Answer(u64, Result<Vec<String>, String>),
    /// [`Engine::view`] shows something new.
    ViewChanged,
}

/// The state machine.
pub struct Engine {
    cluster: ClusterId,
    nonce: u64,
    timing: Timing,
    replica: Replica,
    own: NodeState,
    view: Arc<View>,
    dirty: bool,
    /// Whether our document has its generation of this run.
    renewed: bool,
    detector: Detector,
    accused_at: BTreeMap<NodeId, Millis>,
    workload: Workload,
    runtime: RuntimeHealth,
    /// Until then nothing new is started, unless we are known to have caught up before: what we held may run elsewhere
    /// by now. `None`: caught up.
    hold: Option<Millis>,
    usage: BTreeMap<NodeId, Usage>,
    anti_entropy: AntiEntropy,
    next_heartbeat: Millis,
    next_judgement: Millis,
    pending: Durable,
    outputs: Vec<Output>,
}

/// Whether the runtime answers.
enum RuntimeHealth {
    /// Nothing was heard of it since the start: this node says nothing of itself yet.
    Unknown,
    Answers,
    Away { since: Millis, why: String },
}

impl Engine {
    /// An engine with what is durable. Errors: Automerge cannot make a document.
    pub fn new(config: Config, durable: Durable, now: Millis) -> Result<Self, DocumentError> {
        let Config { key, id, cluster, info, nonce, timing } = config;
        let replica = Replica::load(key, id, cluster, durable.certificates, durable.changes)?;
        let before = replica.nodes().get(&id).cloned().unwrap_or_default();
        let own = NodeState {
            // Incarnations follow the clock, so that a data directory from a backup does not repeat one.
            incarnation: (before.incarnation + 1).max(now),
            info: Some(info),
            runtime_error: None,
            claims: before.claims.clone(),
            // Who was gone before is gone until he says otherwise, or his claims would come back to life.
            unreachable: before.unreachable,
        };
        let mut detector = Detector::new(timing);
        for (&node, state) in replica.nodes().iter().filter(|&(&node, _)| node != id) {
            detector.incarnation(node, state.incarnation, now);
        }
        let view = Arc::new(View::of(&replica));
        let alone = replica.members().count() <= 1;
        Ok(Self {
            cluster,
            nonce,
            timing,
            replica,
            own,
            view,
            dirty: true,
            renewed: false,
            detector,
            accused_at: BTreeMap::new(),
            workload: Workload::new(before.claims),
            runtime: RuntimeHealth::Unknown,
            hold: (!alone).then_some(now + timing.first_contact),
            usage: BTreeMap::new(),
            anti_entropy: AntiEntropy::new(now, timing),
            next_heartbeat: now,
            next_judgement: now + timing.judgement,
            pending: Durable::default(),
            outputs: Vec::new(),
        })
    }

    /// What the documents say, and the plan.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// What the machines use, as their last heartbeats said.
    pub fn usage(&self) -> &BTreeMap<NodeId, Usage> {
        &self.usage
    }

    /// The documents.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// When to call [`Engine::handle`] with [`Input::Wake`], and what for.
    pub fn deadline(&self) -> (Millis, &'static str) {
        let restart = self.workload.deadline().map(|at| (at, "restart"));
        let fixed = [
            (self.next_heartbeat, "heartbeat"),
            (self.next_judgement, "judgement"),
            (self.anti_entropy.deadline(), "anti-entropy"),
        ];
        fixed.into_iter().chain(restart).min().unwrap_or(fixed[0])
    }

    /// Moves on: takes an input at a time that never goes back, and says what to do.
    pub fn handle(&mut self, now: Millis, input: Input) -> Vec<Output> {
        match input {
            Input::Wake => self.wake(now),
            Input::Connected(peer) => {
                self.anti_entropy.connected(peer);
                self.summarise(peer, now);
            }
            Input::Disconnected(peer) => self.anti_entropy.disconnected(peer),
            Input::Gossip(from, Gossip::Heartbeat(heartbeat)) => self.heartbeat(from, &heartbeat, now),
            Input::Gossip(_, Gossip::Changes(batch)) => self.receive(batch, now),
            Input::Sync(from, SyncMessage::Summary(theirs)) => self.answer_summary(from, &theirs, now),
            Input::Sync(_, SyncMessage::Changes(batch)) => self.receive(batch, now),
            Input::Runtime(event) => self.runtime_event(event, now),
            Input::Usage(usage) => {
                self.usage.insert(self.replica.id(), usage);
            }
            Input::Info(info) => {
                self.own.info = Some(info);
                self.dirty = true;
            }
            Input::Certificate(certificate) => {
                self.receive(Batch { certificates: vec![certificate], changes: Vec::new() }, now);
            }
            Input::Mutate { request, by, mutation } => self.mutate(request, by, &mutation, now),
        }
        self.settle(now);
        std::mem::take(&mut self.outputs)
    }

    fn wake(&mut self, now: Millis) {
        let (due, _) = self.deadline();
        let late = now.saturating_sub(due);
        if late > self.timing.suspect / 4 {
            tracing::debug!(late, "this machine is late; its judgement slows down");
            self.detector.was_late(late, now);
        }
        if now >= self.next_heartbeat {
            self.next_heartbeat = now + self.timing.heartbeat;
            let id = self.replica.id();
            let heartbeat = Heartbeat {
                node: id,
                incarnation: self.replica.nodes().get(&id).map_or(0, |own| own.incarnation),
                seq: now,
                fingerprint: self.anti_entropy.fingerprint(self.replica.versions()),
                usage: self.usage.get(&id).copied().unwrap_or_default(),
            };
            self.outputs.push(Output::Gossip(Gossip::Heartbeat(heartbeat)));
        }
        if now >= self.next_judgement {
            self.next_judgement = now + self.timing.judgement;
            self.judge(now);
        }
        if let Some(peer) = self.anti_entropy.due(now) {
            self.summarise(peer, now);
        }
        if self.hold.is_some_and(|until| now >= until) {
            self.caught_up();
        }
        // A restart may have come due, or the runtime's grace may have run out.
        self.dirty |= self.workload.deadline().is_some_and(|at| now >= at);
        if let RuntimeHealth::Away { since, why } = &self.runtime
            && self.own.runtime_error.is_none()
            && now >= since + self.timing.runtime_grace
        {
            self.own.runtime_error = Some(why.clone());
            self.dirty = true;
        }
    }

    fn heartbeat(&mut self, from: NodeId, heartbeat: &Heartbeat, now: Millis) {
        if from != heartbeat.node || !self.detector.heard(from, heartbeat.incarnation, heartbeat.seq, now) {
            return;
        }
        self.usage.insert(from, heartbeat.usage);
        let ours = self.anti_entropy.fingerprint(self.replica.versions());
        if heartbeat.fingerprint == ours {
            self.caught_up();
        } else if self.anti_entropy.may_summarise(from, now) {
            self.summarise(from, now);
        }
    }

    /// Whatever happened while we were away is known here now, or nobody is there to tell.
    fn caught_up(&mut self) {
        self.dirty |= self.hold.take().is_some();
    }

    /// Looks at who is silent, and writes it down.
    fn judge(&mut self, now: Millis) {
        self.detector.fade(now);
        if matches!(self.runtime, RuntimeHealth::Unknown) {
            return;
        }
        let id = self.replica.id();
        for (&node, state) in self.replica.nodes().iter().filter(|&(&node, _)| node != id) {
            let accused = self.own.unreachable.get(&node).is_some_and(|&of| of >= state.incarnation);
            if accused || !self.detector.is_silent(node, now) {
                continue;
            }
            // It may be there and not be heard by us: a dead connection hides that.
            self.outputs.push(Output::Disconnect(node));
            if liveness::observers(node, self.replica.nodes().keys()).contains(&id) {
                tracing::info!(node = %node, name = self.view.name(node), "cannot hear this node");
                self.own.unreachable.insert(node, state.incarnation);
                self.accused_at.insert(node, now);
                self.dirty = true;
            }
        }
    }

    fn receive(&mut self, batch: Batch, now: Millis) {
        let received = self.replica.receive(batch);
        for rejected in &received.rejected {
            tracing::warn!(reason = %rejected, "refused what a peer sent");
        }
        self.dirty |= !received.accepted.is_empty();
        self.pending.changes.extend(received.accepted);
        self.pending.certificates.extend(received.certificates);
        self.pending.replaced.extend(received.replaced);
        let id = self.replica.id();
        for (&node, state) in self.replica.nodes().iter().filter(|&(&node, _)| node != id) {
            self.detector.incarnation(node, state.incarnation, now);
            // The accusation stays in our document: it is void where the answer is known. Were it taken back, whoever
            // hears of that before he hears the answer would see the old claims come back to life.
            let answered = self.own.unreachable.get(&node).is_some_and(|&of| of < state.incarnation);
            if answered && self.accused_at.remove(&node).is_some_and(|at| now < at + WRONG) {
                self.detector.was_wrong(now);
            }
        }
    }

    fn runtime_event(&mut self, event: RuntimeEvent, now: Millis) {
        self.dirty = true;
        match event {
            RuntimeEvent::Listed(all) => {
                if self.own.runtime_error.take().is_some() {
                    tracing::info!("the runtime answers again");
                }
                match self.runtime {
                    RuntimeHealth::Unknown => self.disown(&all),
                    RuntimeHealth::Away { .. } => self.workload.asked_in_vain(),
                    RuntimeHealth::Answers => {}
                }
                self.runtime = RuntimeHealth::Answers;
                self.workload.listed(all, now);
            }
            RuntimeEvent::Changed(seen) => self.workload.changed(seen, now),
            RuntimeEvent::Unavailable(why) => {
                tracing::warn!(reason = why.as_str(), "the runtime does not answer");
                match &mut self.runtime {
                    // Nothing is known of what ran before: others take over at once.
                    RuntimeHealth::Unknown => {
                        self.own.runtime_error = Some(why.clone());
                        self.runtime = RuntimeHealth::Away { since: now, why };
                    }
                    RuntimeHealth::Answers => self.runtime = RuntimeHealth::Away { since: now, why },
                    RuntimeHealth::Away { why: latest, .. } => *latest = why,
                }
            }
        }
    }

    /// Of what we claimed in our previous life, what is not running any more is not claimed as running: a successor's
    /// instance goes before it.
    fn disown(&mut self, all: &[Observed]) {
        for (slot, claim) in self.own.claims.iter_mut().filter(|(_, claim)| claim.state.is_running()) {
            let runs = |seen: &&Observed| matches!(seen.phase, Phase::Running { .. }) && seen.id.slot == *slot;
            if !all.iter().filter(runs).any(|seen| seen.id.digest == claim.digest) {
                claim.state = InstanceState::Pending;
            }
        }
    }

    fn mutate(&mut self, request: u64, by: Subject, mutation: &Mutation, now: Millis) {
        let result = mutation.apply(&self.view, &by, now).and_then(|(wanted, lines)| {
            let id = self.replica.id();
            let confirms = |member| member == id || self.anti_entropy.is_confirmed(member);
            let may_reuse = self.replica.members().all(confirms);
            let name = by.name.clone();
            let change = self
                .replica
                .write_cluster(&wanted, Some(by), now, may_reuse, self.nonce)
                .map_err(|error| error.to_string())?;
            for line in &lines {
                tracing::info!(by = name, change = line.as_str(), "command");
            }
            self.dirty |= change.is_some();
            Ok((change, lines))
        });
        let answer = match result {
            Ok((change, lines)) => {
                // What an answer acknowledges is durable first, and so is all that came before it.
                let change: Vec<SignedChange> = change.into_iter().collect();
                self.pending.changes.extend(change.iter().cloned());
                self.persist();
                self.publish(change, now);
                Ok(lines)
            }
            Err(reason) => Err(reason),
        };
        self.outputs.push(Output::Answer(request, answer));
    }

    /// Brings everything that follows from the documents up to date: our incarnation, the view, what runs here, and
    /// what we say of it.
    fn settle(&mut self, now: Millis) {
        let mut own_changes = Vec::new();
        let mut view_changed = false;
        // Our own words are part of the view, so it takes a second turn to see them; they do not change in a third.
        for _ in 0..4 {
            if !std::mem::take(&mut self.dirty) {
                break;
            }
            self.answer_accusations();
            view_changed = true;
            self.look();
            if matches!(self.runtime, RuntimeHealth::Unknown) {
                break;
            }
            self.reconcile(now);
            let written = if self.needs_renewal() {
                self.renewed = true;
                self.pending.replaced.extend(self.own_document());
                self.replica.renew_own(&self.own, now)
            } else {
                self.replica.write_own(&self.own, now)
            };
            match written {
                Ok(Some(change)) => {
                    own_changes.push(change);
                    self.dirty = true;
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "cannot write this node's document"),
            }
        }
        self.pending.changes.extend(own_changes.iter().cloned());
        self.persist();
        self.publish(own_changes, now);
        if view_changed {
            self.outputs.push(Output::ViewChanged);
        }
    }

    /// Our document starts a new generation at each start and when its history has grown.
    fn needs_renewal(&self) -> bool {
        !self.renewed || self.replica.own_history() >= HISTORY
    }

    fn own_document(&self) -> Option<DocumentId> {
        let node = self.replica.id();
        let &(generation, _) = self.replica.versions().nodes.get(&node)?;
        Some(DocumentId::Node { node, generation })
    }

    /// Whoever calls us unreachable is answered with a higher incarnation.
    fn answer_accusations(&mut self) {
        let id = self.replica.id();
        let highest = self.replica.nodes().values().filter_map(|state| state.unreachable.get(&id)).max();
        if let Some(&highest) = highest
            && highest >= self.own.incarnation
        {
            tracing::info!(incarnation = highest + 1, "others called this node unreachable; answered");
            self.own.incarnation = highest + 1;
        }
    }

    fn look(&mut self) {
        let mut nodes = self.replica.nodes().clone();
        if !matches!(self.runtime, RuntimeHealth::Unknown) {
            // What we are about to write counts already, and first of all our incarnation: in our last one we may be
            // accused, and would see ourselves down and stop everything.
            nodes.insert(self.replica.id(), self.own.clone());
        }
        let view = View::from_states(self.replica.cluster().clone(), nodes);
        let moved = |from: &View, to: &View| -> Vec<NodeId> { from.up.difference(&to.up).copied().collect() };
        for node in moved(&view, &self.view) {
            tracing::info!(node = %node, name = view.name(node), "node is up");
        }
        for node in moved(&self.view, &view) {
            tracing::warn!(node = %node, name = view.name(node), "node is down");
        }
        self.detector.forget(|node| !view.nodes.contains_key(node));
        self.view = Arc::new(view);
    }

    fn reconcile(&mut self, now: Millis) {
        if self.own.runtime_error.is_some() {
            self.workload.forget();
            self.own.claims.clear();
            return;
        }
        let id = self.replica.id();
        let desired: BTreeMap<Slot, Desired> = self
            .view
            .plan
            .placements
            .iter()
            .filter(|(_, placement)| placement.node == id)
            .filter_map(|(slot, _)| Some((slot.clone(), self.desired(slot)?)))
            .collect();
        let (actions, claims) = self.workload.reconcile(&desired, now);
        self.own.claims = claims;
        self.outputs.extend(actions.into_iter().map(Output::Runtime));
    }

    fn desired(&self, slot: &Slot) -> Option<Desired> {
        let spec = &self.view.cluster.services.get(&slot.service)?.spec;
        let waits_for: Vec<String> = spec
            .depends_on
            .iter()
            .filter(|(name, condition)| {
                let mut claims = self.claims_of(slot, name);
                !claims.any(|claim| match condition {
                    Dependency::ServiceStarted => claim.state.is_running(),
                    Dependency::ServiceHealthy => claim.state == InstanceState::Healthy,
                })
            })
            .map(|(name, condition)| match condition {
                Dependency::ServiceStarted => format!("waits for {name} to run"),
                Dependency::ServiceHealthy => format!("waits for {name} to be healthy"),
            })
            .collect();
        Some(Desired {
            hold: self.hold.is_some(),
            spec: spec.container.clone(),
            digest: spec.container.digest(),
            waits_for: waits_for.join(", "),
        })
    }

    /// The claims of machines that are up on a service of the same project.
    fn claims_of<'a>(
        &'a self,
        slot: &'a Slot,
        name: &'a vc_protocol::Name,
    ) -> impl Iterator<Item = &'a vc_protocol::instance::Claim> {
        let up: &BTreeSet<NodeId> = &self.view.up;
        self.view.nodes.iter().filter(|(node, _)| up.contains(node)).flat_map(move |(_, state)| {
            let of = |other: &Slot| other.service.project == slot.service.project && other.service.service == *name;
            state.claims.iter().filter(move |(other, _)| of(other)).map(|(_, claim)| claim)
        })
    }

    fn persist(&mut self) {
        let durable = std::mem::take(&mut self.pending);
        if !durable.is_empty() {
            self.outputs.push(Output::Persist(durable));
        }
    }

    /// Tells everybody; what is too large for gossip is left to anti-entropy, which is told to hurry.
    fn publish(&mut self, changes: Vec<SignedChange>, now: Millis) {
        if changes.is_empty() {
            return;
        }
        let gossip = Gossip::Changes(self.replica.batch(changes));
        if encode(&gossip).len() <= MAX_GOSSIP - 1024 {
            self.outputs.push(Output::Gossip(gossip));
        } else {
            for peer in self.anti_entropy.peers() {
                self.summarise(peer, now);
            }
        }
    }

    fn summarise(&mut self, peer: NodeId, now: Millis) {
        self.anti_entropy.summarised(peer, now);
        let summary = SyncMessage::Summary(self.replica.versions().clone());
        self.outputs.push(Output::Send(peer, summary));
    }

    fn answer_summary(&mut self, from: NodeId, theirs: &vc_protocol::change::VersionVector, now: Millis) {
        let id = self.replica.id();
        let behind = theirs.beyond(self.replica.versions());
        // Somebody has changes of ours that we lack: this data directory is older than what it wrote.
        let forgot = behind.iter().any(|run| run.actor.is_some_and(|actor| actor.is_of(id)));
        self.anti_entropy.compared(from, !forgot);
        if behind.is_empty() {
            self.caught_up();
        }
        let runs = self.replica.versions().beyond(theirs);
        if !runs.is_empty() {
            self.outputs.push(Output::Replay(from, runs));
        }
        if !behind.is_empty() && self.anti_entropy.may_summarise(from, now) {
            self.summarise(from, now);
        }
    }

    /// The cluster's id.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }
}
