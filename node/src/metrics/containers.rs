//! What the instances of this node use, in the names of cAdvisor: dashboards and alerts that were made for it work.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::registry::Unit;
use vc_crdt::View;
use vc_protocol::Resources;
use vc_protocol::control::UsageRow;

use super::write::{count, float, write, write_one};

/// The period of a limit of CPU, in microseconds: the kernel's default, which Docker takes for `--cpus`.
const CPU_PERIOD: u64 = 100_000;

/// The instances of this node at one time.
pub(super) struct Containers {
    pub(super) rows: Arc<Vec<UsageRow>>,
    /// For the names of images and nodes.
    pub(super) view: Arc<View>,
    /// The host.
    pub(super) machine: Resources,
}

/// Reads the instances when metrics are written.
pub(super) struct ContainerCollector(pub(super) Box<dyn Fn() -> Containers + Send + Sync>);

impl fmt::Debug for ContainerCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContainerCollector")
    }
}

/// The labels of an instance: as many as there are instances on the node, and one set more for each that replaces another.
#[derive(Debug, Clone, PartialEq, Eq, EncodeLabelSet)]
struct InstanceLabels {
    name: String,
    image: String,
    service: String,
    project: String,
    node: String,
    slot: u32,
}

fn labels(row: &UsageRow, view: &View) -> InstanceLabels {
    let slot = vc_protocol::Slot { service: row.service.clone(), replica: row.replica };
    InstanceLabels {
        // A process has no name of its own.
        name: if row.container.is_empty() { slot.to_string() } else { row.container.clone() },
        image: image(row, view),
        service: row.service.service.to_string(),
        project: row.service.project.to_string(),
        node: view.name(row.node),
        slot: row.replica,
    }
}

/// Returns the image reference of an instance: that of the version which it runs, as far as that is known.
fn image(row: &UsageRow, view: &View) -> String {
    let service = &row.service;
    let Some(record) = view.cluster.services.get(service) else { return String::new() };
    let is_current = view.desired_digest(service).as_deref() == Some(row.digest.as_str());
    let spec = match (is_current, &record.previous) {
        (false, Some(previous)) => previous,
        _ => view.spec(service).unwrap_or(&record.spec),
    };
    spec.container.image.clone()
}

/// A value of an instance; `None` if it is not known.
type Value = fn(&UsageRow) -> Option<f64>;
/// A metric of each instance: its name, help, unit and value.
type Metric = (&'static str, &'static str, Option<Unit>, Value);

fn seconds(millis: u64) -> f64 {
    float(millis) / 1000.0
}

/// Returns the counters of an instance.
fn counters() -> [Metric; 5] {
    [
        ("container_cpu_usage", "CPU time", Some(Unit::Seconds), |it| Some(seconds(it.cpu_ms))),
        ("container_network_receive", "Bytes received", Some(Unit::Bytes), |it| {
            it.network_received_bytes.map(float)
        }),
        ("container_network_transmit", "Bytes sent", Some(Unit::Bytes), |it| {
            it.network_sent_bytes.map(float)
        }),
        ("container_fs_reads", "Bytes read from disks", Some(Unit::Bytes), |it| {
            it.disk_read_bytes.map(float)
        }),
        ("container_fs_writes", "Bytes written to disks", Some(Unit::Bytes), |it| {
            it.disk_written_bytes.map(float)
        }),
    ]
}

/// Returns the gauges of an instance. Those without a unit end in one that cAdvisor does not declare, or have none.
fn gauges() -> [Metric; 8] {
    let working_set = "Memory in use without what the kernel can drop";
    [
        ("container_memory_working_set", working_set, Some(Unit::Bytes), |it| {
            Some(float(it.memory_bytes))
        }),
        ("container_memory_usage", "Memory in use with caches of files", Some(Unit::Bytes), |it| {
            Some(float(it.memory_total_bytes))
        }),
        (
            "container_spec_cpu_quota",
            "Limit of CPU, microseconds in each period; missing without one",
            None,
            |it| (it.cpu_limit_millis > 0).then(|| float(it.cpu_limit_millis * CPU_PERIOD / 1000)),
        ),
        (
            "container_spec_cpu_period",
            "Period of the limit of CPU, microseconds; missing without one",
            None,
            |it| (it.cpu_limit_millis > 0).then(|| float(CPU_PERIOD)),
        ),
        (
            "container_spec_memory_limit",
            "Limit of memory, 0 without one",
            Some(Unit::Bytes),
            |it| Some(float(it.memory_limit_bytes)),
        ),
        ("container_start_time", "When it was started, since 1970", Some(Unit::Seconds), |it| {
            Some(seconds(it.started))
        }),
        ("container_last_seen", "When it was measured, in seconds since 1970", None, |it| {
            Some(seconds(it.measured))
        }),
        ("container_processes", "Processes and threads", None, |it| Some(float(it.processes))),
    ]
}

