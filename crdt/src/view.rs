//! The view: all documents combined, with the plan.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use vc_placement::{
    ClaimView, Copies, CopyView, Node, Orders, Plan, PlanInput, Rules, ServiceDemand, WantedCopies,
    copies_wanted, homes, plan, readable,
};
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::node::{Faults, NodeInfo};
use vc_protocol::planted::{PlantedBug, is_planted};
use vc_protocol::spec::{Deployment, FailureAction, ServiceMode, ServiceSpec};
use vc_protocol::{InstanceId, Lamport, NodeId, ServiceKey, Slot, Stored, VolumeKey};

use crate::held::Held;
use crate::known::KnownVersions;
use crate::liveness;
use crate::replica::Replica;
use crate::runs::Runs;
use crate::schema::{ALERTS, HISTORY, RUNS, VOTERS};
use crate::state::{ClusterState, MoveOrder, NodeState, ServiceRecord, VolumeRecord};
use crate::trust::Trust;

/// The cluster as the documents describe it, with the plan that follows. Nodes with the same changes have equal views.
#[derive(Debug, Clone)]
pub struct View {
    /// The cluster document.
    pub cluster: ClusterState,
    /// The node documents, without those of nodes that left the cluster.
    pub nodes: BTreeMap<NodeId, NodeState>,
    /// The nodes that left the cluster, with their static facts if known.
    pub left: BTreeMap<NodeId, Option<NodeInfo>>,
    /// The nodes that are up.
    pub up: BTreeSet<NodeId>,
    /// The members that may write the cluster document, by their certificates.
    pub servers: BTreeSet<NodeId>,
    /// Who is trusted.
    pub trust: Trust,
    /// The end of the last update of each service; missing while it is in progress.
    pub updates: BTreeMap<ServiceKey, UpdateStatus>,
    /// The runs of jobs.
    pub runs: Runs,
    /// The input of the plan.
    pub input: PlanInput,
    /// The node of every slot.
    pub plan: Plan,
    /// The nodes that are to have a copy of each volume; empty under rules without [`copies`](Rules::copies).
    pub copies: BTreeMap<VolumeKey, BTreeSet<NodeId>>,
    /// What this version cannot read.
    pub held: Held,
    /// The rules by which all nodes plan: the newest that every node which is up knows.
    pub rules: Rules,
    /// Whether the cluster document can hold replaced versions of services.
    pub has_history: bool,
    /// Whether the cluster document can hold the voters that grant leases.
    pub has_voters: bool,
    /// Whether the documents of nodes can hold runs.
    pub has_runs: bool,
    /// Whether the cluster document can hold receivers of alerts.
    pub has_receivers: bool,
}

/// How the last update of a service ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateStatus {
    /// Every instance became available.
    Complete,
    /// A new instance failed, with the reason.
    Failed(String),
}

impl View {
    /// Returns the view of the documents of a replica.
    pub fn of(replica: &Replica) -> Self {
        let (cluster, nodes) = (replica.cluster().clone(), replica.nodes().clone());
        let view = Self::from_states(cluster, nodes, replica.knows());
        let (servers, trust) = (replica.servers().collect(), replica.trust());
        let (has_history, has_voters) = (replica.has_history(), replica.has_voters());
        let (held, has_runs) = (replica.held(), replica.has_runs());
        let has_receivers = replica.has_receivers();
        Self { held, servers, trust, has_history, has_voters, has_runs, has_receivers, ..view }
    }

