//! The instances of this node: compares what runs with what should run.
//!
//! A slot has one desired instance, and for a while one more: with *start first*, the old instance runs until its successor,
//! here or on another node, is available; with *stop first*, until its successor is prepared to be started.

mod instance;
mod missing_image;
#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod network_tests;
#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::claims_of_slot;
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::run::RunEnd;
use vc_protocol::{Lamport, Millis, NodeId, ServiceKey, Slot};

use crate::desired::Desired;
use crate::interface::Clock;
use crate::lease::{Gate, Gates};
use crate::runtime::{InstanceId, Observed, Phase, RuntimeAction};
use instance::{Fence, Local, Run, Step};

/// Returns why nothing of a service may be started or removed; `None` if it may.
type Hold<'a> = dyn Fn(&ServiceKey) -> Option<&'a str> + 'a;

/// What a reconciliation depends on beside the plan.
pub(crate) struct Pass<'a> {
    pub(crate) hold: &'a Hold<'a>,
    /// Why nothing is started; what is not wanted is removed all the same.
    pub(crate) fault: Option<&'a str>,
    /// Runs that have ended, whose containers are kept for their logs.
    pub(crate) kept: &'a BTreeSet<InstanceId>,
    /// Runs that an earlier deployment has begun, which go on until they end.
    pub(crate) former: &'a BTreeSet<InstanceId>,
    /// What may run by its lease.
    pub(crate) gates: &'a Gates,
    /// The timestamp of new claims.
    pub(crate) lamport: Lamport,
    pub(crate) clock: Clock,
}

/// All instances of this node.
#[derive(Debug)]
pub(crate) struct Workload {
    /// This node, for the log.
    node: NodeId,
    local: BTreeMap<InstanceId, Local>,
    /// Claims from before the start, for their restart counts and times.
    inherited: BTreeMap<InstanceId, Claim>,
}

impl Workload {
    pub(crate) fn new(node: NodeId, inherited: BTreeMap<InstanceId, Claim>) -> Self {
        Self { node, local: BTreeMap::new(), inherited }
    }

    fn entry(&mut self, id: &InstanceId, now: Millis) -> &mut Local {
        let inherited = &mut self.inherited;
        self.local.entry(id.clone()).or_insert_with(|| Local::new(inherited.remove(id), now))
    }

    /// Takes in a list of all instances of the runtime.
    pub(crate) fn listed(&mut self, all: Vec<Observed>, now: Millis) {
        let there: BTreeSet<&InstanceId> = all.iter().map(|seen| &seen.id).collect();
        // An instance that was requested a moment ago may be missing from the list.
        let gone: Vec<InstanceId> = self
            .local
            .iter()
            .filter(|(id, local)| !there.contains(id) && local.is_expected(now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.changed(Observed { id, phase: Phase::Gone, address: String::new() }, now);
        }
        for seen in all {
            self.changed(seen, now);
        }
    }

    /// Takes in what the runtime observed of one instance.
    pub(crate) fn changed(&mut self, seen: Observed, now: Millis) {
        let known = self.local.get(&seen.id);
        if seen.phase == Phase::Gone && known.is_none_or(Local::is_removing) {
            self.local.remove(&seen.id);
            return;
        }
        if known.is_some_and(|local| local.shows(&seen)) {
            return;
        }
        self.entry(&seen.id.clone(), now).observe(seen, now);
    }

    /// Forgets the requests to the runtime that had no visible effect, so that they are made again.
    pub(crate) fn retry_pending(&mut self) {
        self.local.values_mut().for_each(Local::retry_pending);
    }

    /// Forgets all instances: the runtime is unavailable beyond its grace.
    pub(crate) fn clear(&mut self) {
        self.local.clear();
        self.inherited.clear();
    }

    /// Returns when to reconcile again at the latest.
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        self.local.values().filter_map(Local::poll_timeout).min()
    }

