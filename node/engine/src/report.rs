//! The rows that users see, computed from a view and volatile data.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::liveness::accuses;
use vc_crdt::{NodeState, Receiver, ReceiverTarget, TrustEntry, TrustKey, View};
use vc_placement::{Node, Plan, Refusal, Relocation, rebalance as relocations};
use vc_protocol::control::{
    InstanceRow, MASK, MoveRow, NodeRow, NodeStatus, PlacementRow, PlanReport, ProblemId,
    ProjectRow, ReceiverRow, RolloutState, ServiceDetail, ServiceRow, StatusReport, TokenRow,
    TrustReport, TrustRow, UnplacedRow,
};
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::node::NodeInfo;
use vc_protocol::spec::Deployment;
use vc_protocol::token::{Scope, SigningKey};
use vc_protocol::{
    ClusterId, InstanceId, Millis, Name, NodeId, Resources, ServiceKey, Slot, Stored,
};

use crate::alerts;
pub use crate::downtime::name_downtimes;
use crate::history;
use crate::interface::{Vitals, WallClocks};
pub use crate::job_report::{jobs, runs};
use crate::partition;
use crate::port_report::{host_ports, unpublished};
use crate::problem::Problem;
use crate::problems::problems as problems_in;
use crate::rollout::Rollout;
pub use crate::volume_report::{CopyStatus, copies, name_waits, volumes};
use crate::voters;

/// Returns a row for every slot, with the instance that fills it, and for every instance that is being replaced.
pub fn instances(view: &View) -> Vec<InstanceRow> {
    let mut rows = BTreeMap::new();
    for (slot, placement) in &view.plan.placements {
        let mut claims = view.claims_on(slot).filter(|(node, ..)| *node == placement.node);
        if claims.next().is_none() {
            let row = unclaimed(view, slot, Some(placement.node), String::new());
            rows.insert((slot.clone(), Some(placement.node), String::new()), row);
        }
    }
    // That a node is down is said with the node.
    let is_away = |slot: &Slot, refusals: &[Refusal]| {
        view.mode(&slot.service).is_per_node()
            && refusals.iter().all(|it| !view.up.contains(&it.node))
    };
    let unplaced = view.plan.unplaced.iter();
    for (slot, refusals) in unplaced.filter(|(slot, refusals)| !is_away(slot, refusals)) {
        let reason = unplaced_reason(view, slot, refusals);
        rows.insert((slot.clone(), None, String::new()), unclaimed(view, slot, None, reason));
    }
    for (&node, state) in view.nodes.iter().filter(|(node, _)| view.up.contains(node)) {
        for (id, claim) in &state.claims {
            let key = (id.slot.clone(), Some(node), id.digest.clone());
            rows.insert(key, claimed(view, id, node, claim));
        }
    }
    rows.into_values().collect()
}

/// Returns why no node runs a slot.
pub(crate) fn unplaced_reason(view: &View, slot: &Slot, refusals: &[Refusal]) -> String {
    // Only the holder of the data could run it: the reasons of other nodes do not matter.
    let homes = homes(view, &slot.service);
    let refusals: Vec<&Refusal> = match homes.as_slice() {
        [home] if refusals.iter().any(|it| it.node == *home) => {
            refusals.iter().filter(|it| it.node == *home).collect()
        }
        _ => refusals.iter().collect(),
    };
    match refusals.as_slice() {
        [] => "no node is up".to_owned(),
        refusals => {
            let lines: Vec<String> = refusals
                .iter()
                .map(|refusal| format!("{}: {}", view.name(refusal.node), refusal.reason))
                .collect();
            lines.join("; ")
        }
    }
}

/// Returns the nodes that hold the data of a service's volumes.
fn homes(view: &View, service: &ServiceKey) -> Vec<NodeId> {
    let holders = view.volumes_of(service).filter_map(|key| view.input.volumes.get(&key).copied());
    let mut homes: Vec<NodeId> = holders.collect();
    homes.sort_unstable();
    homes.dedup();
    homes
}

