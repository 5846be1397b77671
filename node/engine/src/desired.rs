//! What is to run in the slots of one node, by the plan and the updates under way.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use vc_crdt::{UpdateStatus, View};
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::spec::{ContainerSpec, Dependency, Overlap, Reconcile, ServiceSpec, UpdatePolicy};
use vc_protocol::{InstanceId, Millis, Name, NodeId, ServiceKey, Slot, TraceId};

use crate::isolation::Isolation;
use crate::lease::{Gate, Gates};
use crate::rollout::{Rollout, Version};

/// The desired instance of a slot of this node.
#[derive(Debug, Clone)]
pub(crate) struct Desired {
    pub(crate) spec: ContainerSpec,
    pub(crate) digest: String,
    /// The deployment that it is of, in the logs of all nodes.
    pub(crate) trace: Option<TraceId>,
    /// What its service depends on and it waits for before it starts; empty if nothing.
    pub(crate) waits_for: String,
    /// Which node it waits for, that is to stop an instance of the slot first: "waits for n1 to stop it"; empty if none.
    pub(crate) stops_elsewhere: String,
    /// Whether it is a run: it is not started again once it has ended.
    pub(crate) is_run: bool,
    /// Whether it is a run of a schedule that is begun once only.
    pub(crate) once: bool,
    /// Whether such a run may begin now: its node has said so, durably.
    pub(crate) may_begin: bool,
    /// Time after which it is stopped, in milliseconds; 0 for none.
    pub(crate) timeout_ms: Millis,
    /// Why this node does not have the lease that it needs; empty if it needs none or has it.
    pub(crate) lease: String,
    /// Why it is stopped here, although the plan gives the slot to this node; `None` if it is not.
    pub(crate) stop: Option<String>,
    /// Whether its claim says when it was started.
    pub(crate) reports_start: bool,
    /// Whether the old instance runs until this one is available.
    pub(crate) starts_first: bool,
    pub(crate) update: UpdatePolicy,
}

impl Desired {
    /// Returns whether it waits for something before it starts.
    pub(crate) fn is_waiting(&self) -> bool {
        [&self.waits_for, &self.stops_elsewhere, &self.lease].into_iter().any(|it| !it.is_empty())
    }