    /// Returns the view of these documents, by what this version knows and without what only the members' certificates say.
    pub fn from_states(
        cluster: ClusterState,
        mut nodes: BTreeMap<NodeId, NodeState>,
        knows: &KnownVersions,
    ) -> Self {
        // Also those of nodes that have left: what has run is not run again.
        let runs = Runs::of(&cluster, &nodes);
        let left = cluster.left.keys().map(|node| {
            let state = nodes.remove(node);
            (*node, state.and_then(|state| state.info))
        });
        let left = left.collect();
        let up = liveness::up_nodes(&nodes);
        let infos = up.iter().filter_map(|node| nodes[node].info.as_ref());
        let plans: Vec<u32> = infos.map(|info| info.supports.plan).collect();
        let newest = is_planted(PlantedBug::NewestRules);
        let version = if newest { plans.iter().max() } else { plans.iter().min() };
        let rules = knows.rules(version.copied().unwrap_or(1));
        let mut updates = updates(&cluster, &nodes);
        let effective: BTreeMap<&ServiceKey, &Stored<ServiceSpec>> = cluster
            .services
            .iter()
            .map(|(key, record)| (key, effective(record, updates.get(key))))
            .collect();
        let digests = effective.iter().map(|(&key, spec)| (key, spec.container_digest())).collect();
        let placeable = nodes.iter().filter_map(|(&id, state)| {
            let silent_ms = match rules.disconnect && !up.contains(&id) {
                true => liveness::silent_for(&nodes, id),
                false => 0,
            };
            let node = node(id, state, &cluster, &up, &digests, rules)?;
            Some((id, Node { silent_ms, ..node }))
        });
        let counted = counted(&nodes, rules);
        let services = cluster.services.iter().map(|(key, record)| {
            let mut spec = effective[key].clone();
            // Members of earlier rules do not know of these, and plan without.
            if !rules.max_per_node {
                spec.max_replicas_per_node = 0;
            }
            if !rules.resources {
                spec.generic_resources = Default::default();
            }
            let demand = ServiceDemand {
                spec,
                replicas: cluster.replicas(key),
                needs: needs(effective[key], &counted, rules),
                ended: runs.ended(key),
                due: due(key, effective[key], &cluster, &runs, &up),
                revision: record.revision,
            };
            (key.clone(), demand)
        });
        let mut input = PlanInput {
            nodes: placeable.collect(),
            services: services.collect(),
            volumes: BTreeMap::new(),
            readable: BTreeMap::new(),
            joined: BTreeMap::new(),
            moves: moves(&cluster, &nodes),
        };
        if rules.joined {
            input.joined = joined(&input.services);
        }
        let (copies, orders) = (copies(&cluster, &nodes), orders(&cluster));
        input.volumes = match rules.copies {
            true => homes(&input, &copies, &orders),
            false => volumes(&cluster, &nodes),
        };
        let wanted = match rules.copies {
            true => copies_wanted(&input, &copies, &orders, rules),
            false => WantedCopies::default(),
        };
        if rules.copies {
            input.readable = readable(&input, &copies);
        }
        for (id, node) in &mut input.nodes {
            node.volume_room = wanted.room.get(id).copied();
        }
        let plan = plan(&input, rules);
        for (key, _) in cluster.services.iter().filter(|(_, it)| it.spec.mode.is_job()) {
            updates.remove(key);
            if cluster.services[key].spec.schedule.is_some() {
                // Its runs are no part of the deployment.
                updates.insert(key.clone(), UpdateStatus::Complete);
                continue;
            }
            updates.extend(job_status(key, &runs, &plan, &up).map(|status| (key.clone(), status)));
        }
        let (held, servers) = (Held::default(), BTreeSet::new());
        let (trust, schema) = (Trust::default(), knows.cluster.version());
        let (has_history, has_voters) = (schema >= HISTORY, schema >= VOTERS);
        let has_runs = knows.node.version() >= RUNS;
        Self {
            cluster,
            nodes,
            left,
            up,
            servers,
            trust,
            updates,
            runs,
            input,
            plan,
            copies: wanted.nodes,
            held,
            rules,
            has_history,
            has_voters,
            has_runs,
            has_receivers: schema >= ALERTS,
        }
    }

    /// Returns the spec in effect: the deployed one, or the previous one after a rollback. `None` if the service is not
    /// deployed.
    pub fn spec(&self, service: &ServiceKey) -> Option<&Stored<ServiceSpec>> {
        let record = self.cluster.services.get(service)?;
        Some(effective(record, self.updates.get(service)))
    }

    /// Returns the named volumes that a service mounts.
    pub fn volumes_of(&self, service: &ServiceKey) -> impl Iterator<Item = VolumeKey> {
        let names = self.spec(service).into_iter().flat_map(|spec| spec.volumes());
        let project = &service.project;
        names.map(move |name| VolumeKey { project: project.clone(), volume: name.clone() })
    }

    /// Returns the mode of a service; the default if it is not deployed.
    pub fn mode(&self, service: &ServiceKey) -> ServiceMode {
        self.spec(service).map_or(ServiceMode::default(), |spec| spec.mode)
    }

    /// Returns the number of instances that a service should have: where there is one for each node, the nodes that it suits, up or
    /// down; with a schedule the runs that are to be under way.
    pub fn replicas(&self, service: &ServiceKey) -> u32 {
        match self.mode(service).is_per_node() {
            true => {
                let slots = self.plan.slots_of_service(service).count();
                let ended = self.runs.ended(service).len();
                u32::try_from(slots.saturating_add(ended)).unwrap_or(u32::MAX)
            }
            false => match self.input.services.get(service) {
                Some(demand) if demand.spec.schedule.is_some() => {
                    u32::try_from(demand.due.len()).unwrap_or(u32::MAX)
                }
                _ => self.cluster.replicas(service),
            },
        }
    }

