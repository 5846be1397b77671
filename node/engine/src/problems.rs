//! The problems of the cluster, for people: one line each, which says what to do where that is not plain.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{Receiver, View};
use vc_protocol::alert::ProblemKind;
use vc_protocol::control::{InstanceRow, NodeRow, NodeStatus, RolloutState, RunRow, RunState};
use vc_protocol::instance::InstanceState;
use vc_protocol::node::{MAX_NODE_PROBLEMS, NodeInfo, NodeProblem, Orphans};
use vc_protocol::spec::{Attribute, split_port_of_address};
use vc_protocol::{Millis, Name, ServiceKey, Slot, Stored, Supports};

use crate::downtime::downtime;
use crate::interface::WallClocks;
use crate::problem::Problem;
use crate::rollout::Rollout;
use crate::routes::{Clash, Routes};
use crate::{alerts, history, job_report, volume_report, voters};

/// Returns the problems with these rows: of all, or of the nodes and of what `limited` shows, a part of the view.
pub(crate) fn problems(
    whole: &View,
    limited: Option<&View>,
    nodes: &[NodeRow],
    instances: &[InstanceRow],
    clocks: WallClocks<'_>,
) -> Vec<Problem> {
    let (view, now) = (limited.unwrap_or(whole), clocks.now);
    let mut problems = Vec::new();
    // Those have lines of their own.
    let has_faulty_services = |row: &NodeRow| {
        let faults = whole.nodes.get(&row.id).map(|state| &state.faults);
        let orphans = whole.nodes.get(&row.id).is_some_and(|state| !state.orphans.is_empty());
        faults.is_some_and(|it| it.node.is_none() && (orphans || !it.services.is_empty()))
    };
    for row in nodes {
        if row.state == NodeStatus::Down {
            let time = downtime(row, now).map(|time| format!(" for {time}")).unwrap_or_default();
            let text = format!("node {} is down{time}", row.name);
            problems.push(Problem::new(ProblemKind::NodeDown, text).of_row(row));
        } else if row.restarting {
            let text = format!("node {} is restarting", row.name);
            problems.push(Problem::new(ProblemKind::NodeRestarting, text).of_row(row));
        } else if !row.problem.is_empty() && !has_faulty_services(row) {
            let text = format!("node {}: {}", row.name, row.problem);
            problems.push(Problem::new(ProblemKind::NodeProblem, text).of_row(row));
        }
        if row.is_disk_low() {
            problems.push(Problem::new(ProblemKind::Disk, disk_problem(row)).of_row(row));
        }
        if row.clock_offset_ms != 0 {
            problems.push(Problem::new(ProblemKind::Clock, clock_problem(row)).of_row(row));
        }
        if let Some(trouble) = row.backups.as_ref().and_then(|it| it.trouble(now)) {
            let text = format!("backups on {}: {trouble}", row.name);
            problems.push(Problem::new(ProblemKind::Backup, text).of_row(row));
        }
    }
    problems.extend(seen_by_one(whole));
    let is_problem = |row: &&InstanceRow| {
        let waits = row.state == InstanceState::Pending && !row.reason.is_empty();
        waits || matches!(row.state, InstanceState::Failed | InstanceState::Unhealthy)
    };
    // Of a schedule the last run counts; the rows of earlier ones stay for their logs.
    let is_old = |row: &InstanceRow| {
        row.ended && view.spec(&row.service).is_some_and(|spec| spec.schedule.is_some())
    };
    problems.extend(failed_schedules(view));
    let instances_now = instances.iter().filter(|row| !is_old(row));
    problems.extend(instances_now.filter(is_problem).map(|row| {
        let text =
            format!("{}.{} is {}: {}", row.service, row.replica, row.state.as_str(), row.reason);
        let kind = match row.node {
            None => ProblemKind::Unplaced,
            Some(_) => ProblemKind::Instance,
        };
        let slot = Slot { service: row.service.clone(), replica: row.replica };
        Problem::new(kind, text).of_slot(&slot)
    }));
    problems.extend(same_names(nodes));
    problems.extend(no_node_takes_instances(nodes));
    problems.extend(ambiguous_pins(view, nodes));
    problems.extend(cannot_start(view));
    problems.extend(orphans(view));
    problems.extend(failed_updates(view));
    problems.extend(hanging(view, instances, now));
    problems.extend(instances.iter().filter_map(|row| restarts(row, now)));
    problems.extend(unpublished(whole, limited));
    let lease = voters::problems(whole, limited);
    problems.extend(lease.map(|text| Problem::new(ProblemKind::Lease, text)));
    problems.extend(volume_report::problems(view, clocks));
    problems.extend(held(view));
    problems.extend(older(whole));
    problems.extend(failed_upgrades(whole));
    problems.extend(uncertified(whole));
    if limited.is_none() {
        problems.extend(unsent_alerts(whole));
    }
    problems
}

