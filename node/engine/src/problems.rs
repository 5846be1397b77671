//! The problems of the cluster, for people: one line each, which says what to do where that is not plain.

use std::collections::BTreeSet;

use vc_crdt::View;
use vc_protocol::Supports;
use vc_protocol::control::{InstanceRow, NodeRow, NodeStatus};
use vc_protocol::instance::InstanceState;
use vc_protocol::node::NodeInfo;

use crate::routes::{Clash, Routes};

/// Returns the problems of a view with these rows.
pub(crate) fn problems(view: &View, nodes: &[NodeRow], instances: &[InstanceRow]) -> Vec<String> {
    let mut problems = Vec::new();
    for row in nodes {
        if row.state == NodeStatus::Down {
            problems.push(format!("node {} is down", row.name));
        } else if row.restarting {
            problems.push(format!("node {} is restarting", row.name));
        } else if !row.problem.is_empty() {
            problems.push(format!("node {}: {}", row.name, row.problem));
        }
        if row.clock_offset_ms != 0 {
            problems.push(clock_problem(row));
        }
    }
    let is_problem = |row: &&InstanceRow| {
        let waits = row.state == InstanceState::Pending && !row.reason.is_empty();
        waits || matches!(row.state, InstanceState::Failed | InstanceState::Unhealthy)
    };
    problems.extend(instances.iter().filter(is_problem).map(|row| {
        format!("{}.{} is {}: {}", row.service, row.replica, row.state.as_str(), row.reason)
    }));
    problems.extend(unpublished(view));
    problems.extend(held(view));
    problems.extend(older(view));
    problems
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

/// Returns a line for each node whose version keeps the others from using what they support.
fn older(view: &View) -> Vec<String> {
    let infos = || view.nodes.values().filter_map(|state| state.info.as_ref());
    let newest = infos().fold(Supports::default(), |newest, NodeInfo { supports, .. }| Supports {
        schema: newest.schema.max(supports.schema),
        plan: newest.plan.max(supports.plan),
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

/// Returns a line for every port that cannot be published.
fn unpublished(view: &View) -> Vec<String> {
    let routes = Routes::of(view);
    let clash = |Clash { wanted, held_by }: &Clash| {
        let (port, service) = (wanted.port.name(), &wanted.service);
        format!(
            "port {port} of {service} is not published: {held_by} was deployed earlier and publishes it"
        )
    };
    let mut problems: Vec<String> = routes.clashes.iter().map(clash).collect();
    let published = || routes.ports.values().flatten();
    for (&node, state) in view.nodes.iter().filter(|(node, _)| view.up.contains(node)) {
        for (port, why) in &state.ports {
            let services: BTreeSet<String> = published()
                .filter(|it| it.port.name() == *port)
                .map(|it| it.service.to_string())
                .collect();
            // The service may be removed by now.
            if !services.is_empty() {
                let services = services.into_iter().collect::<Vec<_>>().join(" and ");
                let node = view.name(node);
                problems
                    .push(format!("port {port} of {services} is not published on {node}: {why}"));
            }
        }
    }
    problems
}
