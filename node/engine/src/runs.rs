//! What this node says of the runs of jobs.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{NodeState, View};
use vc_protocol::run::{RunEnd, RunRecord};
use vc_protocol::{InstanceId, Millis, NodeId, ServiceKey};

/// How many runs of a service a node remembers, beside those that count now.
const KEPT: usize = 10;

/// Notes which runs are under way and which have ended.
pub(crate) fn record(
    own: &mut NodeState,
    runs: Vec<(InstanceId, Option<RunEnd>)>,
    now: Millis,
) {
    for (id, end) in runs {
        let record = own.runs.entry(id).or_insert(RunRecord { started: now, end: None });
        // How it ended first is what counts.
        if record.end.is_none() {
            record.end = end;
        }
    }
}

/// Forgets the runs of services that do not exist any more, and old ones.
pub(crate) fn forget(view: &View, own: &mut NodeState) {
    let counts = |id: &InstanceId| {
        view.desired_digest(&id.slot.service).as_ref() == Some(&id.digest)
    };
    let mut old: BTreeMap<ServiceKey, Vec<(Millis, InstanceId)>> = BTreeMap::new();
    for (id, record) in own.runs.iter().filter(|(id, _)| !counts(id)) {
        old.entry(id.slot.service.clone()).or_default().push((record.started, id.clone()));
    }
    for (service, mut runs) in old {
        runs.sort_unstable_by(|a, b| b.cmp(a));
        let is_held = view.held.reason(&service).is_some();
        let kept = match view.cluster.services.contains_key(&service) || is_held {
            true => KEPT,
            false => 0,
        };
        for (_, id) in runs.into_iter().skip(kept) {
            own.runs.remove(&id);
        }
    }
}

/// Returns the runs that have ended here whose containers are kept: those of the deployments in effect.
pub(crate) fn kept(view: &View, node: NodeId, own: &NodeState) -> BTreeSet<InstanceId> {
    if !view.nodes.contains_key(&node) {
        return BTreeSet::new();
    }
    let ended = own.runs.iter().filter(|(_, record)| record.end.is_some());
    let counts = |id: &&InstanceId| {
        view.desired_digest(&id.slot.service).as_ref() == Some(&id.digest)
    };
    ended.map(|(id, _)| id).filter(counts).cloned().collect()
}