/// Returns what single processes of nodes that are up have seen, each once: several may have seen two processes with one identity.
fn seen_by_one(view: &View) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for (id, state) in view.nodes.iter().filter(|(id, _)| view.up.contains(id)) {
        // A member cannot say of another what that alone sees.
        let may_say = |seen: &&NodeProblem| match seen.kind {
            ProblemKind::Audit | ProblemKind::Watchdog => seen.node == *id,
            kind => kind == ProblemKind::Duplicate,
        };
        let seen = state.info.iter().flat_map(|info| &info.problems).take(MAX_NODE_PROBLEMS);
        for problem in seen.filter(may_say).map(|seen| Problem::of_process(view, seen)) {
            if !problems.iter().any(|it| it.is_same(&problem)) {
                problems.push(problem);
            }
        }
    }
    problems
}

/// Returns a line for each scheduled service whose last run failed, or was left out.
fn failed_schedules(view: &View) -> Vec<Problem> {
    let scheduled = view.cluster.services.iter().filter(|(_, it)| it.spec.schedule.is_some());
    let last = scheduled.filter_map(|(key, _)| {
        let is_over = |row: &RunRow| {
            !matches!(row.state, RunState::Pending | RunState::Running | RunState::Skipped)
        };
        let last = job_report::runs(view, key).into_iter().find(is_over)?;
        let is_bad = matches!(last.state, RunState::Failed | RunState::Missed | RunState::Unknown);
        is_bad.then(|| {
            let what = match last.state {
                RunState::Failed => "failed",
                RunState::Missed => "was missed",
                _ => "may be lost",
            };
            let text = format!("the last run of {key} {what}: {}", last.reason);
            Problem::new(ProblemKind::Run, text).of_service(key)
        })
    });
    last.collect()
}

/// Says how little of a node's disk is free.
fn disk_problem(row: &NodeRow) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let free = mib(row.disk_bytes.saturating_sub(row.disk_used));
    let total = mib(row.disk_bytes);
    format!("the disk of node {} is almost full: {free} of {total} MiB free", row.name)
}

/// Says how far the clock of a node is off.
fn clock_problem(row: &NodeRow) -> String {
    let seconds = row.clock_offset_ms / 1000;
    let way = if seconds > 0 { "ahead of" } else { "behind" };
    format!(
        "the clock of node {} is {} s {way} that of this node: set the clock that is wrong",
        row.name,
        seconds.abs()
    )
}

