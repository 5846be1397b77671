//! What this node says of the runs of jobs.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{NodeState, View};
use vc_protocol::run::{RunEnd, RunRecord, Skipped};
use vc_protocol::spec::{Overlap, Schedule};
use vc_protocol::{InstanceId, Millis, NodeId, ServiceKey, Slot};

use crate::desired::Desired;
use crate::interface::Clock;
use crate::schedule::{allowed, is_ahead};
use crate::workload::Workload;

/// How many runs of a service a node remembers, beside those that count now.
const KEPT: usize = 10;

/// The runs of schedules, which have not ended, that this process knows more of than their records say. A run that was begun and is in
/// neither set is never started: it may have run.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    /// Those that may start, also again by their restart policy: this process has begun them, or found their containers.
    may: BTreeSet<InstanceId>,
    /// Those that were requested of the runtime or ran there: they are lost once their containers are gone.
    had: BTreeSet<InstanceId>,
}

impl Begun {
    /// Says which runs may begin, and notes those that are about to in `own`: they may as soon as that is durable, which those are that
    /// are in `written`. Takes from `desired` what an earlier deployment has begun, and what is lost, which it ends. Returns whether any
    /// waits for its record only.
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
        let goes_on = |id: &InstanceId| runs.get(id).is_some_and(|it| it.end.is_none());
        self.may.retain(goes_on);
        self.had.retain(goes_on);
        let there = runs.keys().filter(|id| workload.has(id) && !workload.is_unstarted(id));
        self.had.extend(there.filter(|id| goes_on(id)).cloned());
        let mut waits = false;
        let mut gone: BTreeSet<Slot> = BTreeSet::new();
        for (slot, wanted) in desired.iter_mut().filter(|(_, wanted)| wanted.once) {
            let id = InstanceId { slot: slot.clone(), digest: wanted.digest.clone() };
            match runs.get_mut(&id) {
                Some(record) if record.end.is_some() => continue,
                Some(_) if workload.has(&id) => drop(self.may.insert(id.clone())),
                Some(_) if self.may.contains(&id) && !self.had.contains(&id) => {}
                Some(record) => {
                    let why = match self.had.contains(&id) {
                        true => "its container was removed before it ended",
                        false => "its node restarted, and it is not known whether it ran",
                    };
                    record.end = Some(lost(why, now));
                    gone.insert(slot.clone());
                    continue;
                }
                None if wanted.is_waiting() || !may_start(&slot.service) => continue,
                None => {
                    runs.insert(id.clone(), RunRecord { started: now, end: None });
                    self.may.insert(id.clone());
                }
            }
            wanted.may_begin = written.contains(&id);
            waits |= !wanted.may_begin;
        }
        desired.retain(|slot, _| !gone.contains(slot));
        waits
    }
}

/// Notes which runs are under way and which have ended.
pub(crate) fn record(
    view: &View,
    own: &mut NodeState,
    desired: &BTreeMap<Slot, Desired>,
    workload: &Workload,
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
                None if view.cluster.replicas(&id.slot.service) == 0 => {
                    record.end = Some(lost("stopped as its service was scaled to 0", now));
                }
                None if schedule.overlap == Overlap::Replace && is_replaced(view, &id.slot) => {
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

/// Returns whether a later time of the schedule has come at which a run was to begin.
fn is_replaced(view: &View, slot: &Slot) -> bool {
    let mut due = view.runs.due(&slot.service).rev();
    due.any(|(later, due)| later > slot && due.skipped.is_none())
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

/// Forgets the runs of services that do not exist any more, and old ones. `now`: this node's wall clock. Of a schedule those whose time
/// any document has stay, as the time would begin again without them; those of a clock that was wrong, more than a day ahead, are kept
/// beside the others.
pub(crate) fn forget(view: &View, own: &mut NodeState, now: Millis) {
    let mut old: BTreeMap<(ServiceKey, bool), Vec<(Millis, InstanceId)>> = BTreeMap::new();
    for (id, record) in &own.runs {
        let service = &id.slot.service;
        let (counts, order, ahead) = match schedule(view, service) {
            Some(_) => {
                let time = id.slot.replica;
                (record.end.is_none(), Millis::from(time), is_ahead(time, now))
            }
            None => (is_present(view, id), record.started, false),
        };
        if !counts {
            old.entry((service.clone(), ahead)).or_default().push((order, id.clone()));
        }
    }
    for ((service, _), mut runs) in old {
        runs.sort_unstable_by(|a, b| b.cmp(a));
        let exists = view.cluster.services.contains_key(&service);
        let kept = match schedule(view, &service) {
            Some(schedule) => schedule.keep as usize,
            None if exists || view.held.reason(&service).is_some() => KEPT,
            None => 0,
        };
        let old = runs.into_iter().skip(kept).map(|(_, id)| id);
        for id in old.filter(|id| view.runs.due_at(&id.slot).is_none()) {
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
