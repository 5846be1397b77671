//! Metrics of the cluster, as this node sees it: the others report the same, or something else through a partition.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::registry::Unit;
use vc_engine::report::{self, Report};
use vc_protocol::control::{NodeRow, NodeStatus, ServiceRow};
use vc_protocol::{ClusterId, NodeId};

use super::write::{write, write_one};
use crate::clock;
use crate::snapshot::Snapshot;

/// What is known of the cluster at one time.
#[derive(Debug)]
pub(super) struct Cluster {
    report: Report,
    /// Whether the documents of another node are those of this node.
    in_sync: BTreeMap<NodeId, bool>,
}

impl Cluster {
    pub(super) fn of(snapshot: &Snapshot, cluster: ClusterId, node: NodeId) -> Self {
        let Snapshot { view, vitals, .. } = snapshot;
        let mut report = report::report(view, None, vitals, cluster, node, clock::now());
        // As 'vc status' has them.
        snapshot.add_own_problems(node, cluster, &mut report.status);
        let others = vitals.iter().filter(|(other, _)| **other != node);
        Self { report, in_sync: others.map(|(&node, vitals)| (node, vitals.in_sync)).collect() }
    }
}

/// Reads the cluster when metrics are written.
pub(super) struct ClusterCollector(pub(super) Box<dyn Fn() -> Cluster + Send + Sync>);

impl fmt::Debug for ClusterCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterCollector")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct ServiceLabels {
    project: String,
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct InstanceLabels {
    project: String,
    service: String,
    state: String,
}

impl Collector for ClusterCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Cluster { report, in_sync } = (self.0)();
        let Report { nodes, services, instances, status } = report;
        let encoder = &mut encoder;
        let members: Vec<NodeRow> =
            nodes.into_iter().filter(|row| row.state != NodeStatus::Left).collect();
        let of_nodes = |value: fn(&NodeRow) -> Option<f64>| {
            let label = |row: &NodeRow| NodeLabels { node: row.name.clone() };
            let values = members.iter().filter_map(|row| Some((label(row), value(row)?)));
            values.collect::<Vec<_>>()
        };
        let help = "1 while most members reach the node";
        let is_up = |row: &NodeRow| Some(f64::from(u8::from(row.state == NodeStatus::Up)));
        write(encoder, "node_up", help, None, of_nodes(is_up))?;
        let help = "1 while the documents of the node are those of this node";
        let up = members.iter().filter(|row| row.state == NodeStatus::Up);
        let synced = up.filter_map(|row| {
            let in_sync = *in_sync.get(&row.id)?;
            Some((NodeLabels { node: row.name.clone() }, u64::from(in_sync)))
        });
        write(encoder, "node_in_sync", help, None, synced)?;
        let help = "1 while the node is drained";
        let is_draining = |row: &NodeRow| Some(f64::from(u8::from(row.draining)));
        write(encoder, "node_draining", help, None, of_nodes(is_draining))?;
        let help =
            "How far the clock of the node is ahead of that of this node, 0 below two seconds";
        #[expect(clippy::cast_precision_loss, reason = "a metric")]
        let offset = |row: &NodeRow| Some(row.clock_offset_ms as f64 / 1000.0);
        write(encoder, "node_clock_offset", help, Some(&Unit::Seconds), of_nodes(offset))?;
        for (name, help, unit, value) in resources() {
            write(encoder, name, help, Some(&unit), of_nodes(value))?;
        }

        for (name, help, unit, value) in backups() {
            write(encoder, name, help, unit.as_ref(), of_nodes(value))?;
        }

        let of_services = |value: fn(&ServiceRow) -> u32| {
            let labels = |row: &ServiceRow| ServiceLabels {
                project: row.project.to_string(),
                service: row.service.service.to_string(),
            };
            let running = services.iter().filter(|row| !row.mode.is_job());
            running.map(|row| (labels(row), u64::from(value(row)))).collect::<Vec<_>>()
        };
        let help = "Replicas that a service is to have";
        write(encoder, "service_replicas", help, None, of_services(|row| row.replicas))?;
        let help = "Replicas of a service that run and are healthy";
        write(encoder, "service_healthy", help, None, of_services(|row| row.healthy))?;
        let mut states: BTreeMap<InstanceLabels, u64> = BTreeMap::new();
        let mut unplaced: BTreeMap<ServiceLabels, u64> = BTreeMap::new();
        for row in &instances {
            let (project, service) =
                (row.service.project.to_string(), row.service.service.to_string());
            if row.node.is_none() {
                let labels = ServiceLabels { project: project.clone(), service: service.clone() };
                *unplaced.entry(labels).or_default() += 1;
            }
            let state = row.state.as_str().to_owned();
            *states.entry(InstanceLabels { project, service, state }).or_default() += 1;
        }
        write(
            encoder,
            "instances",
            "Slots of a service by the state of their instance",
            None,
            states,
        )?;
        write(encoder, "unplaced_slots", "Slots that no node can take", None, unplaced)?;

        let problems = u64::try_from(status.problems.len()).unwrap_or(u64::MAX);
        for (name, help, value) in [
            ("problems", "Problems that 'vc status' lists", problems),
            ("voters", "Voters, which grant leases", u64::from(status.voters)),
            (
                "voters_up",
                "Voters that are up: exclusive services need most of them",
                u64::from(status.voters_up),
            ),
        ] {
            write_one(encoder, name, help, None, value)?;
        }
        Ok(())
    }
}

/// A gauge of each node: its name, help, unit and value.
type Resource = (&'static str, &'static str, Unit, fn(&NodeRow) -> Option<f64>);