    /// Returns the instances that have failed and have not recovered, with the reason, and whether it is a fault of the node.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&InstanceId, &str, bool)> {
        self.local
            .iter()
            .filter_map(|(id, local)| Some((id, local.failure()?, local.is_node_fault())))
    }

    /// Returns whether the runtime has, or was asked for, an instance.
    pub(crate) fn has(&self, id: &InstanceId) -> bool {
        self.local.get(id).is_some_and(Local::is_there)
    }

    /// Returns whether an instance is made and was never started.
    pub(crate) fn is_unstarted(&self, id: &InstanceId) -> bool {
        self.local.get(id).is_some_and(Local::is_unstarted)
    }

    /// Returns how an instance ended that belongs to a run of an earlier deployment; `None` while it runs.
    pub(crate) fn end_of_former(&self, id: &InstanceId, clock: Clock) -> Option<RunEnd> {
        self.local.get(id)?.end_of_former(clock.wall, clock.monotonic)
    }

    /// Returns the runs that are under way or have ended, and how.
    pub(crate) fn runs(
        &self,
        desired: &BTreeMap<Slot, Desired>,
        clock: Clock,
    ) -> Vec<(InstanceId, Option<RunEnd>)> {
        let runs = desired.iter().filter(|(_, wanted)| wanted.is_run);
        let begun = runs.filter_map(|(slot, wanted)| {
            let id = InstanceId { slot: slot.clone(), digest: wanted.digest.clone() };
            let local = self.local.get(&id)?;
            let end = local.end(wanted, clock.wall, clock.monotonic);
            (end.is_some() || local.is_serving()).then_some((id, end))
        });
        begun.collect()
    }

    /// Returns the instances that a fault of the node keeps from being started, with the fault.
    pub(crate) fn node_faults(&self) -> impl Iterator<Item = (&InstanceId, &str)> {
        self.local.iter().filter_map(|(id, local)| Some((id, local.node_fault()?)))
    }

    /// Returns the instances that have run since the start of this node.
    pub(crate) fn have_run(&self) -> impl Iterator<Item = &InstanceId> {
        self.local.iter().filter(|(_, local)| local.has_run()).map(|(id, _)| id)
    }

    /// Returns the actions that lead to `desired`, and the claims until then. `handover` are the slots whose instances keep
    /// running until another node fills them. Of a service for which `pass.hold` returns a reason, `desired` may be out of date:
    /// nothing new is started, and nothing that runs is removed.
    pub(crate) fn reconcile(
        &mut self,
        desired: &BTreeMap<Slot, Desired>,
        handover: &BTreeSet<Slot>,
        pass: &Pass<'_>,
    ) -> (Vec<RuntimeAction>, BTreeMap<InstanceId, Claim>) {
        let &Pass { hold, fault, gates, lamport, clock, .. } = pass;
        let now = clock.monotonic;
        let mut actions = Vec::new();
        let mut claims = BTreeMap::new();
        for (slot, wanted) in desired {
            let id = InstanceId { slot: slot.clone(), digest: wanted.digest.clone() };
            if let Some(local) = self.local.get_mut(&id) {
                local.update_availability(wanted, now);
            }
        }
        for (id, local) in &mut self.local {
            if let Some(Gate::Held(epoch)) = gates.of(&id.slot) {
                local.adopt_lease(*epoch);
            }
        }
        let stays = self.stays(desired, handover, hold);
        self.remove_unwanted(desired, &stays, pass, &mut actions, &mut claims);
        for (slot, wanted) in desired {
            let id = InstanceId { slot: slot.clone(), digest: wanted.digest.clone() };
            let owner = wanted.spec.network_owner(slot);
            let network = owner.as_ref().and_then(|owner| self.newest_run(owner));
            let no_network = owner.as_ref().filter(|_| network.is_none()).map(|owner| {
                format!(
                    "waits for {}.{} to run, whose network it has",
                    owner.service.service, owner.replica
                )
            });
            let hold = hold(&slot.service).or(fault).or(wanted.stop.as_deref());
            let (node, hold) = (self.node, hold.or(no_network.as_deref()));
            // With stop first, the old instance must be gone: it may use the volume.
            let is_here = !wanted.starts_first && claims_of_slot(&claims, slot).next().is_some();
            let gate = gates.of(slot);
            let replaces = is_here
                || !wanted.stops_elsewhere.is_empty()
                || matches!(gate, Some(Gate::Missing(_)));
            let is_held = hold.is_some() && is_here && !self.local.contains_key(&id);
            // It is being removed, and starts again when it is gone.
            if claims.contains_key(&id) || is_held {
                continue;
            }
            let local = self.entry(&id, now);
            if let Some(grace_ms) = local.replace(wanted, slot.replica, hold.is_some(), now) {
                actions.push(local.removal(&id, grace_ms));
            }
            if !gates.may_run(&id, local.epoch())
                && let Some(grace_ms) = local.fence(Fence::Lease, gates.grace(&id), now)
            {
                actions.push(local.removal(&id, grace_ms));
            }
            if owner.is_some()
                && local.lacks_network(network.as_ref())
                && let Some(grace_ms) = local.fence(Fence::Network, wanted.spec.stop_grace_ms, now)
            {
                actions.push(local.removal(&id, grace_ms));
            }
            let epoch = match gate {
                Some(Gate::Held(epoch)) => Some(*epoch),
                Some(Gate::Asked | Gate::AlmostReady | Gate::Missing(_)) | None => None,
            };
            let (spec, trace) = (|| Box::new(wanted.spec.clone()), wanted.trace);
            match local.step(wanted, replaces, hold.is_some(), epoch, now) {
                Some(Step::Prepare) => {
                    actions.push(RuntimeAction::Prepare {
                        id: id.clone(),
                        spec: spec(),
                        epoch,
                        trace,
                    });
                }
                Some(Step::Start) => {
                    local.join_network(network);
                    actions.push(RuntimeAction::Start {
                        id: id.clone(),
                        spec: spec(),
                        epoch,
                        trace,
                    });
                }
                None => {}
            }
            local.update_availability(wanted, now);
            let (state, reason) = local.describe(wanted, hold, now);
            local.show(node, &id, state, reason, clock);
            let mut claim = local.claim(lamport);
            // One that runs need not say it.
            claim.prepared = !state.is_running() && local.is_ready(wanted);
            claim.terminal = local.is_terminal(wanted);
            claims.insert(id, claim);
        }
        (actions, claims)
    }

    /// Returns the run of a slot's instance that was started last; `None` if none runs here.
    fn newest_run(&self, slot: &Slot) -> Option<Run> {
        let of_slot = self.local.iter().filter(|(id, _)| id.slot == *slot);
        of_slot.filter_map(|(id, local)| local.run(id)).max_by_key(|run| run.started)
    }

    /// Returns the old instances that keep running until their successors are available, or prepared with stop first: one for each slot, an available
    /// one if there is one.
    fn stays(
        &self,
        desired: &BTreeMap<Slot, Desired>,
        handover: &BTreeSet<Slot>,
        hold: &Hold<'_>,
    ) -> BTreeSet<InstanceId> {
        let mut best: BTreeMap<&Slot, &InstanceId> = BTreeMap::new();
        let is = |id: &InstanceId, of: fn(&Local) -> bool| self.local.get(id).is_some_and(of);
        let available = |id: &InstanceId| is(id, Local::is_available);
        for (id, _) in self.local.iter().filter(|(_, local)| local.is_serving()) {
            let keeps_running = match desired.get(&id.slot) {
                Some(wanted) if wanted.digest == id.digest || wanted.stop.is_some() => false,
                // A job succeeds nothing, also not the service that it was before.
                Some(wanted) if wanted.is_run => false,
                Some(wanted) => {
                    let successor =
                        InstanceId { slot: id.slot.clone(), digest: wanted.digest.clone() };
                    match wanted.starts_first {
                        true => !available(&successor),
                        false => !is(&successor, Local::is_prepared) || wanted.is_waiting(),
                    }
                }
                None => handover.contains(&id.slot),
            };
            if !keeps_running || hold(&id.slot.service).is_some() {
                continue;
            }
            let held = best.entry(&id.slot).or_insert(id);
            if available(id) && !available(held) {
                *held = id;
            }
        }
        best.into_values().cloned().collect()
    }

    fn remove_unwanted(
        &mut self,
        desired: &BTreeMap<Slot, Desired>,
        stays: &BTreeSet<InstanceId>,
        pass: &Pass<'_>,
        actions: &mut Vec<RuntimeAction>,
        claims: &mut BTreeMap<InstanceId, Claim>,
    ) {
        let &Pass { hold, kept, former, gates, lamport, clock, .. } = pass;
        let wanted = |id: &InstanceId, local: &Local| {
            let is_wanted = |it: &Desired| {
                it.digest == id.digest && (it.stop.is_none() || !local.may_be_running())
            };
            desired.get(&id.slot).is_some_and(is_wanted)
        };
        // Never requested and never observed: nothing to remove.
        self.local.retain(|id, local| wanted(id, local) || local.is_there());
        for (id, local) in &mut self.local {
            if wanted(id, local) && !local.is_removing() {
                continue;
            }
            let is_former = former.contains(id);
            let goes_on = is_former && gates.may_run(id, local.epoch()) && local.goes_on();
            if goes_on || (is_former || kept.contains(id)) && local.keep() {
                let (state, reason) = local.running().unwrap_or_else(|| local.shown_end());
                local.show(self.node, id, state, reason, clock);
                claims.insert(id.clone(), local.claim(lamport));
                continue;
            }
            let is_held = hold(&id.slot.service).is_some();
            let may_run = gates.may_run(id, local.epoch());
            if may_run && (is_held || stays.contains(id)) && !local.is_removing() {
                if is_held {
                    local.hold();
                } else {
                    local.stay();
                }
                if let Some((state, reason)) = local.running() {
                    local.show(self.node, id, state, reason, clock);
                    claims.insert(id.clone(), local.claim(lamport));
                }
                continue;
            }
            if let Some(grace_ms) = local.remove(clock.monotonic) {
                let grace_ms = if may_run { grace_ms } else { grace_ms.min(gates.grace(id)) };
                actions.push(local.removal(id, grace_ms));
            }
            local.show(self.node, id, InstanceState::Stopping, String::new(), clock);
            claims.insert(id.clone(), local.claim(lamport));
        }
    }
}
