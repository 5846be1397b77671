//! What this node says of the runs of jobs.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{NodeState, View};
use vc_protocol::run::{RunEnd, RunRecord, Skipped};
use vc_protocol::spec::{Overlap, Schedule};
use vc_protocol::{InstanceId, Millis, NodeId, ServiceKey, Slot};

use crate::desired::Desired;
use crate::interface::Clock;
use crate::schedule::allowed;
use crate::workload::Workload;

/// How many runs of a service a node remembers, beside those that count now.
const KEPT: usize = 10;

/// The runs of schedules that this process has begun. Those of an earlier one are never started: they may have run.
#[derive(Debug, Default)]
pub(crate) struct Begun(BTreeSet<InstanceId>);

impl Begun {
    /// Says which runs may begin, and notes those that are about to in `own`: they may as soon as that is durable, which those are that
    /// are in `written`. Takes from `desired` what an earlier deployment has begun. Returns whether any waits for its record only.
    pub(crate) fn prepare(
        &mut self,
        desired: &mut BTreeMap<Slot, Desired>,
        own: &mut NodeState,
        workload: &Workload,
        may_start: impl Fn(&ServiceKey) -> bool,
        written: &BTreeSet<InstanceId>,
        now: Millis,
    ) -> bool {
        let runs = &mut own.runs;
        let former: BTreeSet<Slot> = runs
            .iter()
            .filter(|(id, record)| {
                record.end.is_none()
                    && desired.get(&id.slot).is_some_and(|it| it.digest != id.digest)
            })
            .map(|(id, _)| id.slot.clone())
            .collect();
        desired.retain(|slot, wanted| !(wanted.once && former.contains(slot)));
        self.0.retain(|id| runs.contains_key(id));
        let mut waits = false;
        for (slot, wanted) in desired.iter_mut().filter(|(_, wanted)| wanted.once) {
            let id = InstanceId { slot: slot.clone(), digest: wanted.digest.clone() };
            match runs.get(&id) {
                Some(_) if workload.is_unstarted(&id) => drop(self.0.insert(id.clone())),
                Some(_) => {}
                None if wanted.is_waiting() || !may_start(&slot.service) => continue,
                None => {
                    runs.insert(id.clone(), RunRecord { started: now, end: None });
                    self.0.insert(id.clone());
                }
            }
            let has_begun = self.0.contains(&id);
            wanted.may_begin = has_begun && written.contains(&id);
            waits |= has_begun && !wanted.may_begin;
        }
        waits
    }

    fn contains(&self, id: &InstanceId) -> bool {
        self.0.contains(id)
    }
}

/// Notes which runs are under way and which have ended.
pub(crate) fn record(
    view: &View,
    own: &mut NodeState,
    desired: &BTreeMap<Slot, Desired>,
    workload: &Workload,
    begun: &Begun,
    clock: Clock,
) {
    let now = clock.wall;
    for (id, end) in workload.runs(desired, clock) {
        let record = own.runs.entry(id).or_insert(RunRecord { started: now, end: None });
        // How it ended first is what counts.
        if record.end.is_none() {
            record.end = end;
        }
    }
    let mut gone = Vec::new();
    for (id, record) in own.runs.iter_mut().filter(|(_, record)| record.end.is_none()) {
        let Some(schedule) = schedule(view, &id.slot.service) else { continue };
        let wanted = desired.get(&id.slot).filter(|wanted| wanted.digest == id.digest);
        match wanted {
            // It was begun by a process that has ended, and left nothing.
            Some(_) if schedule.at_most_once && !begun.contains(id) && !workload.has(id) => {
                record.end =
                    Some(lost("its node restarted, and it is not known whether it ran", now));
            }
            // It could not start when its turn had come, as without its lease, and is late by now.
            Some(_)
                if schedule.at_most_once
                    && !workload.has(id)
                    && now.saturating_sub(record.started) > allowed(schedule) =>
            {
                record.end = Some(lost("it could not start in time", now));
            }
            Some(_) => {}
            None if !schedule.at_most_once && !workload.has(id) => gone.push(id.clone()),
            None if !schedule.at_most_once => {}
            None => match workload.end_of_former(id, clock) {
                Some(end) => record.end = Some(end),
                None if workload.has(id) => {}
                None if is_stopped(view, &id.slot) => {
                    record.end = Some(lost("stopped by a person", now));
                }
                None if schedule.overlap == Overlap::Replace => {
                    record.end = Some(lost("stopped for the run of a later time", now));
                }
                None => record.end = Some(lost("stopped before it ended", now)),
            },
        }
    }
    // Another node runs them.
    own.runs.retain(|id, _| !gone.contains(id));
}