/// Returns a line for what each former node has left on a host.
fn orphans(view: &View) -> Vec<Problem> {
    let up = view.nodes.iter().filter(|(node, _)| view.up.contains(node));
    let all = up.flat_map(|(&at, state)| state.orphans.iter().map(move |it| (at, it)));
    all.filter(|(_, (_, left))| left.containers > 0 || !left.volumes.is_empty())
        .map(|(at, (&former, Orphans { containers, volumes }))| {
            let containers = match containers {
                0 => None,
                1 => Some("a container".to_owned()),
                count => Some(format!("{count} containers")),
            };
            let volumes: Vec<String> = volumes.iter().map(ToString::to_string).collect();
            let volumes = (!volumes.is_empty()).then(|| format!("data of {}", volumes.join(", ")));
            let left: Vec<String> = containers.into_iter().chain(volumes).collect();
            let (left, host, id) = (left.join(" and "), view.name(at), former.short());
            let way = match view.nodes.contains_key(&former) {
                true => format!("if that node is gone for good: 'vc leave {id} --force', then 'vc node adopt {id}'"),
                false => format!("'vc node adopt {id}' takes it over, with --stop only ends it"),
            };
            let text = format!("{left} of node {} ({id}) is on the host of {host}, where no node manages it: {way}", view.name(former));
            Problem::new(ProblemKind::Orphans, text).of_node(view, at).with("former", former.to_string())
        })
        .collect()
}

/// After this time an instance that starts, or is not available, hangs.
const HANGS: Millis = 5 * 60_000;
/// After this time an update that goes on says so.
const LONG_UPDATE: Millis = 15 * 60_000;

/// From so many restarts on, an instance that was just restarted again does not stay up by itself.
const MANY_RESTARTS: u32 = 3;
/// For this time a restart counts as just now: longer than the pauses between restarts.
const JUST_NOW: Millis = 2 * 60_000;

/// Returns a line for an instance that runs just now, and ends again and again: while it runs, its state says nothing of it.
fn restarts(row: &InstanceRow, now: Millis) -> Option<Problem> {
    let InstanceRow { service, replica, restarts, .. } = row;
    let runs = matches!(row.state, InstanceState::Running | InstanceState::Healthy);
    if !runs || *restarts < MANY_RESTARTS || now >= row.since.saturating_add(JUST_NOW) {
        return None;
    }
    let seconds = now.saturating_sub(row.since) / 1000;
    let text = format!(
        "{service}.{replica} was restarted {restarts} times, the last time {seconds} s ago: see 'vc events' and \
         'vc logs {service}.{replica}'"
    );
    let slot = Slot { service: service.clone(), replica: *replica };
    Some(Problem::new(ProblemKind::Instance, text).of_slot(&slot))
}

/// Returns the names that several nodes have, with their nodes.
fn shared_names(nodes: &[NodeRow]) -> BTreeMap<String, Vec<&NodeRow>> {
    let mut names: BTreeMap<String, Vec<&NodeRow>> = BTreeMap::new();
    for row in nodes.iter().filter(|row| row.state != NodeStatus::Left) {
        names.entry(row.name.to_ascii_lowercase()).or_default().push(row);
    }
    names.retain(|_, rows| rows.len() > 1);
    names
}

/// Returns a line if nothing can be placed, as all nodes that are up are being drained.
fn no_node_takes_instances(nodes: &[NodeRow]) -> Option<Problem> {
    let runs_instances = |row: &&NodeRow| row.state == NodeStatus::Up && row.role != "witness";
    let mut up = nodes.iter().filter(runs_instances).peekable();
    up.peek()?;
    let text = "every node that is up is drained, so nothing is started: 'vc undrain NODE'";
    up.all(|row| row.draining).then(|| Problem::new(ProblemKind::NodeProblem, text.to_owned()))
}

/// Returns a line for each name that several nodes have.
fn same_names(nodes: &[NodeRow]) -> Vec<Problem> {
    let line = |(name, rows): (String, Vec<&NodeRow>)| {
        let ids: Vec<String> = rows.iter().map(|row| row.id.short()).collect();
        let count = rows.len();
        let text = format!(
            "{count} nodes are called {name} ({}): start one with another --name, or remove one that is gone for good with \
             'vc leave ID --force'",
            ids.join(", ")
        );
        Problem::new(ProblemKind::Name, text).with("name", name)
    };
    shared_names(nodes).into_iter().map(line).collect()
}

