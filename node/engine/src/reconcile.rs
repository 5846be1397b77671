//! Reconciles the instances of this node with the plan, and this node's state with the instances.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{NodeState, UpdateResult, UpdateStatus, View, VolumeRecord};
use vc_placement::may_run;
use vc_protocol::control::RolloutState;
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::node::{Orphans, RuntimeKind};
use vc_protocol::planted::{PlantedBug, is_planted};
use vc_protocol::spec::FailureAction;
use vc_protocol::{InstanceId, Millis, NodeId, ServiceKey, Slot, VolumeKey};

use crate::desired::desired;
use crate::interface::{Clock, Output};
use crate::isolation::Isolation;
use crate::lease::Gates;
use crate::node_faults::NodeFaults;
use crate::rollout::Rollout;
use crate::runs::{self, Begun};
use crate::runtime::{Observed, Phase, RuntimeEvent};
use crate::runtime_health::{Recovery, RuntimeHealth};
use crate::workload::{Pass, Workload};

/// What this node knows of its runtime: whether it answers, and the instances that it has.
pub(crate) struct Reconciler {
    node: NodeId,
    runtime: RuntimeHealth,
    workload: Workload,
    faults: NodeFaults,
    /// When the next fault of a service is over.
    fault_ends: Option<Millis>,
    /// What other nodes have in the runtime.
    orphans: BTreeMap<NodeId, Orphans>,
    /// Volumes that this process has recorded and no instance has used yet.
    unused: BTreeSet<VolumeKey>,
    begun: Begun,
    /// When runs may begin whose records are about to be durable.
    begins_at: Option<Millis>,
}

/// After this time a run begins whose record was written: by then it is durable, or this engine is gone.
const RECORDED: Millis = 20;

/// What a node's instances follow from.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) view: &'a View,
    pub(crate) isolation: Isolation,
    pub(crate) gates: &'a Gates,
    /// Why the view may be out of date, if it may.
    pub(crate) hold: Option<&'a str>,
    /// The runs that this node's document has, durably.
    pub(crate) written: &'a BTreeSet<InstanceId>,
}

impl Reconciler {
    /// A reconciler before the first event of the runtime; `inherited` are the claims from before the start.
    pub(crate) fn new(
        node: NodeId,
        inherited: BTreeMap<InstanceId, Claim>,
        runtime_grace: Millis,
    ) -> Self {
        let runtime = RuntimeHealth::new(runtime_grace);
        let workload = Workload::new(node, inherited);
        Self {
            node,
            runtime,
            workload,
            faults: NodeFaults::default(),
            fault_ends: None,
            orphans: BTreeMap::new(),
            unused: BTreeSet::new(),
            begun: Begun::default(),
            begins_at: None,
        }
    }

    /// Returns whether the runtime has not answered since the start: there is nothing to reconcile yet.
    pub(crate) fn is_unknown(&self) -> bool {
        self.runtime.is_unknown()
    }

    /// Returns the runtime's error that this node's document reports.
    pub(crate) fn runtime_error(&self) -> Option<&str> {
        self.runtime.error()
    }

    /// Takes in an event of the runtime. The first list of instances demotes claims in `own` that nothing runs for.
    pub(crate) fn handle(&mut self, event: RuntimeEvent, own: &mut NodeState, now: Millis) {
        match event {
            RuntimeEvent::Listed(all) => {
                match self.runtime.listed() {
                    Recovery::First if is_planted(PlantedBug::StaleClaims) => {}
                    Recovery::First => demote_stale_claims(&mut own.claims, &all),
                    Recovery::Returned => self.workload.retry_pending(),
                    Recovery::None => {}
                }
                self.workload.listed(all, now);
            }
            RuntimeEvent::Changed(seen) => self.workload.changed(seen, now),
            RuntimeEvent::Orphans(orphans) => self.orphans = orphans,
            RuntimeEvent::Unavailable(reason) => self.runtime.unavailable(reason, now),
            RuntimeEvent::Hung(reason) => self.runtime.hung(reason, now),
        }
    }

    /// Takes in why this node starts nothing, or that it starts again. Returns whether that is news.
    pub(crate) fn set_fault(&mut self, fault: Option<String>) -> bool {
        self.faults.set_node(fault)
    }

