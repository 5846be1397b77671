//! What the documents say together.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use vc_placement::{ClaimView, Node, Plan, PlanInput, ServiceDemand, plan};
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::node::NodeInfo;
use vc_protocol::spec::{Deployment, FailureAction, ServiceSpec};
use vc_protocol::{InstanceId, Millis, NodeId, ServiceKey, Slot, VolumeKey};

use crate::{ClusterState, MoveOrder, NodeState, Replica, ServiceRecord, liveness};

/// The cluster as the documents describe it, and the plan that follows: equal on nodes that have the same changes.
#[derive(Debug, Clone)]
pub struct View {
    /// What users want.
    pub cluster: ClusterState,
    /// What nodes say of themselves; those that left for good are not among them.
    pub nodes: BTreeMap<NodeId, NodeState>,
    /// The nodes that left for good, with what they said of themselves.
    pub left: BTreeMap<NodeId, Option<NodeInfo>>,
    /// The nodes that are up.
    pub up: BTreeSet<NodeId>,
    /// How the last update of each service ended, as far as anybody saw.
    pub updates: BTreeMap<ServiceKey, UpdateStatus>,
    /// What the plan was computed from.
    pub input: PlanInput,
    /// Where every slot goes.
    pub plan: Plan,
}

/// How the last update of a service ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateStatus {
    /// Every instance has proven itself.
    Complete,
    /// A new instance failed, for this reason.
    Failed(String),
}

impl View {
    /// Reads the documents.
    pub fn of(replica: &Replica) -> Self {
        Self::from_states(replica.cluster().clone(), replica.nodes().clone())
    }

    /// What these states say together.
    pub fn from_states(cluster: ClusterState, mut nodes: BTreeMap<NodeId, NodeState>) -> Self {
        let left = cluster.left.keys().map(|node| {
            let state = nodes.remove(node);
            (*node, state.and_then(|state| state.info))
        });
        let left = left.collect();
        let up = liveness::up_nodes(&nodes);
        let updates = updates(&cluster, &nodes);
        let effective: BTreeMap<&ServiceKey, &ServiceSpec> = cluster
            .services
            .iter()
            .map(|(key, record)| (key, effective(record, updates.get(key))))
            .collect();
        let digests = effective.iter().map(|(&key, spec)| (key, spec.container.digest())).collect();
        let placeable = nodes
            .iter()
            .filter_map(|(&id, state)| Some((id, node(id, state, &cluster, &up, &digests)?)));
        let services = cluster.services.iter().map(|(key, record)| {
            let wanted = ServiceDemand {
                spec: effective[key].clone(),
                replicas: cluster.replicas(key),
                updated: record.updated,
            };
            (key.clone(), wanted)
        });
        let input = PlanInput {
            nodes: placeable.collect(),
            services: services.collect(),
            volumes: volumes(&cluster, &nodes),
            moves: moves(&cluster, &nodes),
        };
        let plan = plan(&input);
        Self { cluster, nodes, left, up, updates, input, plan }
    }

    /// What a service's instances shall be: what was asked for, or what was before, where an update failed and goes
    /// back. `None`: the service is not wanted.
    pub fn spec(&self, service: &ServiceKey) -> Option<&ServiceSpec> {
        let record = self.cluster.services.get(service)?;
        Some(effective(record, self.updates.get(service)))
    }

    /// Whether the last update of a service failed and goes back.
    pub fn is_rolled_back(&self, service: &ServiceKey) -> bool {
        self.cluster
            .services
            .get(service)
            .is_some_and(|record| rolled_back(record, self.updates.get(service)))
    }

    /// The plan as it would be with these services deployed.
    pub fn plan_with(&self, deployments: &[Deployment]) -> Plan {
        let mut input = self.input.clone();
        for deployment in deployments {
            let replicas =
                deployment.replicas.unwrap_or_else(|| self.cluster.replicas(&deployment.service));
            let wanted =
                ServiceDemand { spec: deployment.spec.clone(), replicas, updated: Millis::MAX };
            input.services.insert(deployment.service.clone(), wanted);
        }
        plan(&input)
    }

    /// A node's name, or the end of its id where it has not said one.
    pub fn name(&self, node: NodeId) -> String {
        let here = || self.nodes.get(&node).and_then(|state| state.info.as_ref());
        let gone = || self.left.get(&node).and_then(Option::as_ref);
        here().or_else(gone).map_or_else(|| node.short(), |info| info.name.to_string())
    }

    /// Digest of what a service's instances shall run; `None`: it is not wanted.
    pub fn desired_digest(&self, service: &ServiceKey) -> Option<String> {
        self.spec(service).map(|spec| spec.container.digest())
    }

    /// The claims of nodes that are up on a slot, with whose they are.
    pub fn claims_on<'a>(
        &'a self,
        slot: &'a Slot,
    ) -> impl Iterator<Item = (NodeId, &'a InstanceId, &'a Claim)> {
        self.nodes.iter().filter(|(node, _)| self.up.contains(node)).flat_map(
            move |(&node, state)| {
                let claims = claims_of_slot(&state.claims, slot);
                claims.map(move |(id, claim)| (node, id, claim))
            },
        )
    }
}

