//! What people do with the runs of a schedule.

use std::collections::BTreeMap;

use vc_crdt::View;
use vc_protocol::change::Subject;
use vc_protocol::control::Change;
use vc_protocol::run::{DueRecord, Skipped};
use vc_protocol::spec::Overlap;
use vc_protocol::{Millis, Slot};

use super::{Mutation, MutationError, find};

/// What a node is to say of times of a schedule, and what that changes.
pub(crate) type DueByHand = (BTreeMap<Slot, DueRecord>, Vec<Change>);

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
            let last = view.runs.due(&service).next_back().map_or(0, |(slot, _)| slot.replica);
            let now = u32::try_from(now / 1000).unwrap_or(u32::MAX);
            let slot = slot(now.max(last.saturating_add(1)));
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