    /// Returns what it waits for before it starts; empty if nothing.
    pub(crate) fn waits(&self) -> String {
        let all = [self.waits_for.as_str(), self.stops_elsewhere.as_str(), self.lease.as_str()];
        all.into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

/// Returns what is to run in each slot that the plan gives to `node`.
pub(crate) fn desired(
    view: &View,
    node: NodeId,
    isolation: Isolation,
    gates: &Gates,
) -> BTreeMap<Slot, Desired> {
    let mut rollouts = BTreeMap::new();
    let mut desired = BTreeMap::new();
    for slot in view.plan.slots_of(node) {
        let rollout = match rollouts.entry(&slot.service) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => match Rollout::of(view, &slot.service) {
                Some(rollout) => entry.insert(rollout),
                None => continue,
            },
        };
        let Version { spec, digest } = rollout.version(slot.replica);
        let lease = match gates.of(slot) {
            Some(Gate::Asked) => "waits for the lease".to_owned(),
            Some(Gate::AlmostReady) => "prepares the data of its volumes".to_owned(),
            Some(Gate::Missing(reason)) => reason.clone(),
            Some(Gate::Held(_)) | None => String::new(),
        };
        let wanted = Desired {
            spec: spec.container.clone(),
            digest: digest.clone(),
            trace: view.cluster.services.get(&slot.service).and_then(|record| record.trace),
            waits_for: isolation.waits_for(spec).unwrap_or_else(|| waits_for(view, slot, spec)),
            stops_elsewhere: earlier_run(view, slot, spec)
                .unwrap_or_else(|| stops_elsewhere(view, node, slot, spec)),
            lease,
            is_run: spec.mode.is_job(),
            once: spec.runs_at_most_once(),
            may_begin: false,
            timeout_ms: spec.schedule.as_ref().map_or(0, |it| it.timeout_ms),
            stop: isolation.stops(spec),
            reports_start: spec.disconnect.reconcile == Reconcile::LongestRunning,
            starts_first: spec.starts_first(),
            update: spec.update.clone(),
        };
        desired.insert(slot.clone(), wanted);
    }
    desired
}

/// Returns the services that an instance waits for before it starts; empty if none. `depends_on` orders a deployment: once its
/// update has ended, an instance that is replaced or added waits for no other service.
fn waits_for(view: &View, slot: &Slot, spec: &ServiceSpec) -> String {
    let has_ended = view.updates.contains_key(&slot.service);
    let key =
        |name: &Name| ServiceKey { project: slot.service.project.clone(), service: name.clone() };
    let unmet = spec.depends_on.iter().filter(|(name, condition)| {
        if has_ended {
            return false;
        }
        let other = key(name);
        if **condition == Dependency::ServiceCompletedSuccessfully && view.mode(&other).is_job() {
            return view.updates.get(&other) != Some(&UpdateStatus::Complete);
        }
        let mut claims = claims_of(view, slot, name);
        !claims.any(|claim| match condition {
            Dependency::ServiceStarted => {
                claim.state.is_running() || claim.state == InstanceState::Completed
            }
            Dependency::ServiceHealthy => claim.state == InstanceState::Healthy,
            Dependency::ServiceCompletedSuccessfully => claim.state == InstanceState::Completed,
        })
    });
    let waits = unmet.map(|(name, condition)| match condition {
        Dependency::ServiceStarted => format!("waits for {name} to run"),
        Dependency::ServiceHealthy => {
            let spec = view.spec(&key(name));
            let lacks_check = spec.is_some_and(|spec| !spec.container.has_healthcheck());
            let hint = match lacks_check {
                true => " (it has no healthcheck in the file: its image must have one)",
                false => "",
            };
            format!("waits for {name} to be healthy{hint}")
        }
        Dependency::ServiceCompletedSuccessfully => format!("waits for {name} to complete"),
    });
    waits.collect::<Vec<_>>().join(", ")
}

/// Says that a run waits for that of another time to stop, with which it must not overlap; `None` if there is none.
fn earlier_run(view: &View, slot: &Slot, spec: &ServiceSpec) -> Option<String> {
    spec.schedule.as_ref().filter(|schedule| schedule.overlap != Overlap::Allow)?;
    let up = view.nodes.iter().filter(|(node, _)| view.up.contains(node));
    let mut claims = up.flat_map(|(_, state)| &state.claims);
    let is_other = |id: &InstanceId| id.slot.service == slot.service && id.slot != *slot;
    let is_there =
        |claim: &Claim| claim.state.is_running() || claim.state == InstanceState::Stopping;
    let is_other = claims.any(|(id, claim)| is_other(id) && is_there(claim));
    is_other.then(|| "waits for the run before it to stop".to_owned())
}

/// Returns which other node is to stop an instance of the slot before `node` starts one; empty if none, as with start first.
fn stops_elsewhere(view: &View, node: NodeId, slot: &Slot, spec: &ServiceSpec) -> String {
    let is_there =
        |claim: &Claim| claim.state.is_running() || claim.state == InstanceState::Stopping;
    let other = match spec.starts_first() {
        true => None,
        false => view.claims_on(slot).find(|(other, _, claim)| *other != node && is_there(claim)),
    };
    other.map_or_else(String::new, |(other, ..)| {
        format!("waits for {} to stop it", view.name(other))
    })
}

/// Returns the claims of up nodes on a service of the same project.
fn claims_of<'a>(
    view: &'a View,
    slot: &'a Slot,
    name: &'a Name,
) -> impl Iterator<Item = &'a Claim> {
    let up = &view.up;
    view.nodes.iter().filter(|(node, _)| up.contains(node)).flat_map(move |(_, state)| {
        let of = |other: &InstanceId| {
            let service = &other.slot.service;
            service.project == slot.service.project && service.service == *name
        };
        state.claims.iter().filter(move |(other, _)| of(other)).map(|(_, claim)| claim)
    })
}
