//! The engine itself: its state, its clock, and the commands of users.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vc_crdt::{DocumentError, Loaded, NodeState, Replica, View};
use vc_protocol::change::{Batch, SignedChange, Subject};
use vc_protocol::control::Change;
use vc_protocol::gossip::{Gossip, Heartbeat, SyncMessage};
use vc_protocol::node::Usage;
use vc_protocol::{ClusterId, Millis, NodeId};

use crate::anti_entropy::AntiEntropy;
use crate::detector::Detector;
use crate::interface::{Config, Durable, Input, Output, Timing};
use crate::mutation::{Mutation, MutationError};
use crate::workload::Workload;

/// From a new connection to the next heartbeat at the latest.
const FIRST_HEARTBEAT: Millis = 100;

/// The state machine.
pub struct Engine {
    pub(crate) cluster: ClusterId,
    pub(crate) nonce: u64,
    pub(crate) timing: Timing,
    pub(crate) replica: Replica,
    pub(crate) own: NodeState,
    pub(crate) view: Arc<View>,
    pub(crate) dirty: bool,
    /// Whether our document has its generation of this run.
    pub(crate) renewed: bool,
    pub(crate) detector: Detector,
    pub(crate) accused_at: BTreeMap<NodeId, Millis>,
    pub(crate) workload: Workload,
    pub(crate) runtime: RuntimeHealth,
    /// Until then nothing new is started, unless we are known to have caught up before: what we held may run elsewhere
    /// by now. `None`: caught up.
    pub(crate) hold: Option<Millis>,
    pub(crate) usage: BTreeMap<NodeId, Usage>,
    pub(crate) anti_entropy: AntiEntropy,
    pub(crate) next_heartbeat: Millis,
    pub(crate) next_judgement: Millis,
    pub(crate) pending: Durable,
    pub(crate) outputs: Vec<Output>,
}

/// Whether the runtime answers.
pub(crate) enum RuntimeHealth {
    /// Nothing was heard of it since the start: this node says nothing of itself yet.
    Unknown,
    Answers,
    Away {
        since: Millis,
        why: String,
    },
}

impl Engine {
    /// An engine with what is durable. Errors: Automerge cannot make a document.
    pub fn new(config: Config, durable: Durable, now: Millis) -> Result<Self, DocumentError> {
        let Config { key, id, cluster, info, nonce, timing } = config;
        let Loaded { replica, rejected, unreadable } =
            Replica::load(key, id, cluster, durable.certificates, durable.changes)?;
        for error in &rejected {
            tracing::error!(%error, "ignored invalid data on the disk");
        }
        for entry in &unreadable {
            tracing::warn!(document = ?entry.document, map = entry.map, key = entry.key, error = %entry.error, "ignored an unreadable entry");
        }
        let before = replica.nodes().get(&id).cloned().unwrap_or_default();
        let own = NodeState {
            // Incarnations follow the clock, so that a data directory from a backup does not repeat one.
            incarnation: (before.incarnation + 1).max(now),
            info: Some(info),
            runtime_error: None,
            claims: before.claims.clone(),
            // Who was gone before is gone until he says otherwise, or his claims would come back to life.
            unreachable: before.unreachable,
            observed: BTreeSet::new(),
            volumes: before.volumes,
            update_results: before.update_results,
            ports: BTreeMap::new(),
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
            workload: Workload::new(id, before.claims),
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

    /// What the nodes use, as their last heartbeats said.
    pub fn usage(&self) -> &BTreeMap<NodeId, Usage> {
        &self.usage
    }

    /// Whether this node was taken out of the cluster for good, and has given up what it ran.
    pub fn has_left(&self) -> bool {
        let left = self.replica.cluster().left.contains_key(&self.replica.id());
        left && self.own.claims.is_empty() && !matches!(self.runtime, RuntimeHealth::Unknown)
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
                // Whoever is new shall hear of us soon, but not before it listens.
                self.next_heartbeat = self.next_heartbeat.min(now + FIRST_HEARTBEAT);
                self.summarise(peer, now);
            }
            Input::Disconnected(peer) => self.anti_entropy.disconnected(peer),
            Input::Gossip(from, Gossip::Heartbeat(heartbeat)) => {
                self.heartbeat(from, &heartbeat, now)
            }
            Input::Gossip(from, Gossip::Changes(batch)) => {
                self.receive(batch, now);
                self.detector.spoke(from, now);
            }
            Input::Sync(from, SyncMessage::Summary(theirs)) => {
                self.answer_summary(from, &theirs, now)
            }
            Input::Sync(_, SyncMessage::Changes(batch)) => self.receive(batch, now),
            Input::Runtime(event) => self.runtime_event(event, now),
            Input::Usage(usage) => {
                self.usage.insert(self.replica.id(), usage);
            }
            Input::Info(info) => {
                self.own.info = Some(info);
                self.dirty = true;
            }
            Input::Ports(problems) => {
                self.own.ports = problems;
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
            tracing::debug!(late, "this node is late; its judgement slows down");
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

    fn mutate(&mut self, request: u64, by: Subject, mutation: &Mutation, now: Millis) {
        let answer = self.write(by, mutation, now).map(|(change, changes)| {
            // An answer acknowledges this change and everything before it: all of it is durable first.
            self.pending.changes.extend(change.iter().cloned());
            self.persist();
            self.publish(change, now);
            changes
        });
        self.outputs.push(Output::Answer(request, answer));
    }

    /// Writes a mutation into the cluster document; returns the signed change, if anything has changed.
    fn write(
        &mut self,
        by: Subject,
        mutation: &Mutation,
        now: Millis,
    ) -> Result<(Vec<SignedChange>, Vec<Change>), MutationError> {
        let (wanted, changes) = mutation.apply(&self.view, &by, now)?;
        let id = self.replica.id();
        let confirms = |member| member == id || self.anti_entropy.is_confirmed(member);
        let may_reuse = self.replica.members().all(confirms);
        let name = by.name.clone();
        let change = self.replica.write_cluster(&wanted, Some(by), now, may_reuse, self.nonce)?;
        for change in &changes {
            tracing::info!(by = name, %change, "command");
        }
        self.dirty |= change.is_some();
        Ok((change.into_iter().collect(), changes))
    }

    pub(crate) fn persist(&mut self) {
        let durable = std::mem::take(&mut self.pending);
        if !durable.is_empty() {
            self.outputs.push(Output::Persist(durable));
        }
    }

    /// The cluster's id.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }
}
