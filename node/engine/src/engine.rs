//! The engine: composes the state machines of a node, merges their timeouts, and applies the commands of users.

mod alerts;
mod documents;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vc_crdt::{DocumentError, Held, Loaded, NodeState, Replica, View, VolumeRecord};
use vc_protocol::change::{Batch, SignedChange};
use vc_protocol::gossip::{Gossip, Heartbeat, SyncMessage};
use vc_protocol::node::{Faults, Holds, NodeInfo, NodeProblem};
use vc_protocol::planted::{PlantedBug, is_planted};
use vc_protocol::volume::VolumeCopy;
use vc_protocol::{ClusterId, InstanceId, Millis, NodeId, Stored, VolumeKey};

use crate::accusation::{accuse_silent_nodes, refute_accusations};
use crate::alerts::Alerts;
use crate::anti_entropy::{AntiEntropy, Comparison};
use crate::audit::AuditTrail;
use crate::failure_detector::FailureDetector;
use crate::heartbeat::HeartbeatTimer;
use crate::identity::{DocumentOwner, Finding};
use crate::interface::{Clock, Config, Durable, Input, MIN_CLOCK_OFFSET, Output, Timing, Vitals};
use crate::isolation::Isolation;
use crate::lease::{Effects, Guard};
use crate::reconcile::{Given, Reconciler};
use crate::schedule::{Schedules, cluster_time};
use crate::silence::SilenceReports;
use crate::startup_hold::StartupHold;
use crate::volumes::{Volumes, set_volume_room};

/// What the document of a witness says of its runtime, so that members of every version place nothing on it.
pub const WITNESS: &str = "it is a witness, which runs nothing";

/// The state machine of a node.
pub struct Engine {
    cluster: ClusterId,
    nonce: u64,
    timing: Timing,
    history: u64,
    replica: Replica,
    /// This node's state, as its document is to say it.
    own: NodeState,
    view: Arc<View>,
    /// Whether the view, the instances or this node's document may be out of date.
    dirty: bool,
    /// Whether this node's document has its generation of this run.
    renewed: bool,
    owner: DocumentOwner,
    /// When this process started, by the monotonic clock.
    started: Millis,
    /// When it handled an input last, by the monotonic clock.
    last_input: Millis,
    vitals: BTreeMap<NodeId, Vitals>,
    heartbeat: HeartbeatTimer,
    detector: FailureDetector,
    silences: SilenceReports,
    isolation: Isolation,
    anti_entropy: AntiEntropy,
    hold: StartupHold,
    reconciler: Reconciler,
    guard: Guard,
    volumes: Volumes,
    /// The copies of volumes that the shell has reported since the start.
    reported: BTreeSet<VolumeKey>,
    schedules: Schedules,
    alerts: Alerts,
    /// Problems of this process, which no document has.
    own_problems: Vec<NodeProblem>,
    /// Whether the disk had invalid data at the start: there may be later changes of this node's actor than could be read.
    is_damaged: bool,
    /// A server has said that this node was removed from the cluster.
    removed: bool,
    /// The wall clock at the last input.
    wall: Millis,
    /// What is to become durable before the outputs that follow.
    pending: Durable,
    /// Changes of this node that are to be sent to the others, once they are durable.
    unsent: Vec<SignedChange>,
    outputs: Vec<Output>,
    audit: Option<AuditTrail>,
}

