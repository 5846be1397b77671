//! Observing containers.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum as Status, ContainerSummary,
    ContainerSummaryStateEnum as State, EndpointSettings, HealthStatusEnum,
};
use bollard::query_parameters::ListContainersOptionsBuilder;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use tokio::time::timeout;
use vc_engine::runtime::{InstanceId, Observed, Phase};
use vc_protocol::{Millis, Slot};

use super::client::DockerClient;
use super::labels::{self, EPOCH};
use super::logs::Part;
use super::time::parse_time;
use crate::clock::now;
use crate::docker_error;
use crate::log::{LogLine, LogQuery};
use crate::one_line::{MAX_LAST_LINES, last_lines, one_line};
use crate::watchdog::Target;
use vc_protocol::control::LogStream;

/// How long a list may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an inspection may take: Docker delays it while it starts or stops the container.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a start waits for the inspection of what it started.
const STARTED_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a list waits for the inspection of one container.
const LIST_INSPECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long reading the last lines of a container may take; after that, its end is reported without them.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(2);
/// How many milliseconds after a container's first lines Docker may record its start.
const START_TOLERANCE: Millis = 200;
/// How many log records are read of the last output; Docker splits long lines into several.
const MAX_LAST_CHUNKS: usize = 8;
/// How many containers are inspected at a time for a list.
const CONCURRENT_INSPECTS: usize = 8;

/// What exists under the name of an instance's container.
pub(super) enum Found {
    /// No container.
    Nothing,
    /// A container that is not of this node.
    Foreign,
    /// The instance's container, which Docker is removing.
    Removing,
    /// The instance's container.
    Ours(Box<Existing>),
}

/// The container of an instance.
pub(super) struct Existing {
    pub(super) observed: Observed,
    /// Its id.
    pub(super) container: String,
    /// The epoch of the lease under which it was created, if it was created under one.
    pub(super) epoch: Option<u64>,
    /// Docker's name of its primary network, or `container:ID`.
    pub(super) network: Option<String>,
}

impl DockerClient {
    /// Observes one instance.
    pub(super) async fn observe(&self, id: &InstanceId) -> Result<Observed, Error> {
        let found = self.inspect(id).await?;
        let mut observed = match found.as_ref().map(|found| self.classify(id, found)) {
            Some(Found::Ours(existing)) => existing.observed,
            _ => Observed { id: id.clone(), phase: Phase::Gone, address: String::new() },
        };
        match (&mut observed.phase, &found) {
            (Phase::Exited { output, .. }, Some(found)) => *output = self.last_output(found).await,
            (Phase::Running { health: Some(false), said, .. }, Some(found)) => {
                let lines = [last_check(found), self.last_output(found).await];
                *said = last_lines(lines.iter().map(String::as_str).filter(|it| !it.is_empty()));
            }
            _ => {}
        }
        if let (Phase::Running { health, said, .. }, Some(network)) =
            (&mut observed.phase, found.as_ref().and_then(|found| self.lost_network(found)))
        {
            // Nothing reaches it: it is replaced as one is whose healthcheck fails.
            *health = Some(false);
            *said = format!("another program disconnected it from its network {network}");
        }
        Ok(observed)
    }

    /// Observes an instance that was started a moment ago. With its address and its time at once, the others are told of the start
    /// once and not twice. Where the engine does not say that it runs, it counts as running until the event that follows: an exit
    /// at once would look like the exit before.
    pub(super) async fn observe_started(&self, id: &InstanceId) -> Observed {
        match timeout(STARTED_TIMEOUT, self.observe(id)).await {
            Ok(Ok(seen)) if matches!(seen.phase, Phase::Running { .. }) => seen,
            _ => {
                let phase = Phase::Running { health: None, started: now(), said: String::new() };
                Observed { id: id.clone(), phase, address: String::new() }
            }
        }
    }

    /// Returns the id of the container of a slot that runs and has a network of its own; of several, of the one that was created last.
    pub(super) async fn network_container(&self, slot: &Slot) -> Result<Option<String>, Error> {
        let filters = HashMap::from([
            ("label", labels::slot_filters(&self.identity, slot)),
            ("status", vec!["running".to_owned()]),
        ]);
        let options = ListContainersOptionsBuilder::default().filters(&filters).build();
        let client = self.client()?;
        let listed = timeout(LIST_TIMEOUT, client.list_containers(Some(options)));
        let listed = listed.await.map_err(|_| Error::RequestTimeoutError)??;
        // A service that may not have the network of the host does not get it through one that has it.
        let has_own = |it: &ContainerSummary| {
            let mode = it.host_config.as_ref().and_then(|config| config.network_mode.as_deref());
            mode.is_some_and(|mode| mode != "host" && !mode.starts_with("container:"))
        };
        Ok(listed.into_iter().max_by_key(|it| it.created).filter(has_own).and_then(|it| it.id))
    }