fn claimed(view: &View, id: &InstanceId, node: NodeId, claim: &Claim) -> InstanceRow {
    let slot = &id.slot;
    let planned = view.plan.placements.get(slot).is_some_and(|placement| placement.node == node);
    let ended = view.has_ended(id);
    let current =
        ended || planned && view.desired_digest(&slot.service).as_deref() == Some(&id.digest);
    let is_run = view.mode(&slot.service).is_job();
    let monitored = current && !is_run && claim.state == InstanceState::Running && !claim.available;
    let spec = view.spec(&slot.service).filter(|it| monitored && !it.container.has_healthcheck());
    InstanceRow {
        state: claim.state,
        reason: claim.reason.clone(),
        address: claim.address.clone(),
        restarts: claim.restarts,
        since: claim.since,
        current,
        // A run is watched until it ends, not to see whether it stays.
        available: claim.available || is_run && claim.state.is_running(),
        monitor_ms: spec.map_or(0, |it| it.update.monitor_ms),
        digest: id.digest.clone(),
        terminal: claim.terminal || ended && claim.state == InstanceState::Failed,
        ended,
        ..unclaimed(view, slot, Some(node), String::new())
    }
}

fn unclaimed(view: &View, slot: &Slot, node: Option<NodeId>, reason: String) -> InstanceRow {
    InstanceRow {
        service: slot.service.clone(),
        replica: slot.replica,
        node,
        node_name: node.map(|node| view.name(node)),
        state: InstanceState::Pending,
        reason,
        address: String::new(),
        restarts: 0,
        since: 0,
        current: true,
        available: false,
        monitor_ms: 0,
        digest: String::new(),
        terminal: false,
        ended: false,
        cpu_millis: None,
        memory_bytes: None,
    }
}

/// Returns a row for every service.
pub fn services(view: &View) -> Vec<ServiceRow> {
    services_with(view, &instances(view))
}

/// As [`services`], with the rows of all instances.
fn services_with(view: &View, instances: &[InstanceRow]) -> Vec<ServiceRow> {
    // An old instance serves until its successor does; during a start-first update there are two.
    let count = |service: &ServiceKey, fits: &dyn Fn(&InstanceRow) -> bool| {
        let rows = instances.iter().filter(|row| row.service == *service && fits(row));
        let serving: BTreeSet<u32> = rows.map(|row| row.replica).collect();
        let has_slot =
            |&&replica: &&u32| view.plan.has_slot(&Slot { service: service.clone(), replica });
        u32::try_from(serving.iter().filter(has_slot).count()).unwrap_or(u32::MAX)
    };
    let is_scheduled =
        |service: &ServiceKey| view.spec(service).is_some_and(|spec| spec.schedule.is_some());
    let runs = |service: &ServiceKey, success: bool| {
        // Those of a schedule are not counted: there is no number of them to reach.
        let ends = view.runs.of_service(service).filter_map(|(_, run)| run.record.end.as_ref());
        let ended = ends.filter(|end| end.is_success() == success && !is_scheduled(service));
        u32::try_from(ended.count()).unwrap_or(u32::MAX)
    };
    let row = |(key, record): (&ServiceKey, &Stored<vc_crdt::ServiceRecord>)| {
        let spec = view.spec(key).unwrap_or(&record.spec);
        let checked = spec.container.has_healthcheck();
        // The image may have one that the spec does not say.
        let is_checked = |row: &InstanceRow| {
            matches!(row.state, InstanceState::Healthy | InstanceState::Unhealthy)
        };
        let versions = history::versions(view, key);
        let mut rollout = Rollout::of(view, key).map(|it| it.report()).unwrap_or_default();
        if let Some(leads_to) = versions.last().filter(|_| rollout.state != RolloutState::Complete)
        {
            rollout.version = leads_to.number;
            rollout.image = record.spec.container.image.clone();
        }
        ServiceRow {
            service: key.clone(),
            project: key.project.clone(),
            image: spec.container.image.clone(),
            version: history::in_effect(&versions).map_or(0, |it| it.number),
            mode: spec.mode,
            replicas: view.replicas(key),
            succeeded: runs(key, true),
            failed: runs(key, false),
            running: count(key, &|row| row.state.is_running()),
            healthy: count(key, &|row| match row.state {
                InstanceState::Healthy => true,
                InstanceState::Running => !checked || !row.current,
                _ => false,
            }),
            has_healthcheck: checked || count(key, &is_checked) > 0,
            on_partition: partition::behaviour(spec),
            on_partition_effect: partition::effect(spec),
            revision: record.revision,
            updated: record.updated,
            ports: spec.ports.iter().map(ToString::to_string).collect(),
            host_ports: host_ports(view, key, &spec.ports),
            unpublished: unpublished(view, key, &spec.ports),
            rollout,
        }
    };
    view.cluster.services.iter().map(row).collect()
}

