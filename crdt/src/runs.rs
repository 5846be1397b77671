//! The runs of jobs, as the documents of all nodes say.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::run::{DueRecord, RunEnd, RunRecord, Skipped};
use vc_protocol::spec::{Overlap, Schedule};
use vc_protocol::{InstanceId, Millis, NodeId, ServiceKey, Slot};

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

/// By how much the clocks of nodes that take deployments and write times may differ.
const CLOCK_TOLERANCE: Millis = 60_000;

/// The runs of the deployments in effect, and those of schedules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runs {
    runs: BTreeMap<Slot, Run>,
    /// The times of schedules that have come.
    due: BTreeMap<Slot, DueRecord>,
    /// When the services with a schedule were deployed last.
    deployed: BTreeMap<ServiceKey, Millis>,
}

impl Runs {
    /// The most runs of a schedule that are under way at once, with `overlap: allow`.
    pub const MAX_AT_ONCE: usize = 10;

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
        let scheduled = cluster.services.iter().filter(|(_, it)| it.spec.schedule.is_some());
        let deployed = scheduled.map(|(key, record)| (key.clone(), record.updated)).collect();
        Self { runs, due, deployed }
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
        self.deployed.retain(|service, _| of(service));
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
    /// elsewhere. Not at those without a run that came before the last deployment: the service may have been removed meanwhile, and what
    /// has run then is forgotten.
    pub(crate) fn open(
        &self,
        service: &ServiceKey,
        schedule: &Schedule,
        up: &BTreeSet<NodeId>,
    ) -> BTreeMap<u32, Option<NodeId>> {
        let deployed = self.deployed.get(service).copied().unwrap_or(0);
        let is_former = |due: &DueRecord| due.at.saturating_add(CLOCK_TOLERANCE) < deployed;
        let open = self.due(service).filter_map(|(slot, due)| match self.get(slot) {
            Some(run) if run.record.end.is_some() => None,
            _ if due.skipped == Some(Skipped::Stopped) => None,
            // It is lost, or will be: nothing begins it again.
            Some(run) if schedule.at_most_once => {
                up.contains(&run.node).then_some((slot.replica, Some(run.node)))
            }
            None if due.skipped.is_some() || is_former(due) => None,
            _ => Some((slot.replica, None)),
        });
        let mut open: BTreeMap<u32, Option<NodeId>> = open.collect();
        let begun =
            |time: u32| self.get(&Slot { service: service.clone(), replica: time }).is_some();
        let most = match schedule.overlap {
            Overlap::Allow => Self::MAX_AT_ONCE,
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
                Overlap::Allow => match open.keys().copied().rev().find(|&time| !begun(time)) {
                    Some(newest) => drop(open.remove(&newest)),
                    None => break,
                },
                Overlap::Replace => drop(open.pop_first()),
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

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use vc_protocol::Keypair;
    use vc_protocol::spec::{ServiceMode, ServiceSpec};

    use super::*;
    use crate::state::ServiceRecord;

    const NOW: Millis = 1_700_000_000_000;

    /// Returns the times at which runs are open of a service that was deployed `NOW`. `due`: each time, when it was written, and whether
    /// a run has begun.
    fn open(overlap: Overlap, due: &[(u32, Millis, bool)]) -> Vec<u32> {
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let node = NodeId::of(&key.public()).expect("ed25519");
        let service: ServiceKey = "shop/backup".parse().expect("a service");
        let schedule = Schedule { overlap, ..Schedule::new("* * * * *") };
        let mode = ServiceMode::ReplicatedJob;
        let spec = ServiceSpec { mode, schedule: Some(schedule.clone()), ..ServiceSpec::default() };
        let digest = spec.container.digest();
        let record = ServiceRecord {
            spec: spec.into(),
            previous: None,
            revision: 1,
            updated: NOW,
            deployed_by: "ada".to_owned(),
            trace: None,
        };
        let mut cluster = ClusterState::default();
        cluster.services.insert(service.clone(), record.into());
        let mut state = NodeState::default();
        for &(replica, at, begun) in due {
            let slot = Slot { service: service.clone(), replica };
            let record = DueRecord { at, missed: 0, skipped: None, by: String::new() };
            state.due.insert(slot.clone(), record);
            if begun {
                let id = InstanceId { slot, digest: digest.clone() };
                state.runs.insert(id, RunRecord { started: at, end: None });
            }
        }
        let runs = Runs::of(&cluster, &BTreeMap::from([(node, state)]));
        runs.open(&service, &schedule, &BTreeSet::from([node])).into_keys().collect()
    }

    #[test]
    fn a_time_from_before_the_deployment_begins_no_run() {
        let hour = 3_600_000;
        let due = [(1, NOW - hour, false), (2, NOW - hour, true), (3, NOW - 30_000, false)];
        assert_eq!(open(Overlap::Allow, &due), [2, 3]);
        assert!(open(Overlap::Forbid, &due[..1]).is_empty(), "and blocks no other");
    }

    #[test]
    fn of_more_runs_than_may_overlap_the_newest_that_have_not_begun_are_left_out() {
        let due =
            |begun: fn(u32) -> bool| (1..=13).map(|it| (it, NOW, begun(it))).collect::<Vec<_>>();
        let ten: Vec<u32> = (1..=9).chain([12]).collect();
        assert_eq!(open(Overlap::Allow, &due(|it| it <= 8 || it == 12)), ten);
        assert_eq!(open(Overlap::Allow, &due(|it| it <= 12)), (1..=12).collect::<Vec<_>>());
        assert_eq!(open(Overlap::Replace, &due(|it| it <= 12)), [13]);
        assert_eq!(open(Overlap::Forbid, &due(|it| it > 2)), [3]);
    }
}