impl Engine {
    /// Creates an engine from what is durable. Errors: Automerge cannot create a document.
    pub fn new(config: Config, durable: Durable, now: Millis) -> Result<Self, DocumentError> {
        let Config { key, id, cluster, info, nonce, timing, history, knows, audit, deadlines } =
            config;
        let Loaded { replica, accepted, rejected, unreadable } =
            Replica::load(key, id, cluster, knows, durable.certificates, durable.changes)?;
        for error in &rejected {
            tracing::error!(%error, "ignored invalid data on the disk");
        }
        for entry in &unreadable {
            tracing::warn!(document = ?entry.document, map = entry.map, key = entry.key, error = %entry.error, "ignored an unreadable entry");
        }
        let before = replica.nodes().get(&id).cloned().unwrap_or_default();
        let own = NodeState {
            incarnation: before.incarnation.saturating_add(1),
            uptime: 0,
            info: Some(NodeInfo { supports: knows.supports(), ..info }),
            runtime_error: None,
            holds: Holds::default(),
            faults: Faults::default(),
            orphans: BTreeMap::new(),
            claims: before.claims.clone(),
            // Accusations stay until the accused node refutes them, or its old claims would count again.
            unreachable: if is_planted(PlantedBug::ForgetAccusations) {
                BTreeMap::new()
            } else {
                before.unreachable
            },
            silent: before.silent,
            observed: BTreeSet::new(),
            volumes: before.volumes,
            update_results: if is_planted(PlantedBug::ForgetResults) {
                BTreeMap::new()
            } else {
                before.update_results
            },
            runs: before.runs,
            due: before.due,
            ports: BTreeMap::new(),
            restarting: None,
            unsent_alerts: BTreeMap::new(),
        };
        let mut detector = FailureDetector::new(timing, now);
        for (&node, state) in replica.nodes().iter().filter(|&(&node, _)| node != id) {
            let number = (state.incarnation, replica.generation_of(node));
            detector.saw_document(node, number, state.restarting, now);
        }
        let owner = DocumentOwner::new(replica.own_generation());
        let view = Arc::new(View::of(&replica));
        let audit = audit.then(|| {
            let mut trail = AuditTrail::default();
            trail.load(&accepted, &view);
            trail
        });
        let alone = replica.members().count() <= 1 || is_planted(PlantedBug::NoStartupHold);
        let guard = Guard::new(id, durable.votes, &own, &view, deadlines, now);
        Ok(Self {
            cluster,
            nonce,
            timing,
            history,
            replica,
            own,
            view,
            dirty: true,
            renewed: false,
            owner,
            started: now,
            last_input: now,
            vitals: BTreeMap::new(),
            heartbeat: HeartbeatTimer::new(now),
            detector,
            silences: SilenceReports::default(),
            isolation: Isolation::default(),
            anti_entropy: AntiEntropy::new(timing, now),
            hold: StartupHold::new((!alone).then_some(now + timing.first_contact)),
            reconciler: Reconciler::new(id, before.claims, timing.runtime_grace),
            guard,
            volumes: Volumes::default(),
            reported: BTreeSet::new(),
            schedules: Schedules::default(),
            alerts: Alerts::default(),
            own_problems: Vec::new(),
            is_damaged: !rejected.is_empty(),
            removed: false,
            wall: 0,
            pending: Durable::default(),
            unsent: Vec::new(),
            outputs: Vec::new(),
            audit,
        })
    }

    /// Returns the view of the documents, with the plan.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// Returns what the nodes said in their last heartbeats.
    pub fn vitals(&self) -> &BTreeMap<NodeId, Vitals> {
        &self.vitals
    }

    /// Returns whether this node was removed from the cluster and has stopped all its instances.
    pub fn has_left(&self) -> bool {
        self.is_removed() && self.own.claims.is_empty() && !self.reconciler.is_unknown()
    }