/// Returns everything about a service; `None` if it does not exist.
pub fn inspect(view: &View, service: &ServiceKey) -> Option<ServiceDetail> {
    let record = view.cluster.services.get(service)?;
    let row = services(view).into_iter().find(|row| row.service == *service)?;
    let mut instances = instances(view);
    instances.retain(|row| row.service == *service);
    let versions = history::versions(view, service);
    Some(ServiceDetail {
        row,
        deployed_by: record.deployed_by.clone(),
        spec: view.spec(service).unwrap_or(&record.spec).clone(),
        previous: history::rollback_target(&versions).map(|it| it.spec.clone()),
        instances,
    })
}

/// Returns a row for every receiver of alerts.
pub fn receivers(view: &View) -> Vec<ReceiverRow> {
    let row = |(name, receiver): (&Name, &Stored<Receiver>)| {
        let (kind, target) = match &receiver.target {
            ReceiverTarget::Webhook { origin, .. } => ("webhook", format!("{origin}/{MASK}")),
            ReceiverTarget::Command { command } => ("command", command.join(" ")),
        };
        let sender = alerts::sender(view, name, receiver);
        let unsent = |node| view.nodes.get(&node)?.unsent_alerts.get(name).cloned();
        let firing = view.cluster.alerts.keys().filter(|key| key.receiver == *name).count();
        ReceiverRow {
            name: name.clone(),
            kind: kind.to_owned(),
            target,
            format: receiver.format,
            filter: receiver.filter.clone(),
            sender: sender.map(|node| view.name(node)).unwrap_or_default(),
            firing: u32::try_from(firing).unwrap_or(u32::MAX),
            problem: match sender {
                None => "no node that is up may send to it".to_owned(),
                Some(node) => unsent(node).unwrap_or_default(),
            },
            added_by: receiver.added_by.clone(),
            added: receiver.added,
        }
    };
    view.cluster.receivers.iter().map(row).collect()
}

/// Returns a row for every project that has services or a policy.
pub fn projects(view: &View) -> Vec<ProjectRow> {
    let mut rows: BTreeMap<&Name, ProjectRow> = BTreeMap::new();
    let row =
        |project: &Name| ProjectRow { project: project.clone(), services: 0, allowed: Vec::new() };
    for ServiceKey { project, .. } in view.cluster.services.keys() {
        let row = rows.entry(project).or_insert_with(|| row(project));
        row.services = row.services.saturating_add(1);
    }
    for (project, policy) in &view.cluster.projects {
        rows.entry(project).or_insert_with(|| row(project)).allowed = policy.words();
    }
    rows.into_values().collect()
}