impl Collector for ContainerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Containers { rows, view, machine } = (self.0)();
        let encoder = &mut encoder;
        let labelled: Vec<_> = rows.iter().map(|row| (labels(row, &view), row)).collect();
        let values = |value: Value| {
            let of = move |(labels, row): &(InstanceLabels, &UsageRow)| {
                Some((labels.clone(), value(row)?))
            };
            labelled.iter().filter_map(of)
        };
        for (name, help, unit, value) in counters() {
            count(encoder, name, help, unit.as_ref(), values(value))?;
        }
        for (name, help, unit, value) in gauges() {
            write(encoder, name, help, unit.as_ref(), values(value))?;
        }
        let cores = Unit::Other("cores".to_owned());
        let help = "Processors of the host";
        write_one(encoder, "machine_cpu", help, Some(&cores), float(machine.cpu_millis) / 1000.0)?;
        let help = "Memory of the host";
        write_one(encoder, "machine_memory", help, Some(&Unit::Bytes), machine.memory_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prometheus_client::registry::Registry;
    use vc_crdt::{ClusterState, KnownVersions};
    use vc_protocol::{Keypair, NodeId};

    use super::*;
    use crate::metrics;

    #[test]
    fn instances_have_the_series_of_cadvisor() {
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let node = NodeId::of(&key.public()).expect("ed25519");
        let mut cluster = ClusterState::default();
        let mut spec = vc_protocol::spec::ServiceSpec::default();
        spec.container.image = "web:1".to_owned();
        let record = vc_crdt::ServiceRecord {
            spec: spec.into(),
            previous: None,
            revision: 1,
            updated: 1,
            deployed_by: "ada".to_owned(),
            trace: None,
        };
        cluster.services.insert("shop/web".parse().expect("a service"), record.into());
        let view = View::from_states(cluster, BTreeMap::new(), &KnownVersions::default());
        let (view, name) = (Arc::new(view.clone()), view.name(node));
        let row = UsageRow {
            service: "shop/web".parse().expect("a service"),
            replica: 2,
            node,
            node_name: String::new(),
            digest: "0".to_owned(),
            container: "vc-web".to_owned(),
            cpu_millis: None,
            cpu_limit_millis: 1500,
            cpu_ms: 2500,
            memory_bytes: 1 << 20,
            memory_total_bytes: 2 << 20,
            memory_limit_bytes: 0,
            network_received_bytes: Some(7),
            network_sent_bytes: None,
            disk_read_bytes: None,
            disk_written_bytes: None,
            processes: 3,
            started: 1000,
            measured: 3500,
        };
        let read = move || Containers {
            rows: Arc::new(vec![row.clone()]),
            view: Arc::clone(&view),
            machine: Resources { cpu_millis: 4000, memory_bytes: 8 << 30 },
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ContainerCollector(Box::new(read))));
        let text = metrics::text(&[registry]);
        let labels = format!(
            r#"name="vc-web",image="web:1",service="web",project="shop",node="{name}",slot="2""#
        );
        for line in [
            format!("container_cpu_usage_seconds_total{{{labels}}} 2.5"),
            format!("container_memory_working_set_bytes{{{labels}}} 1048576.0"),
            format!("container_network_receive_bytes_total{{{labels}}} 7.0"),
            format!("container_spec_cpu_quota{{{labels}}} 150000.0"),
            format!("container_start_time_seconds{{{labels}}} 1.0"),
            format!("container_last_seen{{{labels}}} 3.5"),
            "machine_cpu_cores 4.0".to_owned(),
            "machine_memory_bytes 8589934592".to_owned(),
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("container_network_transmit_bytes_total{"), "{text}");
    }
}