    /// Returns when to call [`Reconciler::handle_timeout`], and the name of the timer.
    pub(crate) fn poll_timeout(&self) -> Option<(Millis, &'static str)> {
        let grace = self.runtime.poll_timeout().map(|at| (at, "runtime grace"));
        let workload = self.workload.poll_timeout().map(|at| (at, "workload"));
        let fault = self.fault_ends.map(|at| (at, "end of a fault"));
        let begin = self.begins_at.map(|at| (at, "runs"));
        grace.into_iter().chain(workload).chain(fault).chain(begin).min()
    }

    /// Returns whether it is time to reconcile again.
    pub(crate) fn handle_timeout(&mut self, now: Millis) -> bool {
        let reported = self.runtime.handle_timeout(now);
        let is_due = |at: Option<Millis>| at.is_some_and(|at| now >= at);
        reported
            || is_due(self.workload.poll_timeout())
            || is_due(self.fault_ends)
            || is_due(self.begins_at)
    }

    /// Returns what the runtime is to do by the view, and updates what `own` says of this node's claims, volumes and
    /// updates. With a `hold` nothing new is started, and nothing that runs is removed; likewise for services that this version
    /// cannot read. What may not run without a lease is removed all the same.
    pub(crate) fn reconcile(
        &mut self,
        given: Given<'_>,
        own: &mut NodeState,
        clock: Clock,
    ) -> Vec<Output> {
        let Given { view, isolation, gates, hold, written } = given;
        if own.runtime_error.is_some() {
            self.workload.clear();
            own.claims.clear();
            return Vec::new();
        }
        self.update_faults(view, own, clock.monotonic);
        runs::forget(view, own, clock.wall);
        // Several nodes may share a host: what one that is up has there is no orphan.
        own.orphans = self.orphans.clone();
        own.orphans.retain(|node, _| !view.up.contains(node));
        let mut desired = desired(view, self.node, isolation, gates);
        let handover = handover(view, self.node, &own.claims);
        let hold = |service: &ServiceKey| {
            let reason = hold.or_else(|| view.held.reason(service));
            // Its document could not say that a run began, nor how it ended.
            let is_run = || {
                view.spec(service).is_some_and(|spec| spec.mode.is_job() || spec.schedule.is_some())
            };
            reason.or_else(|| (!view.has_runs && is_run()).then_some(NO_RUNS))
        };
        let own_fault = own.faults.node.clone();
        let fault = own_fault.as_deref();
        let may_start = |service: &ServiceKey| hold(service).is_none() && own_fault.is_none();
        let (begun, workload) = (&mut self.begun, &self.workload);
        let waits = begun.prepare(&mut desired, own, workload, may_start, written, clock.wall);
        self.begins_at = waits.then_some(clock.monotonic + RECORDED);
        let kept = &runs::kept(view, self.node, own);
        let former = &runs::former(view, self.node, own, &desired);
        let lamport = view.next_lamport();
        let pass = Pass { hold: &hold, fault, kept, former, gates, lamport, clock };
        let (actions, claims) = self.workload.reconcile(&desired, &handover, &pass);
        own.claims = claims;
        runs::record(view, own, &desired, &self.workload, clock);
        let removed = self.record_volumes(view, own, clock.wall);
        self.record_update_results(view, own);
        removed.into_iter().chain(actions.into_iter().map(Output::Runtime)).collect()
    }

    /// Updates what this node says that it cannot start.
    fn update_faults(&mut self, view: &View, own: &mut NodeState, now: Millis) {
        self.faults.retain(|service| view.desired_digest(service), now);
        for id in self.workload.have_run() {
            self.faults.runs(id);
        }
        for (id, reason) in self.workload.node_faults() {
            if view.desired_digest(&id.slot.service).as_ref() == Some(&id.digest) {
                self.faults.failed(id, reason, now);
            }
        }
        own.faults = self.faults.current(now);
        if let Some(hang) = self.runtime.hang() {
            own.faults.node = Some(hang.to_owned());
        }
        self.fault_ends = self.faults.poll_timeout(now);
    }