/// Returns a row for every token that has not expired by now, the newest first.
pub fn tokens(view: &View, now: Millis) -> Vec<TokenRow> {
    let valid = view.cluster.tokens.iter().filter(|(_, record)| record.expires > now);
    let mut rows: Vec<TokenRow> = valid
        .map(|(id, record)| {
            let (kind, role) = match record.scope {
                Scope::User(role) => ("user", role.as_str()),
                Scope::Join(role) | Scope::Member(role) | Scope::Former(role) => {
                    ("node", role.as_str())
                }
                // Never listed.
                Scope::Signing(_) => ("signing key", ""),
            };
            TokenRow {
                id: id.clone(),
                kind: kind.to_owned(),
                name: record.name.clone(),
                role: role.to_owned(),
                created_by: record.issued_by.clone(),
                created: record.issued,
                expires: record.expires,
                revoked: view.cluster.is_revoked(id, &record.name, record.issued),
                projects: record.limits.projects.clone(),
                logs: matches!(record.scope, Scope::User(role) if record.limits.may_read_logs(role)),
                uses_left: record.uses.map(|uses| {
                    let used = u32::try_from(view.cluster.uses(id)).unwrap_or(u32::MAX);
                    uses.saturating_sub(used)
                }),
            }
        })
        .collect();
    rows.sort_by(|a, b| (b.created, &a.id).cmp(&(a.created, &b.id)));
    rows
}

/// Returns the moves that a rebalance would order now.
pub fn rebalance(view: &View) -> Vec<MoveRow> {
    let row = |Relocation { slot, from, to, reason }| MoveRow {
        service: slot.service,
        replica: slot.replica,
        from: Some(from),
        to: Some(to),
        reason,
    };
    relocations(&view.input, view.rules).into_iter().map(row).collect()
}

/// Returns the resources that the plan reserves on a node.
fn reserved(view: &View, node: NodeId) -> Resources {
    let slots = view.plan.placements.iter().filter(|(_, placement)| placement.node == node);
    slots
        .filter_map(|(slot, _)| view.spec(&slot.service))
        .fold(Resources::default(), |sum, spec| sum.plus(spec.container.reservation))
}

/// Returns what the plan takes on a node of the resources that it counts.
fn generic_reserved(
    view: &View,
    node: NodeId,
    has: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let mut taken: BTreeMap<String, u64> = has.keys().map(|kind| (kind.clone(), 0)).collect();
    let slots = view.plan.placements.iter().filter(|(_, placement)| placement.node == node);
    let services = slots.filter_map(|(slot, _)| view.input.services.get(&slot.service));
    for (kind, need) in services.flat_map(|service| &service.needs) {
        if let (Some(taken), Some(&total)) = (taken.get_mut(kind), has.get(kind)) {
            *taken = taken.saturating_add((*need).min(total));
        }
    }
    taken
}

/// Returns the members that a node reports as unreachable.
fn unreachable(view: &View, by: NodeId) -> Vec<NodeId> {
    view.nodes.keys().copied().filter(|&of| accuses(&view.nodes, by, of)).collect()
}

/// Returns the signing key and the certificates of the nodes that have not left; `None` for a view of documents alone.
pub fn trust(view: &View) -> Option<TrustReport> {
    let SigningKey { epoch, key } = view.trust.signing?;
    let row = |(&id, state): (&NodeId, &NodeState)| {
        let is_present = state.info.as_ref().is_some_and(|info| info.epoch == epoch);
        let certificate = match view.trust.members.contains_key(&id) {
            true if is_present => "present",
            true => "issued",
            false => "missing",
        };
        TrustRow {
            id,
            name: view.name(id),
            role: role(view, id),
            up: view.up.contains(&id),
            certificate: certificate.to_owned(),
        }
    };
    let rotation = match view.cluster.trust.get(&TrustKey::Epoch(epoch)) {
        Some(TrustEntry::Rotation(rotation)) => Some(rotation),
        _ => None,
    };
    Some(TrustReport {
        epoch,
        key,
        rotated: rotation.map(|it| it.rotated),
        rotated_by: rotation.map(|it| it.rotated_by.clone()),
        nodes: view.nodes.iter().map(row).collect(),
    })
}

pub(crate) fn role(view: &View, node: NodeId) -> String {
    match view.servers.contains(&node) {
        false => "worker",
        true if is_witness(view, node) => "witness",
        true => "server",
    }
    .to_owned()
}

