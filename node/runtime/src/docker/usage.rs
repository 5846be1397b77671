//! What the containers of this node use, by Docker's `stats`.
//!
//! One call for each container, which answers at once with `one-shot`: without that the engine measures for a second or two. An engine
//! that does not know it takes that long. The list of containers, with when they started and their limits, is kept until Docker's
//! events say that one has started or ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{
    ContainerBlkioStatEntry, ContainerInspectResponse, ContainerMemoryStats, ContainerNetworkStats,
    ContainerStatsResponse,
};
use bollard::query_parameters::{ListContainersOptionsBuilder, StatsOptionsBuilder};
use futures::StreamExt as _;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use vc_protocol::{InstanceId, Millis};

use super::client::DockerClient;
use super::labels;
use super::time::parse_time;
use crate::docker_error;
use crate::error::RuntimeError;
use crate::usage::{DiskTraffic, InstanceUsage, Limits, NetworkTraffic};

/// How many containers are measured at a time.
const CONCURRENT: usize = 4;
/// How long the list, and the measurement of one container, may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The containers that ran when `changes` was read.
#[derive(Debug, Default)]
struct Listed {
    changes: u64,
    containers: Arc<Vec<Container>>,
}

/// What is known of the containers that run. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct RunningContainers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Grows whenever containers may have started or ended.
    changes: AtomicU64,
    listed: Mutex<Option<Listed>>,
}

impl RunningContainers {
    /// Notes that containers may have started or ended.
    pub(super) fn changed(&self) {
        self.0.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a number that grows whenever containers may have started or ended.
    pub(super) fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Relaxed)
    }
}

/// A container that is measured.
#[derive(Debug, Clone)]
struct Container {
    id: InstanceId,
    docker_id: String,
    name: String,
    started: Millis,
    limits: Limits,
}

impl DockerClient {
    /// Returns what the running containers of this node use. Those that Docker does not answer for in time are left out.
    ///
    /// # Errors
    /// The containers cannot be listed.
    pub(super) async fn usage(&self) -> Result<Vec<InstanceUsage>, RuntimeError> {
        let containers = self.running_containers().await.map_err(|error| self.error(error))?;
        let client = self.client().map_err(|error| self.error(error))?;
        let measured = futures::stream::iter(containers.to_vec())
            .map(|container| {
                let client = client.clone();
                async move { measure(&client, &container).await }
            })
            .buffer_unordered(CONCURRENT)
            .filter_map(async |usage| usage);
        Ok(measured.collect().await)
    }

    async fn running_containers(&self) -> Result<Arc<Vec<Container>>, Error> {
        let mut kept = self.running.0.listed.lock().await;
        // Before the list: what starts meanwhile makes the next one necessary.
        let changes = self.running.changes();
        if let Some(listed) = kept.as_ref().filter(|listed| listed.changes == changes) {
            return Ok(Arc::clone(&listed.containers));
        }
        let filters = HashMap::from([
            ("label", labels::filters(&self.identity)),
            ("status", vec!["running".to_owned()]),
        ]);
        let options = ListContainersOptionsBuilder::default().filters(&filters).build();
        let client = self.client()?;
        let listed = timeout(TIMEOUT, client.list_containers(Some(options)));
        let listed = listed.await.map_err(|_| Error::RequestTimeoutError)??;
        let ours = listed.into_iter().filter_map(|summary| {
            let labels = summary.labels.unwrap_or_default();
            let id = labels::instance(&self.identity, &labels)?.ok()?;
            Some((id, summary.id?))
        });
        let inspected = futures::stream::iter(ours)
            .map(|(id, docker_id)| {
                let client = client.clone();
                async move { inspect(&client, id, docker_id).await }
            })
            .buffer_unordered(CONCURRENT)
            .filter_map(async |container| container);
        let containers: Arc<Vec<Container>> = Arc::new(inspected.collect().await);
        *kept = Some(Listed { changes, containers: Arc::clone(&containers) });
        Ok(containers)
    }
}