    /// Returns the network of this node that a container was created in and is connected to no more.
    fn lost_network<'a>(&self, found: &'a ContainerInspectResponse) -> Option<&'a str> {
        let created_in = found.host_config.as_ref()?.network_mode.as_deref()?;
        let connected = found.network_settings.as_ref()?.networks.as_ref()?;
        let is_lost = self.is_own_network(created_in) && !connected.contains_key(created_in);
        is_lost.then_some(created_in)
    }

    /// Returns what exists under the name of an instance's container.
    pub(super) async fn find(&self, id: &InstanceId) -> Result<Found, Error> {
        let found = self.inspect(id).await?;
        Ok(found.map_or(Found::Nothing, |found| self.classify(id, &found)))
    }

    fn classify(&self, id: &InstanceId, found: &ContainerInspectResponse) -> Found {
        let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
        let owner = labels.and_then(|labels| labels::instance(&self.identity, labels));
        match owner {
            Some(Ok(found_id)) if found_id == *id => match phase(found) {
                Phase::Gone => Found::Removing,
                phase => {
                    let networks = found
                        .network_settings
                        .as_ref()
                        .and_then(|settings| settings.networks.as_ref());
                    let primary = found
                        .host_config
                        .as_ref()
                        .and_then(|config| config.network_mode.as_deref());
                    let address = address(networks, primary);
                    Found::Ours(Box::new(Existing {
                        observed: Observed { id: found_id, phase, address },
                        container: found.id.clone().unwrap_or_default(),
                        epoch: labels.and_then(|labels| labels.get(EPOCH)?.parse().ok()),
                        network: primary.map(str::to_owned),
                    }))
                }
            },
            _ => Found::Foreign,
        }
    }

    /// Returns the last lines that a container wrote since its last start, joined.
    async fn last_output(&self, found: &ContainerInspectResponse) -> String {
        let started = found.state.as_ref().and_then(|state| state.started_at.as_deref());
        let query = LogQuery {
            digest: None,
            follow: false,
            tail: None,
            since: started
                .and_then(|it| parse_time(it.as_bytes()))
                .map(|it| it.saturating_sub(START_TOLERANCE)),
        };
        let read = async {
            let part = Part::of_entries(MAX_LAST_LINES);
            let lines = self.read_part(found.id.as_deref()?, query, part);
            // Pieces of long lines count as lines.
            let mut last: Vec<LogLine> = lines.take(MAX_LAST_CHUNKS).collect().await;
            // Docker records the two outputs independently, so their order is lost; the standard error says most.
            last.sort_by_key(|line| (line.stream == LogStream::Stderr, line.time));
            Some(last_lines(last.iter().map(|line| line.line.as_str())))
        };
        timeout(LAST_LINES_TIMEOUT, read).await.ok().flatten().unwrap_or_default()
    }

    /// Observes all containers of this node.
    pub(super) async fn list(&self) -> Result<Vec<Observed>, Error> {
        let filters = HashMap::from([("label", labels::filters(&self.identity))]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let client = self.client()?;
        let listed = timeout(LIST_TIMEOUT, client.list_containers(Some(options)));
        let listed = listed.await.map_err(|_| Error::RequestTimeoutError)??;
        let mut targets = Vec::new();
        let ours = listed.into_iter().filter_map(|mut summary| {
            match labels::instance(&self.identity, &summary.labels.take().unwrap_or_default())? {
                Ok(id) => {
                    let container = summary.id.clone().unwrap_or_default();
                    targets.push((id.clone(), Target::Container(container)));
                    Some(self.observe_listed(id, summary))
                }
                Err(error) => {
                    let container = summary.id.unwrap_or_default();
                    tracing::warn!(container, %error, "ignoring a container with malformed labels");
                    None
                }
            }
        });
        let inspects: Vec<_> = ours.collect();
        if self.is_local() {
            self.watchdog.listed(targets);
        }
        let all: Vec<Observed> = futures::stream::iter(inspects)
            .buffer_unordered(CONCURRENT_INSPECTS)
            .try_collect()
            .await?;
        Ok(all.into_iter().filter(|seen| seen.phase != Phase::Gone).collect())
    }

    /// Observes a listed container. Only an inspection yields the exit code, start time and health reliably; but one
    /// container that Docker is busy with must not delay the list.
    async fn observe_listed(
        &self,
        id: InstanceId,
        summary: ContainerSummary,
    ) -> Result<Observed, Error> {
        match timeout(LIST_INSPECT_TIMEOUT, self.observe(&id)).await {
            Ok(observed) => observed,
            Err(_) => Ok(from_summary(id, &summary)),
        }
    }

    /// Inspects the container with the instance's name; `None` when there is none.
    async fn inspect(&self, id: &InstanceId) -> Result<Option<ContainerInspectResponse>, Error> {
        let client = self.client()?;
        let name = labels::container_name(&self.identity, id);
        let found = timeout(INSPECT_TIMEOUT, client.inspect_container(&name, None)).await;
        match found.map_err(|_| Error::RequestTimeoutError)? {
            Err(error) if docker_error::status(&error) == Some(404) => Ok(None),
            found => found.map(Some),
        }
    }
}