/// Returns whether a node is a voter that runs nothing.
pub(crate) fn is_witness(view: &View, node: NodeId) -> bool {
    view.nodes.get(&node).and_then(|state| state.info.as_ref()).is_some_and(|info| info.witness)
}

/// Says that a node holds everything.
fn holds(state: &NodeState) -> Option<String> {
    let version = &state.info.as_ref()?.version;
    state.holds.all.then(|| {
        format!(
            "starts and stops nothing, as its vc-node {version} does not know all of the documents: upgrade it"
        )
    })
}

/// Says what a node cannot start. Names no services: their projects may not be the reader's.
fn faults(state: &NodeState) -> Option<String> {
    match (&state.faults.node, state.faults.services.len()) {
        (Some(fault), _) => Some(format!("starts nothing: {fault}")),
        (None, 0) if state.orphans.is_empty() => None,
        (None, 0) => Some("its host has containers or data of a former node".to_owned()),
        (None, 1) => Some("could not start a service".to_owned()),
        (None, count) => Some(format!("could not start {count} services")),
    }
}

/// Says why the containers of a node cannot reach services by name.
fn no_names(state: &NodeState) -> Option<String> {
    let why = &state.info.as_ref()?.dns_problem;
    (!why.is_empty()).then(|| format!("its containers cannot resolve services: {why}"))
}

/// Returns a row for every node, then for those that have left.
pub fn nodes(view: &View, vitals: &BTreeMap<NodeId, Vitals>) -> Vec<NodeRow> {
    let voters = view.cluster.voter_set();
    let row = |(&id, state): (&NodeId, &NodeState)| {
        let up = view.up.contains(&id);
        let seen = vitals.get(&id).copied().unwrap_or_default();
        let Vitals { usage: used, clock_offset_ms, .. } = if up { seen } else { Vitals::default() };
        let reserved = reserved(view, id);
        let running = state.claims.values().filter(|claim| up && claim.state.is_running()).count();
        let info = state.info.as_ref();
        let capacity = info.map(|info| info.capacity).unwrap_or_default();
        let generic_resources = info.map(|info| info.generic_resources.clone()).unwrap_or_default();
        NodeRow {
            id,
            name: view.name(id),
            state: if up { NodeStatus::Up } else { NodeStatus::Down },
            role: role(view, id),
            votes: voters.is_some_and(|set| set.voters.contains(&id)),
            problem: state
                .runtime_error
                .clone()
                .filter(|_| !is_witness(view, id))
                .or_else(|| holds(state))
                .or_else(|| faults(state))
                .or_else(|| no_names(state))
                .unwrap_or_default(),
            draining: view.cluster.drained.get(&id).copied().unwrap_or(false),
            restarting: up && state.restarting.is_some(),
            down_since: if up { 0 } else { seen.down_since },
            cpu_millis: capacity.cpu_millis,
            memory_bytes: capacity.memory_bytes,
            cpu_reserved: reserved.cpu_millis,
            memory_reserved: reserved.memory_bytes,
            generic_reserved: generic_reserved(view, id, &generic_resources),
            generic_resources,
            cpu_used: used.cpu_millis,
            memory_used: used.memory_bytes,
            disk_bytes: used.disk_bytes,
            disk_used: used.disk_used,
            instances: u32::try_from(running).unwrap_or(u32::MAX),
            runtime: info
                .filter(|info| !info.witness)
                .map(|info| info.runtime.as_str().to_owned())
                .unwrap_or_default(),
            platform: info.map(|info| format!("{}/{}", info.os, info.arch)).unwrap_or_default(),
            addresses: info.map(|info| info.addresses.clone()).unwrap_or_default(),
            labels: info.map(|info| info.labels.clone()).unwrap_or_default(),
            version: info.map(|info| info.version.clone()).unwrap_or_default(),
            unreachable: if up { unreachable(view, id) } else { Vec::new() },
            clock_offset_ms,
            left: 0,
            backups: info.and_then(|info| info.backups.clone()),
        }
    };
    let gone = |(&id, info): (&NodeId, &Option<NodeInfo>)| NodeRow {
        id,
        name: view.name(id),
        state: NodeStatus::Left,
        role: String::new(),
        votes: voters.is_some_and(|set| set.voters.contains(&id)),
        problem: String::new(),
        draining: false,
        restarting: false,
        down_since: 0,
        cpu_millis: 0,
        memory_bytes: 0,
        cpu_reserved: 0,
        memory_reserved: 0,
        generic_resources: BTreeMap::new(),
        generic_reserved: BTreeMap::new(),
        cpu_used: 0,
        memory_used: 0,
        disk_bytes: 0,
        disk_used: 0,
        instances: 0,
        runtime: info.as_ref().map(|it| it.runtime.as_str().to_owned()).unwrap_or_default(),
        platform: info.as_ref().map(|it| format!("{}/{}", it.os, it.arch)).unwrap_or_default(),
        addresses: Vec::new(),
        labels: info.as_ref().map(|it| it.labels.clone()).unwrap_or_default(),
        version: info.as_ref().map(|it| it.version.clone()).unwrap_or_default(),
        unreachable: Vec::new(),
        clock_offset_ms: 0,
        left: view.cluster.left.get(&id).copied().unwrap_or(0),
        backups: None,
    };
    let mut rows: Vec<_> = view.nodes.iter().map(row).chain(view.left.iter().map(gone)).collect();
    let key = |row: &NodeRow| (row.state == NodeStatus::Left, row.name.clone(), row.id);
    rows.sort_by_cached_key(key);
    rows
}

