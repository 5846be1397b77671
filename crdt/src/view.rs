//! What the documents say together.

use std::collections::{BTreeMap, BTreeSet};

use vc_placement::{ClaimView, Machine, Plan, PlanInput, Wanted, plan};
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::spec::Deployment;
use vc_protocol::{Millis, NodeId, ServiceKey, Slot};

use crate::{ClusterState, NodeState, Replica, liveness};

/// The cluster as the documents describe it, and the plan that follows: equal on nodes that have the same changes.
#[derive(Debug, Clone)]
pub struct View {
    /// What users want.
    pub cluster: ClusterState,
    /// What machines say of themselves.
    pub nodes: BTreeMap<NodeId, NodeState>,
    /// The machines that are up.
    pub up: BTreeSet<NodeId>,
    /// What the plan was computed from.
    pub input: PlanInput,
    /// Where every slot goes.
    pub plan: Plan,
}

impl View {
    /// Reads the documents.
    pub fn of(replica: &Replica) -> Self {
        Self::from_states(replica.cluster().clone(), replica.nodes().clone())
    }

    /// What these states say together.
    pub fn from_states(cluster: ClusterState, nodes: BTreeMap<NodeId, NodeState>) -> Self {
        let up = liveness::up(&nodes);
        let digests = cluster
            .services
            .iter()
            .map(|(key, record)| (key, record.spec.container.digest()))
            .collect();
        let machines = nodes
            .iter()
            .filter_map(|(&id, state)| Some((id, machine(id, state, &cluster, &up, &digests)?)));
        let services = cluster.services.iter().map(|(key, record)| {
            (
                key.clone(),
                Wanted {
                    spec: record.spec.clone(),
                    replicas: cluster.replicas(key),
                    updated: record.updated,
                },
            )
        });
        let input = PlanInput { nodes: machines.collect(), services: services.collect() };
        let plan = plan(&input);
        Self { cluster, nodes, up, input, plan }
    }

    /// The plan as it would be with these services deployed.
    pub fn plan_with(&self, deployments: &[Deployment]) -> Plan {
        let mut input = self.input.clone();
        for deployment in deployments {
            let replicas =
                deployment.replicas.unwrap_or_else(|| self.cluster.replicas(&deployment.service));
            let wanted = Wanted { spec: deployment.spec.clone(), replicas, updated: Millis::MAX };
            input.services.insert(deployment.service.clone(), wanted);
        }
        plan(&input)
    }

    /// A machine's name, or the end of its id where it has not said one.
    pub fn name(&self, node: NodeId) -> String {
        let info = self.nodes.get(&node).and_then(|state| state.info.as_ref());
        info.map_or_else(|| node.short(), |info| info.name.to_string())
    }

    /// Digest of what a service's instances shall run; `None`: it is not wanted.
    pub fn wanted_digest(&self, service: &ServiceKey) -> Option<String> {
        self.cluster.services.get(service).map(|record| record.spec.container.digest())
    }
}

fn machine(
    id: NodeId,
    state: &NodeState,
    cluster: &ClusterState,
    up: &BTreeSet<NodeId>,
    digests: &BTreeMap<&ServiceKey, String>,
) -> Option<Machine> {
    let info = state.info.as_ref()?;
    // An instance of the present spec that stops is on its way out and holds nothing: its slot is free to go where it
    // fits best. One of an earlier spec makes room for its successor in the same place.
    let leaves = |slot: &Slot, claim: &Claim| {
        claim.state == InstanceState::Stopping && digests.get(&slot.service) == Some(&claim.digest)
    };
    let claims =
        state.claims.iter().filter(|(slot, claim)| !leaves(slot, claim)).map(|(slot, claim)| {
            (
                slot.clone(),
                ClaimView {
                    digest: claim.digest.clone(),
                    running: claim.state.is_running(),
                    since: claim.since,
                },
            )
        });
    Some(Machine {
        name: info.name.clone(),
        os: info.os.clone(),
        arch: info.arch.clone(),
        runtime: info.runtime,
        labels: info.labels.clone(),
        capacity: info.capacity,
        up: up.contains(&id),
        draining: cluster.drained.get(&id).copied().unwrap_or(false),
        runtime_error: state.runtime_error.clone(),
        claims: claims.collect(),
    })
}