    /// Returns whether an instance is a run that has ended: nothing starts it again.
    pub fn has_ended(&self, id: &InstanceId) -> bool {
        self.runs.get(&id.slot).is_some_and(|run| run.id == *id && run.record.end.is_some())
    }

    /// Returns whether the last update of a service failed and is rolled back.
    pub fn is_rolled_back(&self, service: &ServiceKey) -> bool {
        self.cluster
            .services
            .get(service)
            .is_some_and(|record| rolled_back(record, self.updates.get(service)))
    }

    /// Returns the servers that are up.
    pub fn up_servers(&self) -> impl Iterator<Item = NodeId> {
        self.servers.intersection(&self.up).copied()
    }

    /// Returns what each replica of a service takes of resources that are counted.
    pub fn needs(&self, spec: &ServiceSpec) -> BTreeMap<String, u64> {
        needs(spec, &counted(&self.nodes, self.rules), self.rules)
    }

    /// Returns the plan as if these services were deployed.
    pub fn plan_with(&self, deployments: &[Deployment]) -> Plan {
        let mut input = self.input.clone();
        for deployment in deployments {
            let replicas =
                deployment.replicas.unwrap_or_else(|| self.cluster.replicas(&deployment.service));
            let demand = ServiceDemand {
                spec: deployment.spec.clone(),
                replicas,
                needs: self.needs(&deployment.spec),
                ended: BTreeSet::new(),
                due: BTreeMap::new(),
                revision: Lamport::MAX,
            };
            input.services.insert(deployment.service.clone(), demand);
        }
        plan(&input, self.rules)
    }

    /// Returns the name of a node, or the end of its id if the name is unknown.
    pub fn name(&self, node: NodeId) -> String {
        let present = || self.nodes.get(&node).and_then(|state| state.info.as_ref());
        let left = || self.left.get(&node).and_then(Option::as_ref);
        present().or_else(left).map_or_else(|| node.short(), |info| info.name.to_string())
    }

    /// Returns whether an instance is one of an earlier version of its service, or of one that was removed.
    pub fn is_former(&self, id: &InstanceId) -> bool {
        self.desired_digest(&id.slot.service).as_ref() != Some(&id.digest)
    }

    /// Returns the digest of the container spec in effect; `None` if the service is not deployed.
    pub fn desired_digest(&self, service: &ServiceKey) -> Option<String> {
        self.spec(service).map(Stored::container_digest)
    }

    /// Returns the Lamport timestamp of what happens next.
    pub fn next_lamport(&self) -> Lamport {
        let cluster = &self.cluster;
        let services = cluster.services.values().map(|record| record.revision);
        let moves = cluster.moves.values().map(|order| order.lamport);
        let tombstones = cluster.tombstones.values().map(|removed| removed.lamport);
        let of_nodes = self.nodes.values().flat_map(|state| {
            let claims = state.claims.values().map(|claim| claim.lamport);
            claims.chain(state.volumes.values().map(|volume| volume.lamport.max(volume.begun)))
        });
        let seen = services.chain(moves).chain(tombstones).chain(of_nodes);
        let one = if is_planted(PlantedBug::SameLamport) { 0 } else { 1 };
        seen.max().unwrap_or(0).saturating_add(one)
    }

    /// Returns the claims on a slot by nodes that are up.
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

/// Returns a node's claims on one slot.
pub fn claims_of_slot<'a>(
    claims: &'a BTreeMap<InstanceId, Claim>,
    slot: &'a Slot,
) -> impl Iterator<Item = (&'a InstanceId, &'a Claim)> {
    let from = InstanceId { slot: slot.clone(), digest: String::new() };
    claims.range(from..).take_while(move |(id, _)| id.slot == *slot)
}

fn rolled_back(record: &ServiceRecord, update: Option<&UpdateStatus>) -> bool {
    matches!(update, Some(UpdateStatus::Failed(_)))
        && !record.spec.mode.is_job()
        && record.spec.update.failure_action == FailureAction::Rollback
        && record.previous.is_some()
}

fn effective<'a>(
    record: &'a ServiceRecord,
    update: Option<&UpdateStatus>,
) -> &'a Stored<ServiceSpec> {
    match &record.previous {
        Some(previous) if rolled_back(record, update) => previous,
        _ => &record.spec,
    }
}