    /// Records the volumes that this node's instances mount. Returns what becomes of those that have a tombstone.
    /// A volume of a service that this node could not start is released, if nothing has written to it.
    fn record_volumes(&mut self, view: &View, own: &mut NodeState, now: Millis) -> Vec<Output> {
        let tombstones = &view.cluster.tombstones;
        let removed = own.volumes.extract_if(.., |key, record| {
            tombstones.get(key).is_some_and(|removed| record.lamport <= removed.lamport)
        });
        let removed = removed.map(|(volume, _)| match tombstones.get(&volume) {
            Some(tombstone) if tombstone.forgotten => {
                Output::ForgetVolume { volume, decided: tombstone.at }
            }
            tombstone => Output::RemoveVolume { volume, decided: tombstone.map(|it| it.at) },
        });
        let removed = removed.collect();
        for id in self.workload.have_run() {
            for key in view.volumes_of(&id.slot.service) {
                self.unused.remove(&key);
            }
        }
        let is_faulty = |service: &ServiceKey| own.faults.services.contains_key(service);
        for service in own.faults.services.keys() {
            for key in view.volumes_of(service).filter(|key| self.unused.contains(key)) {
                own.volumes.remove(&key);
            }
        }
        for (id, claim) in &own.claims {
            let service = &id.slot.service;
            let waits = is_faulty(service) && !claim.state.is_running();
            if waits || !view.plan.placements.contains_key(&id.slot) {
                continue;
            }
            for key in view.volumes_of(service) {
                if !view.input.volumes.contains_key(&key) && !own.volumes.contains_key(&key) {
                    let record = VolumeRecord {
                        lamport: view.next_lamport(),
                        since: now,
                        begun: 0,
                        copy: None,
                    };
                    own.volumes.insert(key.clone(), record.into());
                    self.unused.insert(key);
                }
            }
        }
        removed
    }

    /// Records how updates ended: an instance of this node failed, or all instances are available. A failure that another node has
    /// recorded is copied: it stays when that node leaves, so that the failed version is not tried again.
    fn record_update_results(&self, view: &View, own: &mut NodeState) {
        own.update_results.retain(|key, result| {
            let record = view.cluster.services.get(key);
            record.is_some_and(|it| it.is_result(result)) || view.held.reason(key).is_some()
        });
        for (key, status) in &view.updates {
            let UpdateStatus::Failed(reason) = status else { continue };
            let Some(record) = view.cluster.services.get(key) else { continue };
            let has_failed = |it: &UpdateResult| record.is_result(it) && it.failed.is_some();
            if record.spec.mode.is_job() || own.update_results.get(key).is_some_and(has_failed) {
                continue;
            }
            let (revision, digest) = (record.revision, record.spec.container_digest());
            let result = UpdateResult { revision, digest, failed: Some(reason.clone()) };
            own.update_results.insert(key.clone(), result);
        }
        let ours: BTreeSet<&ServiceKey> = own.claims.keys().map(|id| &id.slot.service).collect();
        for key in ours {
            let (Some(rollout), Some(record)) =
                (Rollout::of(view, key), view.cluster.services.get(key))
            else {
                continue;
            };
            if view.updates.contains_key(key) || record.spec.mode.is_job() {
                continue;
            }
            let continues = record.spec.update.failure_action == FailureAction::Continue;
            // A fault of the node fails the update only if no other node gets the slot for it.
            let fails = |id: &InstanceId, node_fault: bool| {
                let is_told = || view.nodes.get(&self.node)?.faults.services.get(key);
                let stays =
                    || view.plan.placements.get(&id.slot).is_some_and(|it| it.node == self.node);
                !node_fault || is_told().is_some() && stays()
            };
            let failed = self.workload.failures().find(|&(id, _, node_fault)| {
                !continues
                    && rollout.state == RolloutState::Updating
                    && id.slot.service == *key
                    && id.digest == rollout.goal()
                    && fails(id, node_fault)
            });
            let failed = failed.map(|(id, why, _)| {
                let fix = if is_port_shared(view, self.node, key, why) { STOP_FIRST } else { "" };
                format!("{} on {}: {why}{fix}", id.slot, view.name(self.node))
            });
            if let Some(reason) = &failed {
                tracing::warn!(service = %key, reason, "update failed");
            }
            if failed.is_some() || rollout.is_complete() {
                let digest = record.spec.container_digest();
                let result = UpdateResult { revision: record.revision, digest, failed };
                own.update_results.insert(key.clone(), result);
            }
        }
    }
}