/// Returns the gauges of the resources of nodes.
#[expect(clippy::cast_precision_loss, reason = "metrics")]
fn resources() -> [Resource; 8] {
    let cores = || Unit::Other("cores".to_owned());
    [
        ("node_cpu_capacity", "Cores of the node", cores(), |it| {
            Some(it.cpu_millis as f64 / 1000.0)
        }),
        ("node_cpu_reserved", "Cores that services reserve on the node", cores(), |it| {
            Some(it.cpu_reserved as f64 / 1000.0)
        }),
        ("node_cpu_used", "Cores in use on the node", cores(), |it| {
            reported(it, it.cpu_used).map(|millis| millis / 1000.0)
        }),
        ("node_memory_capacity", "Memory of the node", Unit::Bytes, |it| {
            Some(it.memory_bytes as f64)
        }),
        ("node_memory_reserved", "Memory that services reserve on the node", Unit::Bytes, |it| {
            Some(it.memory_reserved as f64)
        }),
        ("node_memory_used", "Memory in use on the node", Unit::Bytes, |it| {
            reported(it, it.memory_used)
        }),
        (
            "node_disk_capacity",
            "Size of the node's disk: of its data or of Docker's, where less is free",
            Unit::Bytes,
            |it| reported(it, it.disk_bytes),
        ),
        ("node_disk_used", "What of that disk is in use", Unit::Bytes, |it| {
            reported(it, it.disk_used)
        }),
    ]
}

/// A gauge of the nodes that make backups: its name, help, unit and value.
type OfBackups = (&'static str, &'static str, Option<Unit>, fn(&NodeRow) -> Option<f64>);

/// Returns the gauges of scheduled backups.
#[expect(clippy::cast_precision_loss, reason = "metrics")]
fn backups() -> [OfBackups; 3] {
    [
        (
            "last_backup_timestamp",
            "When the newest backup that the node has made of the cluster was taken; 0 if there is none",
            Some(Unit::Seconds),
            |it| it.backups.as_ref().map(|it| it.taken as f64 / 1000.0),
        ),
        ("backup_interval", "Time between two backups on the node", Some(Unit::Seconds), |it| {
            it.backups.as_ref().map(|it| it.every as f64 / 1000.0)
        }),
        ("backup_failed", "1 after the last attempt at a backup has failed", None, |it| {
            it.backups.as_ref().map(|it| f64::from(u8::from(!it.problem.is_empty())))
        }),
    ]
}

/// Returns what the heartbeats of a node report; `None` while there are none.
#[expect(clippy::cast_precision_loss, reason = "a metric")]
fn reported(row: &NodeRow, value: u64) -> Option<f64> {
    (row.state == NodeStatus::Up && value > 0).then_some(value as f64)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use vc_engine::Vitals;
    use vc_protocol::Keypair;

    use super::*;
    use crate::metrics;

    #[test]
    fn a_node_that_is_down_and_a_slot_without_a_node_are_series() {
        let id = |seed: u8| {
            let key = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
            NodeId::of(&key.public()).expect("ed25519")
        };
        let info = |name: &str| Some(vc_protocol::node::NodeInfo::for_tests(name));
        let ids = [id(1), id(2)];
        let state = |name: &str, unreachable: &[NodeId]| vc_crdt::NodeState {
            incarnation: 1,
            observed: ids.into(),
            unreachable: unreachable.iter().map(|&node| (node, 1)).collect(),
            info: info(name),
            ..vc_crdt::NodeState::default()
        };
        let nodes =
            BTreeMap::from([(ids[0], state("desk", &[ids[1]])), (ids[1], state("attic", &[]))]);
        let mut cluster = vc_crdt::ClusterState::default();
        let mut spec = vc_protocol::spec::ServiceSpec::default();
        spec.container.reservation.memory_bytes = u64::MAX;
        let record = vc_crdt::ServiceRecord {
            spec: spec.into(),
            previous: None,
            revision: 1,
            updated: 1,
            deployed_by: "ada".to_owned(),
            trace: None,
        };
        cluster.services.insert("shop/web".parse().expect("a service"), record.into());
        let view = vc_crdt::View::from_states(cluster, nodes, &vc_crdt::KnownVersions::default());
        let vitals =
            BTreeMap::from([(ids[0], Vitals { clock_offset_ms: -3000, ..Vitals::default() })]);
        let read = move || {
            let key = Keypair::ed25519_from_bytes([9; 32]).expect("32 bytes");
            let cluster = ClusterId::of(&key.public()).expect("ed25519");
            let report = report::report(&view, None, &vitals, cluster, ids[0], 5000);
            Cluster { report, in_sync: BTreeMap::from([(ids[0], true)]) }
        };
        let mut registry = Registry::with_prefix("vc");
        registry.register_collector(Box::new(ClusterCollector(Box::new(read))));
        let text = metrics::text(std::slice::from_ref(&registry));
        for line in [
            r#"vc_node_up{node="desk"} 1.0"#,
            r#"vc_node_up{node="attic"} 0.0"#,
            r#"vc_node_in_sync{node="desk"} 1"#,
            r#"vc_node_clock_offset_seconds{node="desk"} -3.0"#,
            r#"vc_service_replicas{project="shop",service="web"} 1"#,
            r#"vc_service_healthy{project="shop",service="web"} 0"#,
            r#"vc_instances{project="shop",service="web",state="pending"} 1"#,
            r#"vc_unplaced_slots{project="shop",service="web"} 1"#,
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("# UNIT vc_node_memory_capacity_bytes bytes"), "{text}");
        assert!(!text.contains("vc_node_memory_used_bytes{node=\"attic\"}"), "{text}");
    }
}