/// Returns a line for each service that is pinned to a name that several nodes have.
fn ambiguous_pins(view: &View, nodes: &[NodeRow]) -> Vec<Problem> {
    let names = shared_names(nodes);
    let pin = |service: &ServiceKey| {
        let constraints = &view.spec(service)?.constraints;
        let pins = constraints.iter().filter(|it| it.attribute == Attribute::Name && it.equal);
        pins.map(|it| &it.value).find(|value| names.contains_key(&value.to_ascii_lowercase()))
    };
    let services = view.cluster.services.keys();
    let pinned = services.filter_map(|service| Some((service, pin(service)?)));
    pinned
        .map(|(service, name)| {
            let text = format!("{service} is pinned to node.name == {name}, which fits several nodes: pin it to node.id");
            Problem::new(ProblemKind::Name, text).of_service(service)
        })
        .collect()
}

/// Returns a line for each instance that has been starting, and each update that has gone on, for too long.
fn hanging(view: &View, instances: &[InstanceRow], now: Millis) -> Vec<Problem> {
    let minutes = |since: Millis| now.saturating_sub(since) / 60_000;
    let starts = |row: &&InstanceRow| {
        let waits = matches!(row.state, InstanceState::Starting | InstanceState::Pulling);
        waits && row.since > 0 && now >= row.since.saturating_add(HANGS)
    };
    let instance = |row: &InstanceRow| {
        let (service, replica, state) = (&row.service, row.replica, row.state.as_str());
        let node = row.node_name.as_deref().unwrap_or_default();
        let minutes = minutes(row.since);
        let text = format!("{service}.{replica} has been {state} on {node} for {minutes} min");
        let slot = Slot { service: service.clone(), replica };
        Problem::new(ProblemKind::Instance, text).of_slot(&slot)
    };
    let mut problems: Vec<Problem> = instances.iter().filter(starts).map(instance).collect();
    for (service, record) in &view.cluster.services {
        let is_updating = || {
            let rollout = Rollout::of(view, service);
            rollout.is_some_and(|it| it.state == RolloutState::Updating)
        };
        if now >= record.updated.saturating_add(LONG_UPDATE) && is_updating() {
            let minutes = minutes(record.updated);
            let text = format!(
                "the update of {service} has not ended after {minutes} min: see 'vc ps {service}'; 'vc rollback {service}' takes \
                 it back"
            );
            problems.push(Problem::new(ProblemKind::Update, text).of_service(service));
        }
    }
    problems
}

/// Returns a line for each update that failed, until the next deployment. What an instance wrote is last, where it can be removed.
fn failed_updates(view: &View) -> Vec<Problem> {
    // The instances of a job that has failed have lines of their own.
    let services = view.cluster.services.iter().filter(|(_, it)| !it.spec.mode.is_job());
    let line = |(service, _): (&ServiceKey, _)| {
        let report = Rollout::of(view, service)?.report();
        let versions = history::versions(view, service);
        let (goal, runs) = (versions.last()?.number, history::in_effect(&versions)?.number);
        let ended = match report.state {
            RolloutState::Complete | RolloutState::Updating => return None,
            RolloutState::Paused => format!(
                "the update of {service} to version {goal} has failed and is paused: deploy it mended, or \
                 'vc rollback {service}'"
            ),
            RolloutState::RolledBack if goal == runs => {
                format!(
                    "the restart of {service} has failed and was taken back: see 'vc ps {service}'"
                )
            }
            RolloutState::RolledBack => format!(
                "the update of {service} to version {goal} has failed and version {runs} runs: see 'vc history {service}', and \
                 deploy it mended"
            ),
        };
        let reason = &report.reason;
        let text = if reason.is_empty() { ended } else { format!("{ended}: {reason}") };
        Some(Problem::new(ProblemKind::Update, text).of_service(service))
    };
    services.filter_map(line).collect()
}