/// Why a node starts no runs that has just joined, or met a member of an older version.
const NO_RUNS: &str = "the node waits for the documents of all members before it begins runs";

/// What helps where the instance before holds the port that its successor wants.
const STOP_FIRST: &str =
    "; the instance before it has the port: write 'order: stop-first' in its update_config";

/// Returns whether an instance probably failed because the one before it, which runs until its successor is available, has the
/// port: processes share the addresses of their host.
fn is_port_shared(view: &View, node: NodeId, service: &ServiceKey, why: &str) -> bool {
    let info = view.nodes.get(&node).and_then(|state| state.info.as_ref());
    let why = why.to_lowercase();
    let words = ["address already in use", "address in use", "eaddrinuse"];
    words.iter().any(|words| why.contains(words))
        && info.is_some_and(|info| info.runtime == RuntimeKind::Process)
        && view.cluster.services.get(service).is_some_and(|it| it.spec.starts_first())
}

/// Claims from before the start whose instances do not run become pending: a successor's instance takes precedence over
/// them.
fn demote_stale_claims(claims: &mut BTreeMap<InstanceId, Claim>, all: &[Observed]) {
    for (id, claim) in claims.iter_mut().filter(|(_, claim)| claim.state.is_running()) {
        let runs = |seen: &Observed| matches!(seen.phase, Phase::Running { .. }) && seen.id == *id;
        if !all.iter().any(runs) {
            claim.state = InstanceState::Pending;
        }
    }
}

/// Returns the slots whose instances keep running on `node` although the plan gives them to another one, because that one is not
/// ready to take over: with start first its instance is not available, with stop first it is not prepared. They include slots that no
/// other node can take, where this one is being drained or their data has to be copied first, but not those that are moved because the
/// node lacks room.
fn handover(view: &View, node: NodeId, claims: &BTreeMap<InstanceId, Claim>) -> BTreeSet<Slot> {
    // It may never hear of a successor.
    if view.cluster.left.contains_key(&node) {
        return BTreeSet::new();
    }
    let draining = view.cluster.drained.get(&node).copied().unwrap_or(false);
    let ordered_to_move =
        |slot: &Slot| view.input.moves.get(slot).is_some_and(|&(from, _)| from == node);
    let keeps_running = |slot: &Slot| match view.plan.placements.get(slot) {
        Some(placement) if placement.node == node => false,
        Some(placement) => {
            (ordered_to_move(slot) || !may_run(&view.input, &slot.service, node))
                && !takes_over(view, slot, placement.node)
        }
        None => {
            let waits = draining || moves_with_its_data(view, &slot.service, node);
            waits && view.plan.unplaced.contains_key(slot)
        }
    };
    claims.keys().map(|id| &id.slot).filter(|slot| keeps_running(slot)).cloned().collect()
}

/// Returns whether a service that may not run on `node` any more waits there until another node, which may, has a copy of its data.
fn moves_with_its_data(view: &View, service: &ServiceKey, node: NodeId) -> bool {
    let mut held = view.volumes_of(service).filter(|it| view.input.volumes.get(it) == Some(&node));
    held.any(|volume| {
        let mut copies = view.copies.get(&volume).into_iter().flatten();
        copies.any(|&other| other != node && may_run(&view.input, service, other))
    })
}