/// Returns what is known of a container; `None` if it is gone or Docker does not answer.
async fn inspect(client: &bollard::Docker, id: InstanceId, docker_id: String) -> Option<Container> {
    let found = timeout(TIMEOUT, client.inspect_container(&docker_id, None)).await.ok()?.ok()?;
    let started = found.state.as_ref().and_then(|state| state.started_at.as_deref());
    let started = started.and_then(|it| parse_time(it.as_bytes())).unwrap_or(0);
    let name = found.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned();
    Some(Container { id, docker_id, name, started, limits: limits(&found) })
}

/// Returns the limits of a container.
fn limits(found: &ContainerInspectResponse) -> Limits {
    let Some(config) = &found.host_config else { return Limits::default() };
    let positive = |value: Option<i64>| value.and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
    let of_quota = positive(config.cpu_quota)
        .saturating_mul(1000)
        .checked_div(positive(config.cpu_period))
        .unwrap_or(0);
    let cpu_millis = match positive(config.nano_cpus) / 1_000_000 {
        0 => of_quota,
        millis => millis,
    };
    Limits { cpu_millis, memory_bytes: positive(config.memory) }
}

/// Measures a container; `None` if it has ended or Docker does not answer.
async fn measure(client: &bollard::Docker, container: &Container) -> Option<InstanceUsage> {
    let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
    let mut stats = Box::pin(client.stats(&container.docker_id, Some(options)));
    match timeout(TIMEOUT, stats.next()).await {
        Ok(Some(Ok(stats))) => usage(container, stats, Instant::now()),
        Ok(Some(Err(error))) => {
            let error = docker_error::message(&error);
            tracing::debug!(container = container.name, error, "cannot measure a container");
            None
        }
        Ok(None) | Err(_) => None,
    }
}

/// Reads an answer of Docker's; `None` of a container that does not run.
fn usage(
    container: &Container,
    stats: ContainerStatsResponse,
    at: Instant,
) -> Option<InstanceUsage> {
    let memory = stats.memory_stats.unwrap_or_default();
    let cpu_ns = stats.cpu_stats?.cpu_usage?.total_usage?;
    // Without a memory controller, as on some small computers, a container that runs has no value.
    let memory_bytes = memory.usage.or((cpu_ns > 0).then_some(0))?;
    Some(InstanceUsage {
        id: container.id.clone(),
        container: container.name.clone(),
        started: container.started,
        at,
        cpu_ns,
        working_set_bytes: memory_bytes.saturating_sub(inactive_files(&memory)),
        memory_bytes,
        limits: container.limits,
        network: stats.networks.as_ref().map(network),
        disk: stats.blkio_stats.map(|it| disk(&it.io_service_bytes_recursive.unwrap_or_default())),
        processes: stats.pids_stats.and_then(|pids| pids.current).unwrap_or(0),
    })
}

/// Returns the part of the memory that holds files and was not used for long: of control groups of version 1 with those below.
fn inactive_files(memory: &ContainerMemoryStats) -> u64 {
    let stats = memory.stats.as_ref();
    let stat = |name: &str| stats.and_then(|stats| stats.get(name).copied());
    stat("total_inactive_file").or_else(|| stat("inactive_file")).unwrap_or(0)
}

fn network(interfaces: &HashMap<String, ContainerNetworkStats>) -> NetworkTraffic {
    let sum = |bytes: fn(&ContainerNetworkStats) -> Option<u64>| {
        interfaces.values().filter_map(bytes).fold(0, u64::saturating_add)
    };
    NetworkTraffic { received: sum(|it| it.rx_bytes), sent: sum(|it| it.tx_bytes) }
}