/// Returns a line for each reason for which a node could not start services that others run instead, if they can.
fn cannot_start(view: &View) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (&node, state) in view.nodes.iter().filter(|(node, _)| view.up.contains(node)) {
        let mut by_reason: BTreeMap<&str, Vec<&ServiceKey>> = BTreeMap::new();
        for (service, reason) in &state.faults.services {
            by_reason.entry(reason).or_default().push(service);
        }
        problems.extend(by_reason.into_iter().map(|(reason, services)| {
            let others = match services.len() - 1 {
                0 => String::new(),
                1 => " and another service".to_owned(),
                count => format!(" and {count} other services"),
            };
            let name = view.name(node);
            let text = format!("node {name} could not start {}{others}: {reason}", services[0]);
            let problem = Problem::new(ProblemKind::NodeProblem, text).of_node(view, node);
            problem.of_service(services[0])
        }));
    }
    problems
}

/// Returns a line for each node whose version keeps the others from using what they support.
fn older(view: &View) -> Vec<Problem> {
    let infos = || view.nodes.iter().filter_map(|(&id, state)| Some((id, state.info.as_ref()?)));
    let newest = infos().fold(Supports::default(), |newest, (_, info)| newest_of(newest, info));
    let older = infos().filter(|(_, info)| info.supports.and(newest) != newest);
    older
        .map(|(id, info)| {
            let text = format!(
                "node {} runs vc-node {}, others a newer one: upgrade it",
                info.name, info.version
            );
            Problem::new(ProblemKind::Upgrade, text).of_node(view, id)
        })
        .collect()
}

/// Returns a line for each node that went back from an upgrade at its start.
fn failed_upgrades(view: &View) -> impl Iterator<Item = Problem> {
    let infos = view.nodes.iter().filter_map(|(&id, state)| Some((id, state.info.as_ref()?)));
    let failed = infos.filter(|(_, info)| !info.failed_upgrade.is_empty());
    failed.map(|(id, info)| {
        let text = format!("node {}: {}", info.name, info.failed_upgrade);
        Problem::new(ProblemKind::Upgrade, text).of_node(view, id).with("upgrade", "failed")
    })
}

/// Returns what a node supports, or others do.
fn newest_of(newest: Supports, NodeInfo { supports, .. }: &NodeInfo) -> Supports {
    Supports {
        schema: newest.schema.max(supports.schema),
        plan: newest.plan.max(supports.plan),
        prepares: newest.prepares || supports.prepares,
        volumes: newest.volumes || supports.volumes,
        forgets: newest.forgets || supports.forgets,
    }
}

/// Returns a line for each node that is up and has no certificate of the present signing key yet.
fn uncertified(view: &View) -> Vec<Problem> {
    let epoch = view.trust.epoch();
    let up = view.nodes.iter().filter(|(node, _)| view.up.contains(node));
    let infos = up.filter_map(|(&id, state)| Some((id, state.info.as_ref()?)));
    infos
        .filter(|(_, info)| info.epoch < epoch)
        .map(|(id, info)| {
            let text = format!(
                "node {} has no certificate of the present signing key: see 'vc trust'; a server that is up issues it",
                info.name
            );
            Problem::new(ProblemKind::Certificate, text).of_node(view, id)
        })
        .collect()
}

/// Returns a line for each receiver of alerts that gets none: the node that sends to it cannot reach it, or no node may.
fn unsent_alerts(view: &View) -> Vec<Problem> {
    let unsent = |(name, receiver): (&Name, &Stored<Receiver>)| {
        let text = match alerts::sender(view, name, receiver) {
            None => format!(
                "no node sends alerts to {name}: 'vc-node run --allow-notify-commands' on a server lets it run commands"
            ),
            Some(node) => {
                let why = view.nodes.get(&node)?.unsent_alerts.get(name)?;
                format!("alerts do not reach {name} from {}: {why}", view.name(node))
            }
        };
        Some(Problem::new(ProblemKind::Notification, text).with("receiver", name.as_str()))
    };
    view.cluster.receivers.iter().filter_map(unsent).collect()
}