/// Returns whether an instance of a slot may be stopped, as the successor of its node is ready to take over.
fn takes_over(view: &View, slot: &Slot, successor: NodeId) -> bool {
    let Some(spec) = view.spec(&slot.service) else { return true };
    let mut claims = view.claims_on(slot).filter(|(node, ..)| *node == successor);
    if spec.starts_first() {
        return claims.any(|(.., claim)| claim.available);
    }
    let info = view.nodes.get(&successor).and_then(|state| state.info.as_ref());
    // An older version prepares nothing before this node has stopped the instance.
    !info.is_some_and(|info| info.supports.prepares)
        || claims.any(|(.., claim)| claim.prepared || claim.state.is_running())
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use vc_crdt::{ClusterState, KnownVersions, ServiceRecord};
    use vc_protocol::Keypair;
    use vc_protocol::node::NodeInfo;
    use vc_protocol::spec::{ServiceSpec, UpdateOrder};

    use super::*;

    #[test]
    fn a_slot_waits_for_a_node_that_prepares_it_and_that_can_say_so() {
        let id = |byte| {
            let key = Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes");
            NodeId::of(&key.public()).expect("ed25519")
        };
        let (here, there) = (id(1), id(2));
        let slot: Slot = "shop/db.1".parse().expect("a slot");
        let stays = |prepares: bool, prepared: Option<bool>, has_left: bool| {
            let mut spec = ServiceSpec::default();
            spec.update.order = Some(UpdateOrder::StopFirst);
            let instance = InstanceId { slot: slot.clone(), digest: spec.container.digest() };
            let record = ServiceRecord {
                spec: spec.into(),
                previous: None,
                revision: 1,
                updated: 1,
                deployed_by: "ada".to_owned(),
                trace: None,
            };
            let mut cluster = ClusterState::default();
            cluster.services.insert(slot.service.clone(), record.into());
            cluster.drained.insert(here, true);
            let state = |name: &str, claim: Option<Claim>| {
                let mut info = NodeInfo::for_tests(name);
                info.supports.prepares = prepares;
                let claims = claim.map(|claim| (instance.clone(), claim)).into_iter().collect();
                NodeState { incarnation: 1, info: Some(info), claims, ..NodeState::default() }
            };
            let claim = |state: InstanceState, prepared: bool| Claim {
                state,
                reason: String::new(),
                address: String::new(),
                restarts: 0,
                lamport: 1,
                started: 0,
                since: 1,
                available: false,
                prepared,
                restarted_unhealthy: false,
                epoch: None,
                terminal: false,
            };
            if has_left {
                cluster.left.insert(here, 1);
            }
            let ours = state("n1", Some(claim(InstanceState::Running, false)));
            let theirs = state("n2", prepared.map(|it| claim(InstanceState::Pending, it)));
            let claims = ours.claims.clone();
            let nodes = BTreeMap::from([(here, ours), (there, theirs)]);
            let view = View::from_states(cluster, nodes, &KnownVersions::default());
            handover(&view, here, &claims).contains(&slot)
        };
        assert!(stays(true, None, false) && stays(true, Some(false), false));
        assert!(!stays(true, Some(true), false));
        assert!(!stays(false, None, false) && !stays(false, Some(false), false));
        // Removed, it hears of no successor.
        assert!(!stays(true, None, true));
    }

    #[test]
    fn a_process_that_finds_its_port_taken_is_told_to_stop_first() {
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let node = NodeId::of(&key.public()).expect("ed25519");
        let web: ServiceKey = "shop/web".parse().expect("a service");
        let is_shared = |runtime: RuntimeKind, order: Option<UpdateOrder>, why: &str| {
            let mut spec = ServiceSpec::default();
            spec.update.order = order;
            let record = ServiceRecord {
                spec: spec.into(),
                previous: None,
                revision: 1,
                updated: 1,
                deployed_by: "ada".to_owned(),
                trace: None,
            };
            let services = BTreeMap::from([(web.clone(), record.into())]);
            let cluster = ClusterState { services, ..ClusterState::default() };
            let info = Some(NodeInfo { runtime, ..NodeInfo::for_tests("desk") });
            let state = NodeState { incarnation: 1, info, ..NodeState::default() };
            let nodes = BTreeMap::from([(node, state)]);
            let view = View::from_states(cluster, nodes, &KnownVersions::default());
            is_port_shared(&view, node, &web, why)
        };
        let why = "exited with code 1: OSError: [Errno 98] Address already in use";
        assert!(is_shared(RuntimeKind::Process, None, why));
        assert!(!is_shared(RuntimeKind::Process, Some(UpdateOrder::StopFirst), why));
        assert!(!is_shared(RuntimeKind::Docker, None, why), "containers have their own addresses");
        assert!(!is_shared(RuntimeKind::Process, None, "exited with code 1: no such file"));
    }
}