/// Adds up what was read from and written to each disk; the names are in capitals in version 1.
fn disk(entries: &[ContainerBlkioStatEntry]) -> DiskTraffic {
    let sum = |name: &str| {
        let is_named = |it: &&ContainerBlkioStatEntry| {
            it.op.as_deref().is_some_and(|op| op.eq_ignore_ascii_case(name))
        };
        entries.iter().filter(is_named).filter_map(|it| it.value).fold(0, u64::saturating_add)
    };
    DiskTraffic { read: sum("read"), written: sum("write") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> Container {
        Container {
            id: InstanceId { slot: "shop/web.1".parse().expect("a slot"), digest: "0".to_owned() },
            docker_id: "abc".to_owned(),
            name: "vc-shop.web.1".to_owned(),
            started: 5000,
            limits: Limits::default(),
        }
    }

    fn read(json: &str) -> Option<InstanceUsage> {
        let stats = serde_json::from_str(json).expect("an answer of Docker's");
        usage(&container(), stats, Instant::now())
    }

    #[test]
    fn the_working_set_is_without_inactive_files_in_both_versions_of_control_groups() {
        let v1 = r#"{
            "cpu_stats": {"cpu_usage": {"total_usage": 12000000, "percpu_usage": [12000000]}},
            "memory_stats": {"usage": 1000, "limit": 9000,
                "stats": {"inactive_file": 1, "total_inactive_file": 300}},
            "pids_stats": {"current": 2},
            "networks": {"eth0": {"rx_bytes": 10, "tx_bytes": 20}, "eth1": {"rx_bytes": 1, "tx_bytes": 2}},
            "blkio_stats": {"io_service_bytes_recursive": [
                {"major": 8, "minor": 0, "op": "Read", "value": 100},
                {"major": 8, "minor": 0, "op": "Write", "value": 7},
                {"major": 8, "minor": 0, "op": "Total", "value": 107},
                {"major": 8, "minor": 16, "op": "Read", "value": 11}]}}"#;
        let used = read(v1).expect("it runs");
        assert_eq!(
            (used.cpu_ns, used.memory_bytes, used.working_set_bytes),
            (12_000_000, 1000, 700)
        );
        assert_eq!(used.network, Some(NetworkTraffic { received: 11, sent: 22 }));
        assert_eq!(used.disk, Some(DiskTraffic { read: 111, written: 7 }));
        assert_eq!(used.processes, 2);

        let v2 = r#"{
            "cpu_stats": {"cpu_usage": {"total_usage": 12000000}, "online_cpus": 2},
            "memory_stats": {"usage": 1000, "stats": {"inactive_file": 400, "anon": 5}},
            "blkio_stats": {"io_service_bytes_recursive": [{"op": "read", "value": 5}, {"op": "write", "value": 6}]}}"#;
        let used = read(v2).expect("it runs");
        assert_eq!(used.working_set_bytes, 600);
        assert_eq!(used.network, None, "it has the network of its host");
        assert_eq!(used.disk, Some(DiskTraffic { read: 5, written: 6 }));
    }

    #[test]
    fn a_container_that_has_ended_uses_nothing_that_is_known() {
        let ended = r#"{"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {},
            "blkio_stats": {"io_service_bytes_recursive": null}}"#;
        assert_eq!(read(ended), None);
    }

    #[test]
    fn a_limit_of_cpu_is_read_however_it_was_set() {
        let found = |config: &str| {
            let json = format!(r#"{{"HostConfig": {config}}}"#);
            limits(&serde_json::from_str(&json).expect("an answer of Docker's"))
        };
        let both = found(r#"{"NanoCpus": 500000000, "Memory": 1048576}"#);
        assert_eq!(both, Limits { cpu_millis: 500, memory_bytes: 1 << 20 });
        assert_eq!(found(r#"{"CpuQuota": 150000, "CpuPeriod": 100000}"#).cpu_millis, 1500);
        assert_eq!(found(r#"{"CpuQuota": -1, "CpuPeriod": 0, "Memory": 0}"#), Limits::default());
    }
}
