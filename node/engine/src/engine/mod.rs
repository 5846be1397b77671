//! The engine: composes the state machines of a node, merges their timeouts, and applies the commands of users.

mod accusation;
mod exchange;
mod reconcile;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vc_crdt::{DocumentError, Loaded, NodeState, Replica, View};
use vc_protocol::change::{Batch, SignedChange, Subject};
use vc_protocol::control::Change;
use vc_protocol::gossip::{Gossip, SyncMessage};
use vc_protocol::node::Usage;
use vc_protocol::{ClusterId, Millis, NodeId};

use crate::anti_entropy::AntiEntropy;
use crate::failure_detector::FailureDetector;
use crate::heartbeat::HeartbeatTimer;
use crate::interface::{Config, Durable, Input, Output, Timing};
use crate::mutation::{Mutation, MutationError};
use crate::runtime_health::RuntimeHealth;
use crate::startup_hold::StartupHold;
use crate::workload::Workload;

/// The state machine of a node.
pub struct Engine {
    cluster: ClusterId,
    nonce: u64,
    timing: Timing,
    replica: Replica,
    /// This node's state, as its document is to say it.
    own: NodeState,
    view: Arc<View>,
    /// Whether the view, the workload or this node's document may be out of date.
    dirty: bool,
    /// Whether this node's document has its generation of this run.
    renewed: bool,
    usage: BTreeMap<NodeId, Usage>,
    heartbeat: HeartbeatTimer,
    detector: FailureDetector,
    anti_entropy: AntiEntropy,
    runtime: RuntimeHealth,
    hold: StartupHold,
    workload: Workload,
    /// What is to become durable before the outputs that follow.
    pending: Durable,
    outputs: Vec<Output>,
}

impl Engine {
    /// Creates an engine from what is durable. Errors: Automerge cannot create a document.
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
            // Accusations stay until the accused node refutes them, or its old claims would count again.
            unreachable: before.unreachable,
            observed: BTreeSet::new(),
            volumes: before.volumes,
            update_results: before.update_results,
            ports: BTreeMap::new(),
        };
        let mut detector = FailureDetector::new(timing, now);
        for (&node, state) in replica.nodes().iter().filter(|&(&node, _)| node != id) {
            detector.saw_incarnation(node, state.incarnation, now);
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
            usage: BTreeMap::new(),
            heartbeat: HeartbeatTimer::new(timing.heartbeat, now),
            detector,
            anti_entropy: AntiEntropy::new(timing, now),
            runtime: RuntimeHealth::new(timing.runtime_grace),
            hold: StartupHold::new((!alone).then_some(now + timing.first_contact)),
            workload: Workload::new(id, before.claims),
            pending: Durable::default(),
            outputs: Vec::new(),
        })
    }

    /// Returns the view of the documents, with the plan.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// Returns the usage of the nodes, from their last heartbeats.
    pub fn usage(&self) -> &BTreeMap<NodeId, Usage> {
        &self.usage
    }

    /// Returns whether this node was removed from the cluster and has stopped all its instances.
    pub fn has_left(&self) -> bool {
        let left = self.replica.cluster().left.contains_key(&self.replica.id());
        left && self.own.claims.is_empty() && !self.runtime.is_unknown()
    }

    /// Returns the documents.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Returns when to call [`Engine::handle`] with [`Input::Wake`], and the name of the timer.
    pub fn poll_timeout(&self) -> (Millis, &'static str) {
        let timers = [
            (self.heartbeat.poll_timeout(), "heartbeat"),
            (self.detector.poll_timeout(), "silence check"),
            (self.anti_entropy.poll_timeout(), "anti-entropy"),
            (self.hold.poll_timeout(), "startup hold"),
            (self.runtime.poll_timeout(), "runtime grace"),
            (self.workload.poll_timeout(), "workload"),
        ];
        let due = timers.into_iter().filter_map(|(at, name)| Some((at?, name))).min();
        due.unwrap_or((Millis::MAX, "none"))
    }

    /// Takes in an input at a time that never goes back. Returns what to do, in order.
    pub fn handle(&mut self, now: Millis, input: Input) -> Vec<Output> {
        match input {
            Input::Wake => self.handle_timeout(now),
            Input::Connected(peer) => {
                self.anti_entropy.connected(peer);
                self.heartbeat.connected(now);
                self.send_summary(peer, now);
            }
            Input::Disconnected(peer) => self.anti_entropy.disconnected(peer),
            Input::Gossip(from, Gossip::Heartbeat(heartbeat)) => {
                self.receive_heartbeat(from, &heartbeat, now)
            }
            Input::Gossip(from, Gossip::Changes(batch)) => {
                self.receive(batch, now);
                self.detector.saw_activity(from, now);
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
        self.converge(now);
        std::mem::take(&mut self.outputs)
    }

    fn handle_timeout(&mut self, now: Millis) {
        let (due, timer) = self.poll_timeout();
        let late = now.saturating_sub(due);
        if late > self.timing.suspect / 4 {
            tracing::debug!(late, timer, "this node is late, extending its timeouts");
            self.detector.was_late(late, now);
        }
        if self.heartbeat.handle_timeout(now) {
            self.send_heartbeat(now);
        }
        if self.detector.handle_timeout(now) {
            self.check_silence(now);
        }
        if let Some(peer) = self.anti_entropy.handle_timeout(now) {
            self.send_summary(peer, now);
        }
        self.dirty |= self.hold.handle_timeout(now);
        self.dirty |= self.runtime.handle_timeout(now);
        self.dirty |= self.workload.poll_timeout().is_some_and(|at| now >= at);
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

    fn persist(&mut self) {
        let durable = std::mem::take(&mut self.pending);
        if !durable.is_empty() {
            self.outputs.push(Output::Persist(durable));
        }
    }

    /// Returns the cluster's id.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }
}
