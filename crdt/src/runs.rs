//! The runs of jobs, as the documents of all nodes say.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::run::{RunEnd, RunRecord};
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

/// The runs of the deployments in effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runs(BTreeMap<Slot, Run>);

impl Runs {
    /// Reads the documents, those of former members included. Of several runs of a slot, as on the two sides of a partition, one that
    /// succeeded counts first, then one that has ended, then the one that began first.
    pub(crate) fn of(cluster: &ClusterState, nodes: &BTreeMap<NodeId, NodeState>) -> Self {
        let digests: BTreeMap<&ServiceKey, String> = cluster
            .services
            .iter()
            .filter(|(_, record)| record.spec.mode.is_job())
            .map(|(key, record)| (key, record.spec.container_digest()))
            .collect();
        let mut runs: BTreeMap<Slot, Run> = BTreeMap::new();
        for (&node, state) in nodes {
            for (id, record) in &state.runs {
                let service = &id.slot.service;
                if digests.get(service) != Some(&id.digest) {
                    continue;
                }
                let run = Run { node, id: id.clone(), record: record.clone() };
                match runs.get(&id.slot) {
                    Some(held) if rank(held) <= rank(&run) => {}
                    _ => drop(runs.insert(id.slot.clone(), run)),
                }
            }
        }
        Self(runs)
    }

    /// Returns the run of a slot in the deployment in effect.
    pub fn get(&self, slot: &Slot) -> Option<&Run> {
        self.0.get(slot)
    }

    /// Returns the runs of a service.
    pub fn of_service<'a>(&'a self, service: &ServiceKey) -> impl Iterator<Item = (&'a Slot, &'a Run)> {
        let slot = |replica| Slot { service: service.clone(), replica };
        self.0.range(slot(0)..=slot(u32::MAX))
    }

    /// Returns how the run of a slot ended; `None` if it has not.
    pub fn end(&self, slot: &Slot) -> Option<&RunEnd> {
        self.get(slot)?.record.end.as_ref()
    }

    /// Leaves out the runs of other services.
    pub(crate) fn retain(&mut self, of: impl Fn(&ServiceKey) -> bool) {
        self.0.retain(|slot, _| of(&slot.service));
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