fn is_stopped(view: &View, slot: &Slot) -> bool {
    view.runs.due_at(slot).is_some_and(|due| due.skipped == Some(Skipped::Stopped))
}

fn lost(why: &str, at: Millis) -> RunEnd {
    RunEnd { at, code: None, reason: why.to_owned(), restarts: 0 }
}

fn schedule<'a>(view: &'a View, service: &ServiceKey) -> Option<&'a Schedule> {
    view.cluster.services.get(service)?.spec.schedule.as_ref()
}

/// Returns whether a run is one of the deployment in effect.
fn is_present(view: &View, id: &InstanceId) -> bool {
    view.desired_digest(&id.slot.service).as_ref() == Some(&id.digest)
}

/// Forgets the runs of services that do not exist any more, and old ones.
pub(crate) fn forget(view: &View, own: &mut NodeState) {
    let mut old: BTreeMap<ServiceKey, Vec<(Millis, InstanceId)>> = BTreeMap::new();
    for (id, record) in &own.runs {
        let service = &id.slot.service;
        let counts = match schedule(view, service) {
            Some(_) => record.end.is_none(),
            None => is_present(view, id),
        };
        if !counts {
            old.entry(service.clone()).or_default().push((record.started, id.clone()));
        }
    }
    for (service, mut runs) in old {
        runs.sort_unstable_by(|a, b| b.cmp(a));
        let exists = view.cluster.services.contains_key(&service);
        let kept = match schedule(view, &service) {
            Some(schedule) => schedule.keep as usize,
            None if exists || view.held.reason(&service).is_some() => KEPT,
            None => 0,
        };
        for (_, id) in runs.into_iter().skip(kept) {
            own.runs.remove(&id);
        }
    }
}

/// Returns the runs that have ended here whose containers are kept: those of the deployments in effect, and of schedules.
pub(crate) fn kept(view: &View, node: NodeId, own: &NodeState) -> BTreeSet<InstanceId> {
    let counts =
        |id: &InstanceId| schedule(view, &id.slot.service).is_some() || is_present(view, id);
    let ended = own.runs.iter().filter(|(id, record)| record.end.is_some() && counts(id));
    ended.map(|(id, _)| id).filter(|_| view.nodes.contains_key(&node)).cloned().collect()
}

/// Returns the runs of schedules here that an earlier deployment has begun, and that have not ended.
pub(crate) fn former(
    view: &View,
    node: NodeId,
    own: &NodeState,
    desired: &BTreeMap<Slot, Desired>,
) -> BTreeSet<InstanceId> {
    let goes_on = |id: &InstanceId| {
        let is_open = view.input.services.get(&id.slot.service);
        let is_open = is_open.is_some_and(|it| it.due.contains_key(&id.slot.replica));
        let once = schedule(view, &id.slot.service).is_some_and(|it| it.at_most_once);
        once && is_open && !desired.contains_key(&id.slot)
    };
    let begun = own.runs.iter().filter(|(id, record)| record.end.is_none() && goes_on(id));
    begun.map(|(id, _)| id).filter(|_| view.nodes.contains_key(&node)).cloned().collect()
}
