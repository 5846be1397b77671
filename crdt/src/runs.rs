//! The runs of jobs, as the documents of all nodes say.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::run::{DueRecord, RunEnd, RunRecord, Skipped};
use vc_protocol::spec::{Overlap, Schedule};
use vc_protocol::{InstanceId, NodeId, ServiceKey, Slot};

use crate::state::{ClusterState, NodeState};

/// The run of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The node that ran it.
    pub node: NodeId,
    /// What it ran.
    pub id: InstanceId,
    /// What it says.
    pub record: RunRecord,
}

/// The most runs of a schedule that are under way at once, with `overlap: allow`.
const MAX_AT_ONCE: usize = 10;

/// The runs of the deployments in effect, and those of schedules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runs {
    runs: BTreeMap<Slot, Run>,
    /// The times of schedules that have come.
    due: BTreeMap<Slot, DueRecord>,
}

impl Runs {
    /// Reads the documents, those of former members included. Of several runs of a slot, as on the two sides of a partition, one that
    /// succeeded counts first, then one that has ended, then the one that began first.
    pub(crate) fn of(cluster: &ClusterState, nodes: &BTreeMap<NodeId, NodeState>) -> Self {
        let jobs = cluster.services.iter().filter(|(_, record)| record.spec.mode.is_job());
        // A run of a schedule is that of its time, whatever is deployed meanwhile.
        let digests: BTreeMap<&ServiceKey, Option<String>> = jobs
            .map(|(key, record)| {
                let is_scheduled = record.spec.schedule.is_some();
                (key, (!is_scheduled).then(|| record.spec.container_digest()))
            })
            .collect();
        let mut due: BTreeMap<Slot, DueRecord> = BTreeMap::new();
        for (slot, record) in nodes.values().flat_map(|state| &state.due) {
            if !matches!(digests.get(&slot.service), Some(None)) {
                continue;
            }
            let held = due.entry(slot.clone()).or_insert_with(|| record.clone());
            // What one node skips no node begins; what has begun counts whatever is said here.
            held.skipped = held.skipped.max(record.skipped);
            held.missed = held.missed.max(record.missed);
            held.at = held.at.min(record.at);
            if held.by.is_empty() {
                held.by.clone_from(&record.by);
            }
        }
        let mut runs: BTreeMap<Slot, Run> = BTreeMap::new();
        for (&node, state) in nodes {
            for (id, record) in &state.runs {
                let service = &id.slot.service;
                match digests.get(service) {
                    Some(None) => {}
                    Some(Some(digest)) if *digest == id.digest => {}
                    _ => continue,
                }
                let run = Run { node, id: id.clone(), record: record.clone() };
                match runs.get(&id.slot) {
                    Some(held) if rank(held) <= rank(&run) => {}
                    _ => drop(runs.insert(id.slot.clone(), run)),
                }
            }
        }
        Self { runs, due }
    }

    /// Returns the run of a slot in the deployment in effect.
    pub fn get(&self, slot: &Slot) -> Option<&Run> {
        self.runs.get(slot)
    }

    /// Returns the runs of a service.
    pub fn of_service<'a>(
        &'a self,
        service: &ServiceKey,
    ) -> impl Iterator<Item = (&'a Slot, &'a Run)> {
        let slot = |replica| Slot { service: service.clone(), replica };
        self.runs.range(slot(0)..=slot(u32::MAX))
    }

    /// Returns how the run of a slot ended; `None` if it has not.
    pub fn end(&self, slot: &Slot) -> Option<&RunEnd> {
        self.get(slot)?.record.end.as_ref()
    }

    /// Leaves out the runs of other services.
    pub(crate) fn retain(&mut self, of: impl Fn(&ServiceKey) -> bool) {
        self.runs.retain(|slot, _| of(&slot.service));
        self.due.retain(|slot, _| of(&slot.service));
    }

    /// Returns what is known of a time of a schedule; `None` before it has come.
    pub fn due_at(&self, slot: &Slot) -> Option<&DueRecord> {
        self.due.get(slot)
    }

    /// Returns the times of a schedule that have come, ascending.
    pub fn due<'a>(
        &'a self,
        service: &ServiceKey,
    ) -> impl DoubleEndedIterator<Item = (&'a Slot, &'a DueRecord)> {
        let slot = |replica| Slot { service: service.clone(), replica };
        self.due.range(slot(0)..=slot(u32::MAX))
    }

    /// Returns the times of a schedule at which a run is to begin or under way, each with the node that has begun it, if it may not begin
    /// elsewhere.
    pub(crate) fn open(
        &self,
        service: &ServiceKey,
        schedule: &Schedule,
        up: &BTreeSet<NodeId>,
    ) -> BTreeMap<u32, Option<NodeId>> {
        let open = self.due(service).filter_map(|(slot, due)| match self.get(slot) {
            Some(run) if run.record.end.is_some() => None,
            _ if due.skipped == Some(Skipped::Stopped) => None,
            // It is lost, or will be: nothing begins it again.
            Some(run) if schedule.at_most_once => {
                up.contains(&run.node).then_some((slot.replica, Some(run.node)))
            }
            None if due.skipped.is_some() => None,
            _ => Some((slot.replica, None)),
        });
        let mut open: BTreeMap<u32, Option<NodeId>> = open.collect();
        let begun =
            |time: u32| self.get(&Slot { service: service.clone(), replica: time }).is_some();
        let most = match schedule.overlap {
            Overlap::Allow => MAX_AT_ONCE,
            Overlap::Forbid | Overlap::Replace => 1,
        };
        while open.len() > most {
            match schedule.overlap {
                // What has begun goes on.
                Overlap::Forbid => {
                    let first = open.keys().copied().find(|&time| begun(time));
                    let first = first.or_else(|| open.keys().next().copied());
                    open.retain(|time, _| Some(*time) == first);
                }
                Overlap::Allow | Overlap::Replace => drop(open.pop_first()),
            }
        }
        open
    }

    /// Returns the numbers of the slots of a service whose runs have ended.
    pub fn ended(&self, service: &ServiceKey) -> BTreeSet<u32> {
        let ended = self.of_service(service).filter(|(_, run)| run.record.end.is_some());
        ended.map(|(slot, _)| slot.replica).collect()
    }
}

fn rank(run: &Run) -> (bool, bool, u64, NodeId) {
    let end = run.record.end.as_ref();
    (!end.is_some_and(RunEnd::is_success), end.is_none(), run.record.started, run.node)
}
