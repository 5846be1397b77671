//! The problems of the cluster, for people: one line each, which says what to do where that is not plain.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::View;
use vc_protocol::control::{InstanceRow, NodeRow, NodeStatus, RolloutState, RunRow, RunState};
use vc_protocol::instance::InstanceState;
use vc_protocol::node::{NodeInfo, Orphans};
use vc_protocol::spec::{Attribute, split_port_of_address};
use vc_protocol::{Millis, ServiceKey, Supports};

use crate::downtime::downtime;
use crate::interface::WallClocks;
use crate::rollout::Rollout;
use crate::routes::{Clash, Routes};
use crate::{history, job_report, volume_report, voters};

/// Returns the problems with these rows: of all, or of the nodes and of what `limited` shows, a part of the view.
pub(crate) fn problems(
    whole: &View,
    limited: Option<&View>,
    nodes: &[NodeRow],
    instances: &[InstanceRow],
    clocks: WallClocks<'_>,
) -> Vec<String> {
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
            problems.push(format!("node {} is down{time}", row.name));
        } else if row.restarting {
            problems.push(format!("node {} is restarting", row.name));
        } else if !row.problem.is_empty() && !has_faulty_services(row) {
            problems.push(format!("node {}: {}", row.name, row.problem));
        }
        if row.is_disk_low() {
            problems.push(disk_problem(row));
        }
        if row.clock_offset_ms != 0 {
            problems.push(clock_problem(row));
        }
    }
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
        format!("{}.{} is {}: {}", row.service, row.replica, row.state.as_str(), row.reason)
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
    problems.extend(voters::problems(whole, limited));
    problems.extend(volume_report::problems(view, clocks));
    problems.extend(held(view));
    problems.extend(older(whole));
    problems
}

/// Returns a line for each scheduled service whose last run failed, or was left out.
fn failed_schedules(view: &View) -> Vec<String> {
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
            format!("the last run of {key} {what}: {}", last.reason)
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
fn orphans(view: &View) -> Vec<String> {
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
            format!("{left} of node {} ({id}) is on the host of {host}, where no node manages it: {way}", view.name(former))
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
fn restarts(row: &InstanceRow, now: Millis) -> Option<String> {
    let InstanceRow { service, replica, restarts, .. } = row;
    let runs = matches!(row.state, InstanceState::Running | InstanceState::Healthy);
    if !runs || *restarts < MANY_RESTARTS || now >= row.since.saturating_add(JUST_NOW) {
        return None;
    }
    let seconds = now.saturating_sub(row.since) / 1000;
    Some(format!(
        "{service}.{replica} was restarted {restarts} times, the last time {seconds} s ago: see 'vc events' and \
         'vc logs {service}.{replica}'"
    ))
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
fn no_node_takes_instances(nodes: &[NodeRow]) -> Option<String> {
    let runs_instances = |row: &&NodeRow| row.state == NodeStatus::Up && row.role != "witness";
    let mut up = nodes.iter().filter(runs_instances).peekable();
    up.peek()?;
    up.all(|row| row.draining).then(|| {
        "every node that is up is drained, so nothing is started: 'vc undrain NODE'".to_owned()
    })
}

/// Returns a line for each name that several nodes have.
fn same_names(nodes: &[NodeRow]) -> Vec<String> {
    let line = |(name, rows): (String, Vec<&NodeRow>)| {
        let ids: Vec<String> = rows.iter().map(|row| row.id.short()).collect();
        let count = rows.len();
        format!(
            "{count} nodes are called {name} ({}): start one with another --name, or remove one that is gone for good with \
             'vc leave ID --force'",
            ids.join(", ")
        )
    };
    shared_names(nodes).into_iter().map(line).collect()
}

/// Returns a line for each service that is pinned to a name that several nodes have.
fn ambiguous_pins(view: &View, nodes: &[NodeRow]) -> Vec<String> {
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
            format!("{service} is pinned to node.name == {name}, which fits several nodes: pin it to node.id")
        })
        .collect()
}

/// Returns a line for each instance that has been starting, and each update that has gone on, for too long.
fn hanging(view: &View, instances: &[InstanceRow], now: Millis) -> Vec<String> {
    let minutes = |since: Millis| now.saturating_sub(since) / 60_000;
    let starts = |row: &&InstanceRow| {
        let waits = matches!(row.state, InstanceState::Starting | InstanceState::Pulling);
        waits && row.since > 0 && now >= row.since.saturating_add(HANGS)
    };
    let instance = |row: &InstanceRow| {
        let (service, replica, state) = (&row.service, row.replica, row.state.as_str());
        let node = row.node_name.as_deref().unwrap_or_default();
        let minutes = minutes(row.since);
        format!("{service}.{replica} has been {state} on {node} for {minutes} min")
    };
    let mut problems: Vec<String> = instances.iter().filter(starts).map(instance).collect();
    for (service, record) in &view.cluster.services {
        let is_updating = || {
            let rollout = Rollout::of(view, service);
            rollout.is_some_and(|it| it.state == RolloutState::Updating)
        };
        if now >= record.updated.saturating_add(LONG_UPDATE) && is_updating() {
            let minutes = minutes(record.updated);
            problems.push(format!(
                "the update of {service} has not ended after {minutes} min: see 'vc ps {service}'; 'vc rollback {service}' takes \
                 it back"
            ));
        }
    }
    problems
}

/// Returns a line for each update that failed, until the next deployment. What an instance wrote is last, where it can be removed.
fn failed_updates(view: &View) -> Vec<String> {
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
        Some(if report.reason.is_empty() { ended } else { format!("{ended}: {}", report.reason) })
    };
    services.filter_map(line).collect()
}