/// Returns a line for what this node holds, because its version does not know all of it.
fn held(view: &View) -> Vec<Problem> {
    let upgrade = "this node neither starts nor stops it: upgrade vc-node here";
    // Its document says so of everything.
    if !view.held.documents.is_empty() {
        return Vec::new();
    }
    let line = |(key, reason): (&ServiceKey, &String)| {
        Problem::new(ProblemKind::Held, format!("{key} {reason}; {upgrade}")).of_service(key)
    };
    view.held.services.iter().map(line).collect()
}

/// Returns a line for every service that refuses connections, and for every port that cannot be published.
fn unpublished(whole: &View, limited: Option<&View>) -> Vec<Problem> {
    // Conflicts show in the whole view; what has the port is named to those who may see it.
    let routes = Routes::of(whole);
    let shows = |service: &ServiceKey| {
        limited.is_none_or(|view| view.cluster.services.contains_key(service))
    };
    let clash = |Clash { wanted, held_by }: &Clash| {
        let (port, service) = (wanted.port.name(), &wanted.service);
        let held_by = match shows(held_by) {
            true => held_by.to_string(),
            false => "a service of another project".to_owned(),
        };
        let text = format!(
            "port {port} of {service} is not published: {held_by} was deployed earlier and publishes it"
        );
        Problem::new(ProblemKind::Port, text).of_service(service).with("port", port)
    };
    let unhealthy = routes.services.iter().filter(|(key, it)| it.is_unhealthy && shows(key));
    let unhealthy = unhealthy.map(|(key, _)| {
        let text = format!("{key} refuses connections: the healthchecks of all its instances fail");
        Problem::new(ProblemKind::Port, text).of_service(key)
    });
    let mut problems: Vec<Problem> = unhealthy.collect();
    let clashes = routes.clashes.iter().filter(|it| shows(&it.wanted.service));
    problems.extend(clashes.map(clash));
    let publishing = |port: &str| {
        let published = routes.ports.values().flatten().filter(|it| shows(&it.service));
        let services = published.filter(|it| it.port.name() == *port);
        let services: BTreeSet<String> = services.map(|it| it.service.to_string()).collect();
        // The service may be removed by now.
        (!services.is_empty()).then(|| services.into_iter().collect::<Vec<_>>().join(" and "))
    };
    let up = || whole.nodes.iter().filter(|(node, _)| whole.up.contains(node));
    let mut absent = BTreeMap::new();
    for (&node, state) in up() {
        for (name, why) in &state.ports {
            let (port, address) = split_port_of_address(name);
            let Some(services) = publishing(port) else { continue };
            let Some(address) = address else {
                // The process that has it may be one of another project.
                let why = if limited.is_some() { "it is taken there" } else { why };
                let name = whole.name(node);
                let text = format!("port {port} of {services} is not published on {name}: {why}");
                let problem = Problem::new(ProblemKind::Port, text).of_node(whole, node);
                problems.push(problem.with("port", port));
                continue;
            };
            // One node is enough that has the address.
            if up().all(|(_, state)| state.ports.contains_key(name)) {
                let text = format!(
                    "port {port} of {services} is not published at {address}: no node has this address"
                );
                absent
                    .insert(name.clone(), Problem::new(ProblemKind::Port, text).with("port", name));
            }
        }
    }
    problems.extend(absent.into_values());
    problems
}

#[cfg(test)]
mod tests {
    use vc_crdt::{ClusterState, KnownVersions, NodeState};
    use vc_protocol::node::ScheduledBackups;
    use vc_protocol::{ClusterId, Keypair, NodeId};

    use super::*;
    use crate::report;

    #[test]
    fn backups_that_fail_or_are_overdue_are_a_problem() {
        let backups = |taken, problem: &str| {
            let problem = problem.to_owned();
            ScheduledBackups { every: 3_600_000, taken, size: 1, problem }
        };
        for (taken, problem, expected) in [
            (1, "the disk is full", Some("the last backup failed: the disk is full")),
            (1, "", Some("the newest backup is 3 h old, and there should be one every 1 h")),
            (3 * 3_600_000, "", None),
            (u64::MAX, "", None),
            (0, "", None),
        ] {
            let trouble = backups(taken, problem).trouble(3 * 3_600_000 + 1);
            assert_eq!(trouble.as_deref(), expected, "{taken} {problem}");
        }
        let mut info = NodeInfo::for_tests("attic");
        info.backups = Some(backups(1, "the disk is full"));
        let problems = problems_of(ClusterState::default(), info);
        let expected = "backups on attic: the last backup failed: the disk is full";
        assert!(problems.iter().any(|it| it == expected), "{problems:?}");
    }

