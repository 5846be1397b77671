//! What people do with the runs of a schedule.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::View;
use vc_protocol::change::Subject;
use vc_protocol::control::Change;
use vc_protocol::run::{DueRecord, Skipped};
use vc_protocol::spec::Overlap;
use vc_protocol::{Millis, ServiceKey, Slot};

use super::{Mutation, MutationError, find};
use crate::schedule::is_ahead;

/// What a node is to say of times of a schedule, and what that changes.
pub(crate) type DueByHand = (BTreeMap<Slot, DueRecord>, Vec<Change>);

/// Returns the time of a run that begins now: one that no other has. Those of a clock that was wrong do not count.
fn next_run(view: &View, service: &ServiceKey, now: Millis) -> u32 {
    let due = view.runs.due(service).map(|(slot, _)| slot.replica);
    let runs = view.runs.of_service(service).map(|(slot, _)| slot.replica);
    let known: BTreeSet<u32> = due.chain(runs).collect();
    let last = known.iter().rev().find(|&&time| !is_ahead(time, now));
    let seconds = u32::try_from(now / 1000).unwrap_or(u32::MAX);
    let mut time = last.map_or(0, |last| last.saturating_add(1)).max(seconds);
    while known.contains(&time) && time < u32::MAX {
        time += 1;
    }
    time
}

/// Returns the times of a schedule that a person begins or stops, with what this node is to say of them. `None`: the mutation is about
/// something else, or about a job without a schedule. `now` is the time that the cluster goes by.
pub(crate) fn due_by_hand(
    view: &View,
    mutation: &Mutation,
    by: &Subject,
    now: Millis,
) -> Option<Result<DueByHand, MutationError>> {
    let (Mutation::RunJob { service } | Mutation::StopRun { service, .. }) = mutation else {
        return None;
    };
    let service = match find(view, service) {
        Ok(service) => service,
        Err(error) => return Some(Err(error)),
    };
    let schedule = view.spec(&service)?.schedule.as_ref()?;
    let open = view.input.services.get(&service).map(|it| it.due.clone()).unwrap_or_default();
    let slot = |replica| Slot { service: service.clone(), replica };
    let record = |skipped| DueRecord { at: now, missed: 0, skipped, by: by.name.clone() };
    Some(match mutation {
        Mutation::RunJob { .. } if view.cluster.replicas(&service) == 0 => {
            Err(MutationError::Suspended { service })
        }
        Mutation::RunJob { .. } if schedule.overlap == Overlap::Forbid && !open.is_empty() => {
            Err(MutationError::RunUnderWay { service })
        }
        Mutation::RunJob { .. } => {
            let slot = slot(next_run(view, &service, now));
            let changes = vec![Change::RunBegun { slot: slot.clone() }];
            Ok((BTreeMap::from([(slot, record(None))]), changes))
        }
        Mutation::StopRun { run, .. } => {
            let runs: Vec<u32> =
                open.into_keys().filter(|it| run.is_none_or(|run| run == *it)).collect();
            let stopped = runs.iter().map(|&it| (slot(it), record(Some(Skipped::Stopped))));
            let changes = runs.iter().map(|&it| Change::RunStopped { slot: slot(it) });
            match runs.is_empty() {
                true => Err(MutationError::NoRun { service }),
                false => Ok((stopped.collect(), changes.collect())),
            }
        }
        _ => return None,
    })
}