/// Returns a line for each reason for which a node could not start services that others run instead, if they can.
fn cannot_start(view: &View) -> Vec<String> {
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
            let node = view.name(node);
            format!("node {node} could not start {}{others}: {reason}", services[0])
        }));
    }
    problems
}

/// Returns a line for each node whose version keeps the others from using what they support.
fn older(view: &View) -> Vec<String> {
    let infos = || view.nodes.values().filter_map(|state| state.info.as_ref());
    let newest = infos().fold(Supports::default(), |newest, NodeInfo { supports, .. }| Supports {
        schema: newest.schema.max(supports.schema),
        plan: newest.plan.max(supports.plan),
        prepares: newest.prepares || supports.prepares,
        volumes: newest.volumes || supports.volumes,
        forgets: newest.forgets || supports.forgets,
    });
    let older = infos().filter(|info| info.supports.and(newest) != newest);
    older
        .map(|info| {
            format!(
                "node {} runs vc-node {}, others a newer one: upgrade it",
                info.name, info.version
            )
        })
        .collect()
}

/// Returns a line for what this node holds, because its version does not know all of it.
fn held(view: &View) -> Vec<String> {
    let upgrade = "this node neither starts nor stops it: upgrade vc-node here";
    // Its document says so of everything.
    if !view.held.documents.is_empty() {
        return Vec::new();
    }
    view.held.services.iter().map(|(key, reason)| format!("{key} {reason}; {upgrade}")).collect()
}

/// Returns a line for every service that refuses connections, and for every port that cannot be published.
fn unpublished(whole: &View, limited: Option<&View>) -> Vec<String> {
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
        format!(
            "port {port} of {service} is not published: {held_by} was deployed earlier and publishes it"
        )
    };
    let unhealthy = routes.services.iter().filter(|(key, it)| it.is_unhealthy && shows(key));
    let unhealthy = unhealthy.map(|(key, _)| {
        format!("{key} refuses connections: the healthchecks of all its instances fail")
    });
    let mut problems: Vec<String> = unhealthy.collect();
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
    let mut absent = BTreeSet::new();
    for (&node, state) in up() {
        for (name, why) in &state.ports {
            let (port, address) = split_port_of_address(name);
            let Some(services) = publishing(port) else { continue };
            let Some(address) = address else {
                // The process that has it may be one of another project.
                let why = if limited.is_some() { "it is taken there" } else { why };
                let node = whole.name(node);
                problems
                    .push(format!("port {port} of {services} is not published on {node}: {why}"));
                continue;
            };
            // One node is enough that has the address.
            if up().all(|(_, state)| state.ports.contains_key(name)) {
                absent.insert(format!(
                    "port {port} of {services} is not published at {address}: no node has this address"
                ));
            }
        }
    }
    problems.extend(absent);
    problems
}

#[cfg(test)]
mod tests {
    use vc_crdt::{ClusterState, KnownVersions, NodeState};
    use vc_protocol::{ClusterId, Keypair, NodeId};

    use super::*;
    use crate::report;

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
        let line = |restarts, state, now| super::restarts(&row(restarts, state), now);
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