    fn key() -> Keypair {
        Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes")
    }

    fn own() -> NodeId {
        NodeId::of(&key().public()).expect("ed25519")
    }

    /// Returns the problems of a cluster of one node.
    fn problems_of(cluster: ClusterState, info: NodeInfo) -> Vec<String> {
        let state = NodeState {
            incarnation: 1,
            observed: BTreeSet::from([own()]),
            info: Some(info),
            ..NodeState::default()
        };
        let nodes = BTreeMap::from([(own(), state)]);
        let view = View::from_states(cluster, nodes, &KnownVersions::default());
        let id = ClusterId::of(&key().public()).expect("ed25519");
        report::status(&view, None, &BTreeMap::new(), id, own(), 1).problems
    }

    #[test]
    fn an_instance_that_ends_again_and_again_is_a_problem_also_while_it_runs() {
        let row = |restarts, state| InstanceRow {
            service: "shop/web".parse().expect("a service"),
            replica: 2,
            node: None,
            node_name: None,
            state,
            reason: String::new(),
            address: String::new(),
            restarts,
            since: 60_000,
            current: true,
            available: false,
            monitor_ms: 0,
            digest: String::new(),
            terminal: false,
            ended: false,
            cpu_millis: None,
            memory_bytes: None,
        };
        let line = |restarts, state, now| Some(super::restarts(&row(restarts, state), now)?.text);
        let expected = "shop/web.2 was restarted 7 times, the last time 20 s ago: see 'vc events' and 'vc logs shop/web.2'";
        assert_eq!(line(7, InstanceState::Running, 80_000).as_deref(), Some(expected));
        assert_eq!(line(7, InstanceState::Running, 60_000 + JUST_NOW), None);
        assert_eq!(line(2, InstanceState::Running, 80_000), None);
        assert_eq!(line(7, InstanceState::Failed, 80_000), None, "its reason is a problem");
    }

    #[test]
    fn a_node_whose_containers_cannot_resolve_services_is_a_problem() {
        let mut info = NodeInfo::for_tests("attic");
        info.dns_problem = "'iptables' not found on this host: install iptables".to_owned();
        let problems = problems_of(ClusterState::default(), info);
        let expected = "node attic: its containers cannot resolve services: 'iptables' not found on this host: install iptables";
        assert!(problems.iter().any(|it| it == expected), "{problems:?}");
    }

    #[test]
    fn what_one_process_sees_is_a_problem_to_all_and_once() {
        let mut info = NodeInfo::for_tests("attic");
        let audit = NodeProblem {
            kind: ProblemKind::Audit,
            node: own(),
            text: "the audit log of attic is not kept: no space".to_owned(),
        };
        let other = NodeId::of(&Keypair::ed25519_from_bytes([2; 32]).expect("32 bytes").public());
        let forged = NodeProblem { node: other.expect("ed25519"), ..audit.clone() };
        info.problems = vec![audit.clone(), audit, forged];
        let problems = problems_of(ClusterState::default(), info);
        let about = problems.iter().filter(|it| it.contains("audit log of attic")).count();
        assert_eq!(about, 1, "{problems:?}");
    }

    #[test]
    fn where_all_nodes_are_drained_the_way_out_is_said() {
        let said = |drained| {
            let cluster =
                ClusterState { drained: [(own(), drained)].into(), ..ClusterState::default() };
            let problems = problems_of(cluster, NodeInfo::for_tests("attic"));
            problems.iter().any(|it| it.starts_with("every node that is up is drained"))
        };
        assert!(said(true) && !said(false));
    }
}