/// The claims on one slot, out of a node's claims.
pub fn claims_of_slot<'a>(
    claims: &'a BTreeMap<InstanceId, Claim>,
    slot: &'a Slot,
) -> impl Iterator<Item = (&'a InstanceId, &'a Claim)> {
    let from = InstanceId { slot: slot.clone(), digest: String::new() };
    claims.range(from..).take_while(move |(id, _)| id.slot == *slot)
}

fn rolled_back(record: &ServiceRecord, update: Option<&UpdateStatus>) -> bool {
    matches!(update, Some(UpdateStatus::Failed(_)))
        && record.spec.update.failure_action == FailureAction::Rollback
        && record.previous.is_some()
}

fn effective<'a>(record: &'a ServiceRecord, update: Option<&UpdateStatus>) -> &'a ServiceSpec {
    match &record.previous {
        Some(previous) if rolled_back(record, update) => previous,
        _ => &record.spec,
    }
}

/// What the nodes together saw of the updates: who saw a failure is believed before who saw the end, for the two
/// sides of a partition may have seen both.
fn updates(
    cluster: &ClusterState,
    nodes: &BTreeMap<NodeId, NodeState>,
) -> BTreeMap<ServiceKey, UpdateStatus> {
    let mut updates = BTreeMap::new();
    for (key, result) in nodes.values().flat_map(|state| &state.update_results) {
        let current = cluster.services.get(key).is_some_and(|it| it.updated == result.revision);
        if !current {
            continue;
        }
        match (&result.failed, updates.get(key)) {
            (Some(reason), None | Some(UpdateStatus::Complete)) => {
                updates.insert(key.clone(), UpdateStatus::Failed(reason.clone()));
            }
            (None, None) => {
                updates.insert(key.clone(), UpdateStatus::Complete);
            }
            _ => {}
        }
    }
    updates
}

/// Where the data of each volume is. Of two nodes that both hold one, as after a partition, the one that has had it
/// longer counts. What was given up counts no more.
fn volumes(
    cluster: &ClusterState,
    nodes: &BTreeMap<NodeId, NodeState>,
) -> BTreeMap<VolumeKey, NodeId> {
    let mut found: BTreeMap<VolumeKey, (Millis, NodeId)> = BTreeMap::new();
    for (&node, state) in nodes {
        let counts = |(key, since): &(&VolumeKey, &Millis)| {
            cluster.tombstones.get(key).is_none_or(|tombstones| *since > tombstones)
        };
        for (key, &since) in state.volumes.iter().filter(counts) {
            let best = found.entry(key.clone()).or_insert((since, node));
            *best = (*best).min((since, node));
        }
    }
    found.into_iter().map(|(key, (_, node))| (key, node)).collect()
}

/// The orders to move that hold.
fn moves(
    cluster: &ClusterState,
    nodes: &BTreeMap<NodeId, NodeState>,
) -> BTreeMap<Slot, (NodeId, NodeId)> {
    let holds = |(slot, order): &(&Slot, &MoveOrder)| {
        let held = nodes.get(&order.from).map(|state| &state.claims);
        held.is_some_and(|claims| {
            let mut on = claims_of_slot(claims, slot);
            on.any(|(_, claim)| claim.since < order.ordered_at && claim.state.is_running())
        })
    };
    let orders = cluster.moves.iter().filter(holds);
    orders.map(|(slot, order)| (slot.clone(), (order.from, order.to))).collect()
}

fn node(
    id: NodeId,
    state: &NodeState,
    cluster: &ClusterState,
    up: &BTreeSet<NodeId>,
    digests: &BTreeMap<&ServiceKey, String>,
) -> Option<Node> {
    let info = state.info.as_ref()?;
    // An instance of the present spec that stops is on its way out and holds nothing: its slot is free to go where it
    // fits best. One of an earlier spec makes room for its successor in the same place.
    let leaves = |id: &InstanceId, claim: &Claim| {
        claim.state == InstanceState::Stopping && digests.get(&id.slot.service) == Some(&id.digest)
    };
    // While an update starts the successor first, a slot has two instances here: what counts is that the slot is
    // filled, by the present spec if it runs.
    let mut claims: BTreeMap<Slot, ClaimView> = BTreeMap::new();
    for (id, claim) in state.claims.iter().filter(|(id, claim)| !leaves(id, claim)) {
        let seen = ClaimView {
            digest: id.digest.clone(),
            running: claim.state.is_running(),
            since: claim.since,
        };
        let worth = |it: &ClaimView| {
            (it.running, digests.get(&id.slot.service) == Some(&it.digest), Reverse(it.since))
        };
        match claims.get_mut(&id.slot) {
            Some(held) if worth(held) >= worth(&seen) => {}
            Some(held) => *held = seen,
            None => drop(claims.insert(id.slot.clone(), seen)),
        }
    }
    Some(Node {
        name: info.name.clone(),
        os: info.os.clone(),
        arch: info.arch.clone(),
        runtime: info.runtime,
        labels: info.labels.clone(),
        capacity: info.capacity,
        up: up.contains(&id),
        draining: cluster.drained.get(&id).copied().unwrap_or(false),
        runtime_error: state.runtime_error.clone(),
        claims,
    })
}