/// Returns a summary of the cluster as `node` sees it, or of its nodes and of what `limited` shows, a part of it; `now` by its
/// wall clock.
pub fn status(
    whole: &View,
    limited: Option<&View>,
    vitals: &BTreeMap<NodeId, Vitals>,
    cluster: ClusterId,
    node: NodeId,
    now: Millis,
) -> StatusReport {
    report(whole, limited, vitals, cluster, node, now).status
}

/// What is known of the cluster at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// A row for every node, as [`nodes`] returns them.
    pub nodes: Vec<NodeRow>,
    /// A row for every service, as [`services`] returns them.
    pub services: Vec<ServiceRow>,
    /// A row for every slot, as [`instances`] returns them, with what they wait for.
    pub instances: Vec<InstanceRow>,
    /// The summary, as [`status`] returns it.
    pub status: StatusReport,
}

/// As [`status`], with the rows that the summary is computed from.
pub fn report(
    whole: &View,
    limited: Option<&View>,
    vitals: &BTreeMap<NodeId, Vitals>,
    cluster: ClusterId,
    node: NodeId,
    now: Millis,
) -> Report {
    let view = limited.unwrap_or(whole);
    let nodes = nodes(whole, vitals);
    let mut instances = instances(view);
    let services = services_with(view, &instances);
    let up = || nodes.iter().filter(|row| row.state == NodeStatus::Up);
    let sum = |of: fn(&NodeRow) -> u64| up().map(of).fold(0, u64::saturating_add);
    name_waits(view, &mut instances, now);
    name_downtimes(&mut instances, &nodes, now);
    let clocks = WallClocks { now, vitals };
    let problems = problems_in(whole, limited, &nodes, &instances, clocks);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (voters, voters_up) = voters::report(whole).reachable();
    let mut status = StatusReport {
        cluster: cluster.to_string(),
        node,
        nodes_up: count(up().count()),
        nodes: count(view.nodes.len()),
        voters: count(voters),
        voters_up: count(voters_up),
        services: count(services.len()),
        // Of a job those count that run: the others have ended, or their turn has not come.
        replicas: services
            .iter()
            .map(|row| if row.mode.is_job() { row.running } else { row.replicas })
            .fold(0, u32::saturating_add),
        running: services.iter().map(|row| row.running).fold(0, u32::saturating_add),
        cpu_millis: sum(|row| row.cpu_millis),
        cpu_reserved: sum(|row| row.cpu_reserved),
        cpu_used: sum(|row| row.cpu_used),
        memory_bytes: sum(|row| row.memory_bytes),
        memory_reserved: sum(|row| row.memory_reserved),
        memory_used: sum(|row| row.memory_used),
        problems: Vec::new(),
        problem_ids: Vec::new(),
        hints: hints(whole).into_iter().chain(voters::hints(whole)).collect(),
    };
    add_problems(&mut status, cluster, problems);
    Report { nodes, services, instances, status }
}