    /// Returns whether this node was removed from the cluster, as the cluster document or a server says.
    fn is_removed(&self) -> bool {
        self.removed || self.replica.cluster().left.contains_key(&self.replica.id())
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
            (self.guard.poll_timeout(), "leases"),
            (self.schedules.poll_timeout(), "schedules"),
            (self.alerts.poll_timeout(), "alerts"),
        ];
        let due = timers.into_iter().filter_map(|(at, name)| Some((at?, name)));
        let due = due.chain(self.reconciler.poll_timeout()).min();
        due.unwrap_or((Millis::MAX, "none"))
    }

    /// Takes in an input. Returns what to do, in order.
    pub fn handle(&mut self, clock: impl Into<Clock>, input: Input) -> Vec<Output> {
        let Clock { monotonic: now, wall } = clock.into();
        self.note_step(now, wall);
        self.wall = wall;
        self.check_lateness(now);
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
                self.receive(Some(from), batch, now);
                self.detector.saw_activity(from, now);
            }
            Input::Sync(from, SyncMessage::Summary(theirs)) => {
                let (id, ours) = (self.replica.id(), self.replica.versions());
                let compared = self.anti_entropy.answer_summary(id, from, &theirs, ours, now);
                self.compared(compared);
            }
            Input::Sync(from, SyncMessage::Changes(batch)) => self.receive(Some(from), batch, now),
            Input::Lease(from, message) => {
                let effects = self.guard.leases.handle(from, message, now);
                self.perform(effects);
            }
            Input::Runtime(event) => {
                self.reconciler.handle(event, &mut self.own, now);
                self.dirty = true;
            }
            Input::Usage(usage) => {
                self.dirty |= set_volume_room(&mut self.own, usage);
                let vitals = Vitals { usage, in_sync: true, ..Vitals::default() };
                self.vitals.insert(self.replica.id(), vitals);
            }
            Input::Info(info) => {
                let supports = self.replica.knows().supports();
                let volume_room = self.own.info.as_ref().map_or(0, |before| before.volume_room);
                self.own.info = Some(NodeInfo { supports, volume_room, ..info });
                self.dirty = true;
            }
            Input::Ports(problems) => {
                self.own.ports = problems;
                self.dirty = true;
            }
            Input::Fault(fault) => self.dirty |= self.reconciler.set_fault(fault),
            Input::Volume(volume, copy) => self.record_copy(volume, copy),
            Input::Delivered(receiver, result) => self.delivered(&receiver, result, now),
            Input::OwnProblems(problems) => self.own_problems = problems,
            Input::Adopted(volumes) => {
                for volume in volumes {
                    let record = VolumeRecord {
                        lamport: self.view.next_lamport(),
                        since: self.wall,
                        begun: 0,
                        copy: None,
                    };
                    self.own.volumes.entry(volume).or_insert_with(|| record.into());
                }
                self.dirty = true;
            }
            Input::Restart => {
                self.own.restarting = Some(self.timing.restart);
                self.dirty = true;
            }
            Input::Removed(by) => {
                let is_present = !self.replica.cluster().left.contains_key(&by);
                self.removed |= is_present && self.replica.servers().any(|server| server == by);
                self.dirty = true;
            }
            Input::Certificate(certificate) => {
                let certificates = vec![certificate];
                self.receive(None, Batch { certificates, changes: Vec::new() }, now);
            }
            Input::Mutate { request, by, mutation } => self.mutate(request, by, &mutation, now),
        }
        self.converge(now);
        std::mem::take(&mut self.outputs)
    }

    /// Notes what this node's copy of a volume is now.
    fn record_copy(&mut self, volume: VolumeKey, copy: VolumeCopy) {
        let (lamport, since) = (self.view.next_lamport(), self.wall);
        let unknown = || VolumeRecord { lamport, since, begun: 0, copy: None }.into();
        let record = self.own.volumes.entry(volume.clone()).or_insert_with(unknown);
        let before = record.copy.as_ref().and_then(|before| before.written);
        if copy.written.is_some() && copy.written != before {
            record.begun = record.begun.max(lamport);
        }
        record.copy = Some(copy);
        self.reported.insert(volume);
        self.dirty = true;
    }

    /// Takes in the volumes that an earlier process of this node has recorded. What this one has read of its copies takes precedence.
    fn extend_volumes(&mut self, recorded: BTreeMap<VolumeKey, Stored<VolumeRecord>>) {
        let records = self.own.volumes.iter().filter(|(volume, _)| self.reported.contains(*volume));
        let copies = records.filter_map(|(volume, it)| Some((volume.clone(), it.copy.clone()?)));
        let copies: Vec<_> = copies.collect();
        self.own.volumes.extend(recorded);
        copies.into_iter().for_each(|(volume, copy)| self.record_copy(volume, copy));
    }

    /// Corrects what is known of the clocks of the others where that of this node was set. Their heartbeats tell it anew, but one after
    /// the other: until most have, this node's own clock would be the time that schedules go by.
    fn note_step(&mut self, now: Millis, wall: Millis) {
        let expected = self.wall.saturating_add(now.saturating_sub(self.last_input));
        let signed = |millis: Millis| i64::try_from(millis).unwrap_or(i64::MAX);
        let step = signed(wall).saturating_sub(signed(expected));
        // The first input sets the clock.
        if self.wall == 0 || step.saturating_abs() < MIN_CLOCK_OFFSET {
            return;
        }
        let own = self.replica.id();
        let others = self.vitals.iter_mut().filter(|(node, _)| **node != own);
        others.for_each(|(_, vitals)| vitals.own_clock_was_set(step));
    }

    /// Notes that this process did not run for a while: a timer was due, since it was set at the latest, and nothing was handled.
    fn check_lateness(&mut self, now: Millis) {
        let (due, timer) = self.poll_timeout();
        let late = now.saturating_sub(due.max(self.last_input));
        self.last_input = now;
        if late > self.timing.suspect / 4 {
            tracing::debug!(late, timer, "this node is late, extending its timeouts");
            self.detector.was_late(late, now);
            self.silences.was_late(late, now);
            self.alerts.was_late(now);
        }
    }

    fn handle_timeout(&mut self, now: Millis) {
        let interval = self.timing.heartbeat_interval(self.view.nodes.len());
        if self.heartbeat.handle_timeout(now, interval) {
            self.send_heartbeat();
        }
        if self.detector.handle_timeout(now) {
            self.check_silence(now);
        }
        if let Some(peer) = self.anti_entropy.handle_timeout(now) {
            self.send_summary(peer, now);
        }
        let effects = self.guard.handle_timeout(now);
        self.perform(effects);
        self.dirty |= self.hold.handle_timeout(now);
        self.dirty |= self.schedules.handle_timeout(now);
        self.dirty |= self.reconciler.handle_timeout(now);
        if self.alerts.handle_timeout(now) {
            self.send_alerts(now);
        }
    }

    /// Sends a heartbeat, once this node's document is that of this run: others would count the node as up, and its claims
    /// from before the start with it.
    fn send_heartbeat(&mut self) {
        if !self.renewed && !is_planted(PlantedBug::EarlyHeartbeat) {
            return;
        }
        let id = self.replica.id();
        let heartbeat = Heartbeat {
            node: id,
            incarnation: self.own.incarnation,
            seq: self.heartbeat.next_seq(),
            fingerprint: self.anti_entropy.fingerprint(self.replica.versions()),
            settled: self.replica.settled(),
            usage: self.vitals.get(&id).copied().unwrap_or_default().usage,
            at: self.wall,
        };
        self.outputs.push(Output::Gossip(Gossip::Heartbeat(heartbeat)));
    }

    fn receive_heartbeat(&mut self, from: NodeId, heartbeat: &Heartbeat, now: Millis) {
        let Heartbeat { node, incarnation, seq, fingerprint, settled, usage, at } = *heartbeat;
        if from != node || !self.detector.heartbeat(from, incarnation, seq, now) {
            return;
        }
        let Vitals { down_since, silent_ms, .. } =
            self.vitals.get(&from).copied().unwrap_or_default();
        self.dirty |= self.own.observed.insert(from);
        self.anti_entropy.saw_settled(from, settled);
        let ours = self.replica.versions();
        let compared = self.anti_entropy.compare_fingerprint(from, fingerprint, ours, now);
        let in_sync = compared.is_current;
        let vitals = Vitals { down_since, silent_ms, in_sync, ..Vitals::new(usage, at, self.wall) };
        self.vitals.insert(from, vitals);
        self.compared(compared);
    }

    fn compared(&mut self, comparison: Comparison) {
        self.dirty |= comparison.is_current && self.hold.release();
        self.outputs.extend(comparison.outputs);
    }

    fn send_summary(&mut self, peer: NodeId, now: Millis) {
        let summary = self.anti_entropy.send_summary(peer, self.replica.versions(), now);
        self.outputs.push(summary);
    }

    /// Checks and applies changes and certificates of a peer.
    fn receive(&mut self, from: Option<NodeId>, batch: Batch, now: Millis) {
        let received = self.replica.receive(batch);
        for rejected in &received.rejected {
            tracing::warn!(error = %rejected, "rejected a change from a peer");
            self.outputs.push(Output::Rejected(from, rejected.to_string()));
        }
        for entry in &received.unreadable {
            tracing::warn!(document = ?entry.document, map = entry.map, key = entry.key, error = %entry.error, "ignored an unreadable entry");
        }
        self.dirty |= !received.accepted.is_empty() || !received.certificates.is_empty();
        self.audit(&received.accepted);
        self.pending.changes.extend(received.accepted);
        self.pending.certificates.extend(received.certificates);
        self.pending.replaced.extend(received.replaced);
        self.check_owner(now);
        let id = self.replica.id();
        for (&node, state) in self.replica.nodes().iter().filter(|&(&node, _)| node != id) {
            let number = (state.incarnation, self.replica.generation_of(node));
            self.detector.saw_document(node, number, state.restarting, now);
            // A refuted accusation stays in this node's document: taken back, it could reach a node before the refutation
            // does, and the accused node's old claims would count there again.
            if self.own.unreachable.get(&node).is_some_and(|&of| of < state.incarnation) {
                self.detector.refuted(node, now);
            }
        }
    }

    /// Looks whether another process has written this node's document, and goes on after what it says, or ends.
    fn check_owner(&mut self, now: Millis) {
        let id = self.replica.id();
        let Some(found) = self.replica.nodes().get(&id) else { return };
        let (generation, ours) = (self.replica.own_generation(), now - self.started);
        let finding = self.owner.check(generation, found.uptime, ours);
        let finding = match finding {
            Some(finding) => finding,
            // More of the document that was loaded: this process has written none yet.
            None if !self.renewed && found.incarnation >= self.own.incarnation => Finding::Succeed,
            None => return,
        };
        let (name, addresses) = found.info.as_ref().map_or_else(Default::default, |info| {
            let addresses: Vec<String> = info.addresses.iter().map(ToString::to_string).collect();
            (info.name.to_string(), addresses.join(", "))
        });
        match finding {
            Finding::Succeed => {
                tracing::warn!(
                    name,
                    addresses,
                    "another process has written this node's document: the data directory was set back or copied"
                );
                self.own.incarnation =
                    self.own.incarnation.max(found.incarnation.saturating_add(1));
                let volumes = found.volumes.clone();
                for (&node, &incarnation) in &found.unreachable {
                    let held = self.own.unreachable.entry(node).or_default();
                    *held = incarnation.max(*held);
                }
                self.extend_volumes(volumes);
                self.renewed = false;
                self.dirty = true;
            }
            Finding::Duplicate => self.outputs.push(Output::Stop(format!(
                "another vc-node runs with the identity of this one: {name} at {addresses}"
            ))),
        }
    }

    /// Disconnects silent nodes, and accuses those that this node observes. Looks whether this node is isolated itself.
    fn check_silence(&mut self, now: Millis) {
        if self.reconciler.is_unknown() {
            return;
        }
        let id = self.replica.id();
        let (detector, own) = (&mut self.detector, &mut self.own);
        let (outputs, accuses) = accuse_silent_nodes(id, &self.view, detector, own, now);
        self.outputs.extend(outputs);
        self.dirty |= accuses;
        self.dirty |= self.silences.update(&self.view, &self.detector, &mut self.own, now);
        let isolation = Isolation::of(id, &self.view, &self.detector, now);
        self.dirty |= std::mem::replace(&mut self.isolation, isolation) != isolation;
    }

    /// Updates everything that follows from the documents: the incarnation, the view, the instances, and this node's
    /// document.
    fn converge(&mut self, now: Millis) {
        self.choose_first_voters();
        self.dirty |= self.guard.has_changed(&self.view, &self.own, now);
        let mut view_changed = false;
        let written = self.replica.nodes().get(&self.replica.id());
        let written: BTreeSet<InstanceId> =
            written.into_iter().flat_map(|state| state.runs.keys().cloned()).collect();
        // This node's document is part of the view: the second round sees what the first wrote, a third changes nothing.
        for _ in 0..4 {
            if !std::mem::take(&mut self.dirty) {
                break;
            }
            let is_witness = self.own.info.as_ref().is_some_and(|info| info.witness);
            let witness = is_witness.then_some(WITNESS);
            self.own.runtime_error =
                witness.or_else(|| self.reconciler.runtime_error()).map(str::to_owned);
            refute_accusations(self.replica.id(), self.replica.nodes(), &mut self.own);
            view_changed = true;
            self.update_view();
            let effects = self.guard.update(&self.view, &self.own, now);
            self.perform(effects);
            if self.reconciler.is_unknown() {
                break;
            }
            let hold = self.hold.reason();
            let clock = Clock { monotonic: now, wall: self.wall };
            let gates = &self.guard.gates(&self.view, &self.own, now);
            if hold.is_none() {
                let id = self.replica.id();
                let wall = cluster_time(&self.view, id, &self.vitals, self.wall);
                let clock = Clock { monotonic: now, wall };
                self.schedules.update(&self.view, id, &mut self.own, clock);
            }
            let (view, written) = (&*self.view, &written);
            let given = Given { view, isolation: self.isolation, gates, hold, written };
            let actions = self.reconciler.reconcile(given, &mut self.own, clock);
            self.report_deadlines(now);
            self.outputs.extend(actions);
            self.update_volumes(now);
            match self.write_own_document(now) {
                Ok(Some(change)) => {
                    self.unsent.push(change);
                    self.dirty = true;
                }
                // The log says when a document becomes held.
                Ok(None) | Err(DocumentError::Held) => {}
                Err(error) => tracing::error!(%error, "cannot write this node's document"),
            }
        }
        self.report_deadlines(now);
        self.start_cluster_generation();
        let unsent = std::mem::take(&mut self.unsent);
        self.pending.changes.extend(unsent.iter().cloned());
        self.persist();
        self.publish(unsent, now);
        if view_changed {
            self.outputs.push(Output::ViewChanged);
        }
    }

    fn update_volumes(&mut self, now: Millis) {
        let node = self.replica.id();
        let effects = self.volumes.update(&self.view, &mut self.own, node, &self.guard, now);
        self.outputs.extend(
            effects
                .removed
                .into_iter()
                .map(|volume| Output::RemoveVolume { volume, decided: None }),
        );
        self.outputs.extend(effects.tasks.map(Output::Volumes));
    }

    fn report_deadlines(&mut self, now: Millis) {
        if self.reconciler.is_unknown() {
            return;
        }
        let deadlines = self.guard.deadlines(&self.own, now);
        self.outputs.extend(deadlines.map(Output::Deadlines));
    }

    /// Does what the leases need. Votes are durable before they are sent.
    fn perform(&mut self, effects: Effects) {
        let Effects { votes, messages, decided } = effects;
        if !votes.is_empty() && !is_planted(PlantedBug::UnwrittenVotes) {
            self.outputs.push(Output::Persist(Durable { votes, ..Durable::default() }));
        }
        self.outputs.extend(messages.into_iter().map(|(to, message)| Output::Lease(to, message)));
        if let Some(set) = decided {
            self.write_voters(set);
        }
    }

    /// Computes the view, and logs which nodes went up or down.
    fn update_view(&mut self) {
        let held = self.replica.held();
        self.own.holds = held.holds();
        let epoch = self.replica.signing_key().epoch;
        if let Some(info) = &mut self.own.info {
            info.epoch = if self.replica.own_certificate().is_some() { epoch } else { 0 };
        }
        let mut nodes = self.replica.nodes().clone();
        if self.may_write_own_document() {
            // What is about to be written counts already, above all the incarnation: the last one may be accused, and this
            // node would count itself as down and stop everything.
            nodes.insert(self.replica.id(), self.own.clone());
        }
        let mut cluster = self.replica.cluster().clone();
        if self.removed {
            cluster.left.entry(self.replica.id()).or_insert(self.wall);
        }
        let view = View {
            held,
            servers: self.replica.servers().collect(),
            trust: self.replica.trust(),
            ..View::from_states(cluster, nodes, self.replica.knows())
        };
        if view.held != self.view.held {
            let Held { documents, services, .. } = &view.held;
            tracing::info!(?documents, ?services, "what this vc-node cannot read has changed");
        }
        let moved = |from: &View, to: &View| -> Vec<NodeId> {
            from.up.difference(&to.up).copied().collect()
        };
        for node in moved(&view, &self.view) {
            tracing::info!(node = %node, name = view.name(node), "node is up");
        }
        for node in moved(&self.view, &view) {
            tracing::warn!(node = %node, name = view.name(node), "node is down");
        }
        log_deployments(&self.view, &view);
        for &node in view.nodes.keys() {
            let vitals = self.vitals.entry(node).or_default();
            match view.up.contains(&node) {
                true => (vitals.down_since, vitals.silent_ms) = (0, 0),
                false if vitals.down_since == 0 => {
                    vitals.down_since = self.wall;
                    vitals.silent_ms = self.detector.heard(node, self.last_input).unwrap_or(0);
                    vitals.in_sync = false;
                }
                false => {}
            }
        }
        self.detector.retain(|node| view.nodes.contains_key(node));
        if let Err(error) = self.replica.upgrade() {
            tracing::error!(%error, "cannot add the maps of a newer schema");
        }
        let (has_history, has_voters) = (self.replica.has_history(), self.replica.has_voters());
        let (has_runs, has_receivers) = (self.replica.has_runs(), self.replica.has_receivers());
        self.view = Arc::new(View { has_history, has_voters, has_runs, has_receivers, ..view });
        self.follow_receivers(self.last_input);
    }

    fn publish(&mut self, changes: Vec<SignedChange>, now: Millis) {
        if changes.is_empty() {
            return;
        }
        let batch = self.replica.batch(changes);
        self.outputs.extend(self.anti_entropy.publish(batch, self.replica.versions(), now));
    }

    fn persist(&mut self) {
        let durable = std::mem::take(&mut self.pending);
        if !durable.is_empty() {
            self.outputs.push(Output::Persist(durable));
        }
        let rows = self.audit.as_mut().map(AuditTrail::take).unwrap_or_default();
        if !rows.is_empty() {
            self.outputs.push(Output::Audit(rows));
        }
    }

    /// Returns the cluster's id.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }
}

/// Logs the deployments that this node has learnt of, with the id that they were given.
fn log_deployments(before: &View, after: &View) {
    for (service, record) in &after.cluster.services {
        let held = before.cluster.services.get(service);
        if held.is_none_or(|held| held.revision != record.revision)
            && let Some(trace) = record.trace
        {
            let (revision, by) = (record.revision, record.deployed_by.as_str());
            let span = tracing::info_span!("deployment", %trace, %service);
            span.in_scope(|| tracing::info!(%trace, %service, revision, by, "deployment"));
        }
    }
}