/// Combines the update results of all nodes. Failure wins over completion, because the two sides of a partition may
/// have seen both.
fn updates(
    cluster: &ClusterState,
    nodes: &BTreeMap<NodeId, NodeState>,
) -> BTreeMap<ServiceKey, UpdateStatus> {
    let mut updates = BTreeMap::new();
    for (key, result) in nodes.values().flat_map(|state| &state.update_results) {
        let current = cluster.services.get(key).is_some_and(|it| it.is_result(result));
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

/// Returns the slots of a scheduled service, see [`Runs::open`]; none while it is scaled to 0.
fn due(
    service: &ServiceKey,
    spec: &ServiceSpec,
    cluster: &ClusterState,
    runs: &Runs,
    up: &BTreeSet<NodeId>,
) -> BTreeMap<u32, Option<NodeId>> {
    match &spec.schedule {
        Some(schedule) if cluster.replicas(service) > 0 => runs.open(service, schedule, up),
        _ => BTreeMap::new(),
    }
}

/// Returns how the runs of a job ended, as of an update; `None` while one has not that is not to wait for a node that is down.
fn job_status(
    service: &ServiceKey,
    runs: &Runs,
    plan: &Plan,
    up: &BTreeSet<NodeId>,
) -> Option<UpdateStatus> {
    let failed = runs.of_service(service).find_map(|(slot, run)| {
        let end = run.record.end.as_ref().filter(|end| !end.is_success())?;
        Some(format!("{slot}: {}", end.reason))
    });
    if let Some(reason) = failed {
        return Some(UpdateStatus::Failed(reason));
    }
    let is_away = |slot: &Slot| {
        let refusals = plan.unplaced.get(slot).into_iter().flatten();
        plan.unplaced.contains_key(slot) && refusals.into_iter().all(|it| !up.contains(&it.node))
    };
    let is_open = plan.slots_of_service(service).any(|slot| !is_away(slot));
    let has_run = runs.of_service(service).next().is_some();
    (has_run && !is_open).then_some(UpdateStatus::Complete)
}

/// Returns the node that holds each volume. If two nodes hold one, as after a partition, the older copy counts. Removed
/// volumes are left out.
fn volumes(
    cluster: &ClusterState,
    nodes: &BTreeMap<NodeId, NodeState>,
) -> BTreeMap<VolumeKey, NodeId> {
    let mut found: BTreeMap<VolumeKey, (Lamport, NodeId)> = BTreeMap::new();
    for (&node, state) in nodes {
        for (key, record) in &state.volumes {
            if cluster.tombstones.get(key).is_none_or(|removed| record.lamport > removed.lamport) {
                let best = found.entry(key.clone()).or_insert((record.lamport, node));
                *best = (*best).min((record.lamport, node));
            }
        }
    }
    found.into_iter().map(|(key, (_, node))| (key, node)).collect()
}

/// Returns all copies of volumes, without those of removed ones.
fn copies(cluster: &ClusterState, nodes: &BTreeMap<NodeId, NodeState>) -> Copies {
    let mut found = Copies::new();
    for (&node, state) in nodes {
        for (key, record) in &state.volumes {
            if cluster.tombstones.get(key).is_none_or(|removed| record.lamport > removed.lamport) {
                let VolumeRecord { lamport, begun, copy, .. } = &**record;
                let view = CopyView { lamport: *lamport, begun: *begun, copy: copy.clone() };
                found.entry(key.clone()).or_default().insert(node, view);
            }
        }
    }
    found
}

/// Returns the move orders, in effect or not.
fn orders(cluster: &ClusterState) -> Orders {
    let order = |(slot, it): (&Slot, &MoveOrder)| (slot.clone(), (it.from, it.to, it.lamport));
    cluster.moves.iter().map(order).collect()
}

/// Returns the move orders in effect.
fn moves(
    cluster: &ClusterState,
    nodes: &BTreeMap<NodeId, NodeState>,
) -> BTreeMap<Slot, (NodeId, NodeId)> {
    let holds = |(slot, order): &(&Slot, &MoveOrder)| {
        let held = nodes.get(&order.from).map(|state| &state.claims);
        held.is_some_and(|claims| {
            let mut on = claims_of_slot(claims, slot);
            on.any(|(_, claim)| claim.lamport < order.lamport && claim.state.is_running())
        })
    };
    let orders = cluster.moves.iter().filter(holds);
    orders.map(|(slot, order)| (slot.clone(), (order.from, order.to))).collect()
}

/// Returns the kinds of resources that are counted: those that a member says it has.
fn counted(nodes: &BTreeMap<NodeId, NodeState>, rules: Rules) -> BTreeSet<&str> {
    let infos = nodes.values().filter_map(|state| state.info.as_ref());
    let kinds = infos.flat_map(|info| info.generic_resources.keys().map(String::as_str));
    kinds.filter(|_| rules.resources).collect()
}

/// Returns what each replica of a service takes of resources that are counted.
fn needs(spec: &ServiceSpec, counted: &BTreeSet<&str>, rules: Rules) -> BTreeMap<String, u64> {
    match rules.resources {
        true => spec.needs(|kind| counted.contains(kind)),
        false => BTreeMap::new(),
    }
}

fn node(
    id: NodeId,
    state: &NodeState,
    cluster: &ClusterState,
    up: &BTreeSet<NodeId>,
    digests: &BTreeMap<&ServiceKey, String>,
    rules: Rules,
) -> Option<Node> {
    let info = state.info.as_ref()?;
    // A stopping instance of the current spec does not hold its slot. One of an earlier spec does: its successor starts
    // on the same node.
    let is_leaving = |id: &InstanceId, claim: &Claim| {
        claim.state == InstanceState::Stopping && digests.get(&id.slot.service) == Some(&id.digest)
    };
    // During a start-first update a slot has two instances on one node: the running one counts, then the current spec.
    let mut claims: BTreeMap<Slot, ClaimView> = BTreeMap::new();
    for (id, claim) in state.claims.iter().filter(|(id, claim)| !is_leaving(id, claim)) {
        let seen = ClaimView {
            digest: id.digest.clone(),
            running: claim.state.is_running(),
            lamport: claim.lamport,
            started: if rules.disconnect { claim.started } else { 0 },
        };
        let strength = |it: &ClaimView| {
            (it.running, digests.get(&id.slot.service) == Some(&it.digest), Reverse(it.lamport))
        };
        match claims.get_mut(&id.slot) {
            Some(held) if strength(held) >= strength(&seen) => {}
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
        generic_resources: if rules.resources {
            info.generic_resources.clone()
        } else {
            BTreeMap::new()
        },
        volume_room: Some(info.volume_room).filter(|&room| room > 0 && rules.copies),
        up: up.contains(&id),
        silent_ms: 0,
        witness: rules.modes && info.witness,
        draining: cluster.drained.get(&id).copied().unwrap_or(false),
        runtime_error: state.runtime_error.clone(),
        holds: state.holds.clone(),
        faults: if rules.faults { state.faults.clone() } else { Faults::default() },
        claims,
    })
}

/// Returns the services that have the network of another one which exists.
fn joined(services: &BTreeMap<ServiceKey, ServiceDemand>) -> BTreeMap<ServiceKey, ServiceKey> {
    let is_replicated = |demand: &ServiceDemand| demand.spec.mode == ServiceMode::Replicated;
    let joined = services.iter().filter(|(_, demand)| is_replicated(demand));
    let joined = joined.filter_map(|(key, demand)| {
        let slot = Slot { service: key.clone(), replica: 1 };
        let owner = demand.spec.container.network_owner(&slot)?.service;
        let exists = owner != *key && services.get(&owner).is_some_and(is_replicated);
        exists.then(|| (key.clone(), owner))
    });
    joined.collect()
}

#[cfg(test)]
mod tests {
    use vc_protocol::Keypair;
    use vc_protocol::node::NodeInfo;

    use super::*;

    #[test]
    fn all_plan_without_a_limit_per_node_while_a_member_is_up_that_does_not_know_it() {
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let node = NodeId::of(&key.public()).expect("ed25519");
        let service: ServiceKey = "shop/web".parse().expect("a service");
        let spec = ServiceSpec { max_replicas_per_node: 1, ..ServiceSpec::default() };
        let record = ServiceRecord {
            spec: spec.into(),
            previous: None,
            revision: 1,
            updated: 0,
            deployed_by: "ada".to_owned(),
            trace: None,
        };
        let services = BTreeMap::from([(service.clone(), record.into())]);
        let cluster = ClusterState { services, ..ClusterState::default() };
        let limit = |plan: u32| {
            let mut info = NodeInfo::for_tests("attic");
            info.supports.plan = plan;
            let observed = BTreeSet::from([node]);
            let state =
                NodeState { incarnation: 1, observed, info: Some(info), ..NodeState::default() };
            let nodes = BTreeMap::from([(node, state)]);
            let view = View::from_states(cluster.clone(), nodes, &KnownVersions::default());
            view.input.services[&service].spec.max_replicas_per_node
        };
        assert_eq!((limit(6), limit(7)), (0, 1));
    }
}