/// Adds problems to a summary, but for those that it has.
pub fn add_problems(
    status: &mut StatusReport,
    cluster: ClusterId,
    problems: impl IntoIterator<Item = Problem>,
) {
    for problem in problems {
        if !status.problems.contains(&problem.text) {
            let id = problem.fingerprint(cluster);
            status.problem_ids.push(ProblemId { kind: problem.kind, id });
            status.problems.push(problem.text);
        }
    }
}

/// Returns the problems that [`status`] lists.
pub fn problems(view: &View, vitals: &BTreeMap<NodeId, Vitals>, now: Millis) -> Vec<Problem> {
    let nodes = nodes(view, vitals);
    let mut instances = instances(view);
    name_waits(view, &mut instances, now);
    name_downtimes(&mut instances, &nodes, now);
    problems_in(view, None, &nodes, &instances, WallClocks { now, vitals })
}

/// How many slots are tried when looking for one that could move.
const MAX_CANDIDATES: usize = 3;

/// Returns what users could do, but need not: a node that has returned, or is new, runs nothing while others run several.
fn hints(view: &View) -> Vec<String> {
    let running = |node: NodeId| view.plan.slots_of(node).count();
    let is_idle = |(id, node): &(&NodeId, &Node)| {
        let able = node.up && !node.draining && node.runtime_error.is_none();
        able && node.faults.is_empty() && !node.holds.all && running(**id) == 0
    };
    let mut hints = Vec::new();
    for (&idle, node) in view.input.nodes.iter().filter(is_idle) {
        let busy = view.input.nodes.keys().filter(|&&other| running(other) > 1);
        let slots = busy.flat_map(|&from| view.plan.slots_of(from).map(move |slot| (from, slot)));
        let movable = slots.filter(|(_, slot)| {
            view.spec(&slot.service).is_some_and(|spec| spec.volumes().next().is_none())
        });
        let moves = |&(from, slot): &(NodeId, &Slot)| {
            let mut input = view.input.clone();
            input.moves.insert(slot.clone(), (from, idle));
            let plan = vc_placement::plan(&input, view.rules);
            plan.placements.get(slot).is_some_and(|placement| placement.node == idle)
        };
        if movable.take(MAX_CANDIDATES).any(|it| moves(&it)) {
            let name = &node.name;
            hints.push(format!(
                "node {name} runs nothing, others run several instances: 'vc rebalance' moves some there"
            ));
        }
    }
    hints
}

/// Returns the plan with these services deployed.
pub fn plan(view: &View, deployments: &[Deployment]) -> PlanReport {
    let Plan { input_digest, placements, unplaced, moves } = view.plan_with(deployments);
    PlanReport {
        input_digest,
        placements: placements
            .into_iter()
            .map(|(slot, placement)| PlacementRow {
                service: slot.service,
                replica: slot.replica,
                node: placement.node,
                node_name: view.name(placement.node),
                reasons: placement.reasons,
            })
            .collect(),
        unplaced: unplaced
            .into_iter()
            .map(|(slot, refusals)| UnplacedRow {
                service: slot.service,
                replica: slot.replica,
                reasons: refusals
                    .into_iter()
                    .map(|refusal| format!("{}: {}", view.name(refusal.node), refusal.reason))
                    .collect(),
            })
            .collect(),
        moves: moves
            .into_iter()
            .map(|change| MoveRow {
                service: change.slot.service,
                replica: change.slot.replica,
                from: change.from,
                to: change.to,
                reason: change.reason,
            })
            .collect(),
    }
}
