//! The rows of jobs and their runs.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use vc_crdt::{Runs, View};
use vc_protocol::control::{JobRow, RunRow, RunState};
use vc_protocol::run::Skipped;
use vc_protocol::spec::Overlap;
use vc_protocol::{Millis, NodeId, ServiceKey, Slot};

/// Returns a row for every job, at `now` by the wall clock.
pub fn jobs(view: &View, now: Millis) -> Vec<JobRow> {
    let jobs = view.cluster.services.iter().filter(|(_, record)| record.spec.mode.is_job());
    jobs.map(|(key, record)| {
        let schedule = record.spec.schedule.as_ref();
        let suspended = schedule.is_some() && view.cluster.replicas(key) == 0;
        let after = view.runs.due(key).next_back().map_or(0, |(slot, _)| slot.replica);
        let after = after.max(u32::try_from(now / 1000).unwrap_or(u32::MAX));
        let table = schedule.filter(|_| !suspended).and_then(|it| it.timetable().ok());
        let next =
            table.and_then(|table| table.next(after)).map_or(0, |it| Millis::from(it) * 1000);
        let runs = runs(view, key);
        let under_way = runs.iter().filter(|row| row.state == RunState::Running).count();
        let is_over = |row: &&RunRow| !matches!(row.state, RunState::Pending | RunState::Running);
        JobRow {
            service: key.clone(),
            project: key.project.clone(),
            mode: record.spec.mode,
            schedule: schedule.map_or_else(String::new, |it| it.expression.clone()),
            time_zone: schedule.map_or_else(String::new, |it| match it.time_zone.as_str() {
                "" => "UTC".to_owned(),
                zone => zone.to_owned(),
            }),
            overlap: schedule.map_or_else(String::new, |it| it.overlap.as_str().to_owned()),
            at_most_once: record.spec.runs_at_most_once(),
            suspended,
            next,
            running: u32::try_from(under_way).unwrap_or(u32::MAX),
            last: runs.iter().find(is_over).cloned(),
        }
    })
    .collect()
}

/// Returns the runs of a job that are remembered, the newest first.
pub fn runs(view: &View, service: &ServiceKey) -> Vec<RunRow> {
    let begun = view.runs.of_service(service).map(|(slot, _)| slot);
    let planned = view.plan.slots_of_service(service);
    let due = view.runs.due(service).map(|(slot, _)| slot);
    let slots: BTreeSet<&Slot> = begun.chain(planned).chain(due).collect();
    let mut rows: Vec<RunRow> = slots.into_iter().map(|slot| row(view, slot)).collect();
    // Those of a schedule are numbered by their times; others begin in any order.
    let is_scheduled = view.spec(service).is_some_and(|spec| spec.schedule.is_some());
    rows.sort_by_key(|row| Reverse((if is_scheduled { 0 } else { row.started }, row.run)));
    rows
}

/// Returns why a time of a schedule was skipped, as its service has it now.
pub(crate) fn overlap_reason(view: &View, service: &ServiceKey) -> String {
    let schedule = view.spec(service).and_then(|spec| spec.schedule.as_ref());
    match schedule.map(|schedule| schedule.overlap) {
        Some(Overlap::Allow) => {
            format!("{} runs were under way, the most at a time", Runs::MAX_AT_ONCE)
        }
        Some(Overlap::Forbid) => "an earlier run was under way (overlap: forbid)".to_owned(),
        Some(Overlap::Replace) | None => "an earlier run was under way".to_owned(),
    }
}

fn row(view: &View, slot: &Slot) -> RunRow {
    let (run, due) = (view.runs.get(slot), view.runs.due_at(slot));
    let end = run.and_then(|run| run.record.end.as_ref());
    let is_up = |node: &NodeId| view.up.contains(node);
    let planned = view.plan.placements.get(slot).map(|placement| placement.node);
    let node = run.map(|run| run.node).or(planned);
    let (state, reason) = match (run, end, due.and_then(|due| due.skipped)) {
        (_, Some(end), _) if end.is_success() => (RunState::Succeeded, String::new()),
        (_, Some(end), _) => (RunState::Failed, end.reason.clone()),
        (Some(run), None, _) if !is_up(&run.node) => {
            (RunState::Unknown, format!("{} is down", view.name(run.node)))
        }
        (Some(_), None, _) => (RunState::Running, String::new()),
        (None, None, Some(Skipped::Missed)) => {
            (RunState::Missed, "its time had passed when a node could begin it".to_owned())
        }
        (None, None, Some(Skipped::Overlap)) => {
            (RunState::Skipped, overlap_reason(view, &slot.service))
        }
        (None, None, Some(Skipped::Stopped)) => (RunState::Stopped, String::new()),
        (None, None, None) => {
            let mut claims = view.claims_on(slot);
            let reason = claims.next().map(|(.., claim)| claim.reason.clone());
            (RunState::Pending, reason.unwrap_or_default())
        }
    };
    RunRow {
        service: slot.service.clone(),
        run: slot.replica,
        state,
        reason,
        node,
        node_name: node.map(|node| view.name(node)),
        started: run.map_or(0, |run| run.record.started),
        ended: end.map_or(0, |end| end.at),
        exit_code: end.and_then(|end| end.code),
        restarts: end.map_or(0, |end| end.restarts),
        missed: due.map_or(0, |due| due.missed),
        by: due.map_or_else(String::new, |due| due.by.clone()),
    }
}