/// Derives an observation from the summary in a list.
fn from_summary(id: InstanceId, summary: &ContainerSummary) -> Observed {
    let text = summary.status.as_deref().unwrap_or_default();
    let phase = match summary.state {
        Some(State::CREATED) => Phase::Prepared,
        Some(State::EXITED | State::DEAD) => {
            // "Exited (137) 2 minutes ago"
            let code = text.split(['(', ')']).nth(1).and_then(|code| code.parse().ok());
            Phase::Exited { code: code.unwrap_or(-1), output: String::new(), out_of_memory: false }
        }
        Some(State::REMOVING) | None => Phase::Gone,
        Some(_) => {
            let health = if text.contains("(healthy)") {
                Some(true)
            } else {
                text.contains("(unhealthy)").then_some(false)
            };
            let created =
                summary.created.and_then(|seconds| Millis::try_from(seconds).ok()).unwrap_or(0);
            Phase::Running { health, started: created.saturating_mul(1000), said: String::new() }
        }
    };
    let networks =
        summary.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let primary = summary.host_config.as_ref().and_then(|config| config.network_mode.as_deref());
    Observed { id, phase, address: address(networks, primary) }
}

/// Returns the output of the last healthcheck.
fn last_check(found: &ContainerInspectResponse) -> String {
    let health = found.state.as_ref().and_then(|state| state.health.as_ref());
    let last = health.and_then(|health| health.log.as_ref()?.last()?.output.clone());
    last.map(|text| one_line(&text)).unwrap_or_default()
}

fn phase(found: &ContainerInspectResponse) -> Phase {
    let Some(state) = &found.state else { return Phase::Gone };
    match state.status {
        Some(Status::CREATED) => match state.error.as_deref().filter(|error| !error.is_empty()) {
            Some(error) => {
                let reason = one_line(error);
                match docker_error::is_node_fault(error) {
                    true => Phase::NodeFault { reason },
                    false => Phase::Failed { reason },
                }
            }
            None => Phase::Prepared,
        },
        Some(Status::EXITED | Status::DEAD) => {
            let out_of_memory = state.oom_killed.unwrap_or_default();
            Phase::Exited {
                code: state.exit_code.unwrap_or(-1),
                output: String::new(),
                out_of_memory,
            }
        }
        Some(Status::REMOVING) | None => Phase::Gone,
        // Paused and restarting containers hold their resources as running ones do.
        Some(_) => {
            let health = match state.health.as_ref().and_then(|health| health.status) {
                Some(HealthStatusEnum::HEALTHY) => Some(true),
                Some(HealthStatusEnum::UNHEALTHY) => Some(false),
                _ => None,
            };
            let started = state.started_at.as_deref();
            let started = started.and_then(|it| parse_time(it.as_bytes())).unwrap_or(0);
            Phase::Running { health, started, said: String::new() }
        }
    }
}

/// Returns the address of a container in its primary network, else in any; empty when it does not run, or has the network of
/// another. On the network of the host it is reached at its loopback.
fn address(networks: Option<&HashMap<String, EndpointSettings>>, primary: Option<&str>) -> String {
    if primary == Some("host") {
        return Ipv4Addr::LOCALHOST.to_string();
    }
    let addresses = networks.into_iter().flatten().filter_map(|(name, network)| {
        let ip = network.ip_address.as_ref().filter(|ip| !ip.is_empty())?;
        Some((Some(name.as_str()) != primary, ip))
    });
    addresses.min().map(|(_, ip)| ip.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_a_list_replaces_a_slow_inspection() {
        let id = InstanceId { slot: "shop/web.1".parse().expect("a slot"), digest: "0".to_owned() };
        for (state, status, phase) in [
            (
                State::RUNNING,
                "Up 2 minutes",
                Phase::Running { health: None, started: 5000, said: String::new() },
            ),
            (
                State::RUNNING,
                "Up 2 minutes (healthy)",
                Phase::Running { health: Some(true), started: 5000, said: String::new() },
            ),
            (
                State::RUNNING,
                "Up 1 second (unhealthy)",
                Phase::Running { health: Some(false), started: 5000, said: String::new() },
            ),
            (
                State::RUNNING,
                "Up 1 second (health: starting)",
                Phase::Running { health: None, started: 5000, said: String::new() },
            ),
            (
                State::EXITED,
                "Exited (137) 2 minutes ago",
                Phase::Exited { code: 137, output: String::new(), out_of_memory: false },
            ),
            (State::CREATED, "Created", Phase::Prepared),
            (State::REMOVING, "Removal In Progress", Phase::Gone),
        ] {
            let summary = ContainerSummary {
                created: Some(5),
                state: Some(state),
                status: Some(status.to_owned()),
                ..ContainerSummary::default()
            };
            assert_eq!(from_summary(id.clone(), &summary).phase, phase, "{status}");
        }
    }
}
