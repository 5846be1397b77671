//! Starting containers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bollard::errors::Error;
use bollard::models::NetworkConnectRequest;
use bollard::query_parameters::CreateContainerOptionsBuilder;
use tokio_util::sync::CancellationToken;
use vc_engine::runtime::{InstanceId, Observed, Phase};
use vc_protocol::image::DigestError;
use vc_protocol::spec::{ContainerSpec, Mount};
use vc_protocol::{Name, Slot, VolumeKey};

use super::attach::ATTACH_TIMEOUT;
use super::client::DockerClient;
use super::confined_mounts::ConfineError;
use super::container::{self, ContainerContext};
use super::files::FilesError;
use super::host_paths::HostPathError;
use super::labels;
use super::mounts;
use super::networks::NetworkError;
use super::observe::{Existing, Found};
use super::subpaths::SubpathError;
use crate::docker_error::{self, DockerError};
use crate::images::{ImageRequest, Update};
use crate::one_line::one_line;
use crate::watchdog::{Target, WatchdogError};

/// How often "create" and "start" are tried when others interfere (a removal, a pull).
const MAX_ATTEMPTS: usize = 4;

/// What a container is brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// It exists, with everything that it needs, and was not started.
    Prepared,
    Running,
}

/// Why a container was not started. Each error but the first two is one line for people.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The instance is to be removed.
    #[error("the start was cancelled")]
    Cancelled,
    /// The engine cannot be reached.
    #[error("{0}")]
    Unreachable(Error),
    /// Its image cannot be had.
    #[error("{0}")]
    NoImage(String),
    /// A fault of this node, which another may not have.
    #[error("{0}")]
    Node(String),
    #[error(transparent)]
    ImageId(#[from] DigestError),
    #[error("Docker cannot look up its image: {0}")]
    Image(DockerError),
    #[error("the transfer of its image was interrupted")]
    PullInterrupted,
    #[error(
        "the name {0} is taken by a container of another owner; remove it with 'docker rm {0}'"
    )]
    NameTaken(String),
    #[error("the container {0} was removed by another program while it was started")]
    RemovedMeanwhile(String),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    HostPath(#[from] HostPathError),
    /// Secrets are not sent over the network.
    #[error("secrets and configs need a Docker engine on this host, but it is at {0}")]
    RemoteFiles(String),
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// Links in a directory lead out of it, or it does not exist.
    #[error(transparent)]
    NotMounted(#[from] SubpathError),
    /// The engine would mount all of a network file system, or of a volume of another host.
    #[error(
        "volume.subpath ({0}) of this volume needs Docker 26 or later on this node: mount the whole volume, or place the service on another node"
    )]
    Subpath(String),
    /// It would run under a lease, and nothing would end it with the lease.
    #[error(transparent)]
    Watchdog(#[from] WatchdogError),
    /// The engine refused; what it was asked for, and its answer.
    #[error("Docker cannot {0}: {1}")]
    Docker(&'static str, String),
    #[error("Docker cannot connect it to network {0}: {1}")]
    Connect(String, String),
    /// It has the network of an instance that does not run.
    #[error("{0} does not run, or has no network of its own, which this is to have too")]
    NoNetwork(Slot),
    #[error("{0}")]
    Start(String),
    /// It belongs to a client, which is not there.
    #[error("no client attached to it within {} s", ATTACH_TIMEOUT.as_secs())]
    NotAttached,
}

impl StartError {
    /// Returns `refused` with the engine's message, unless the engine cannot be reached.
    fn of(error: Error, refused: impl FnOnce(String) -> Self) -> Self {
        if docker_error::is_unreachable(&error) {
            return Self::Unreachable(error);
        }
        let refused = refused(docker_error::message(&error));
        match docker_error::is_node_fault(docker_error::raw_message(&error)) {
            true => Self::Node(refused.to_string()),
            false => refused,
        }
    }
}

impl From<NetworkError> for StartError {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::PoolFull { .. } | NetworkError::PoolTaken { .. } => {
                Self::Node(error.to_string())
            }
            NetworkError::Docker(error) => {
                Self::of(error, |message| Self::Docker("create its networks", message))
            }
        }
    }
}

impl From<DockerError> for StartError {
    fn from(error: DockerError) -> Self {
        match error {
            DockerError::Engine(error) if docker_error::is_unreachable(&error) => {
                Self::Unreachable(error)
            }
            error => Self::Image(error),
        }
    }
}

impl DockerClient {
    /// Creates a container, and starts it if that is the goal. What prevents it (a missing image, the container itself) shows in the answers,
    /// so nothing is queried before.
    pub(super) async fn reach_goal(
        &self,
        goal: Goal,
        id: &InstanceId,
        spec: &ContainerSpec,
        epoch: Option<u64>,
        cancel: &CancellationToken,
    ) -> Result<Observed, StartError> {
        if epoch.is_some() && !self.is_local() {
            return Err(StartError::Node(format!(
                "exclusive services need a Docker engine on this host, but it is at {}",
                self.host
            )));
        }
        let name = labels::container_name(&self.identity, id);
        let client = self.client().map_err(StartError::Unreachable)?;
        let mut options = CreateContainerOptionsBuilder::default().name(&name);
        if let Some(platform) = &spec.platform {
            options = options.platform(platform);
        }
        let options = options.build();
        let project = &id.slot.service.project;
        let mounted: Vec<String> =
            self.volume_names_of(project, spec).keys().map(ToString::to_string).collect();
        let (placed, parts) = self.placed(&client, project, spec).await?;
        let spec = &placed;
        let mut pulled = false;
        for _ in 0..MAX_ATTEMPTS {
            let hidden = self.protected.check(&mounts::checked(spec, &parts))?;
            self.create_host_paths(spec).await?;
            self.check_engine(&client, id, spec).await?;
            // Before the permit: a server may have to be asked for them.
            let files = tokio::select! {
                () = cancel.cancelled() => return Err(StartError::Cancelled),
                written = self.write_files(&name, id, spec) => written?,
            };
            // The semaphore is never closed.
            let permit = self.starts.acquire().await;
            self.create_volumes(project, spec).await.map_err(|error| {
                StartError::of(error, |message| StartError::Docker("create its volumes", message))
            })?;
            let networks = self.network_names(project, spec);
            let volumes = self.volume_names_of(project, spec);
            let dns = match spec.network_mode {
                None => self.dns_servers(&spec.settings.dns),
                // The cluster's server answers containers in its networks only.
                Some(_) if spec.settings.dns.is_empty() => None,
                Some(_) => Some(spec.settings.dns.iter().map(ToString::to_string).collect()),
            };
            let network_of = match spec.network_owner(&id.slot) {
                None => None,
                Some(owner) => {
                    let found = self.network_container(&owner).await;
                    let found = found.map_err(StartError::Unreachable)?;
                    Some(found.ok_or(StartError::NoNetwork(owner))?)
                }
            };
            let joins = network_of.as_ref().map(|container| format!("container:{container}"));
            let pinned = spec.image_id.as_deref().map(str::parse).transpose()?;
            let image = self.images.engine_name(&spec.image, pinned.as_ref()).await?;
            let context = ContainerContext {
                networks,
                network_of,
                image,
                volumes,
                dns,
                files,
                epoch,
                hidden,
            };
            let mut confined = self.confined(spec).await?;
            // Until it is started.
            let attached = self.attach_parts(&name, &mut confined, &parts).await?;
            let body = container::body(&self.identity, id, &confined, &context);
            // Networks have to exist when the container is started, not before.
            let (created, networks) = tokio::join!(
                client.create_container(Some(options.clone()), body),
                self.ensure_networks(project, spec),
            );
            networks?;
            let container = match created {
                Ok(created) => created.id,
                // Podman wants its networks before. They are there by now.
                Err(error) if lacks_network(&docker_error::message(&error)) => continue,
                Err(error) if docker_error::status(&error) == Some(404) && !pulled => {
                    drop((permit, attached));
                    self.pull(id, spec, cancel).await?;
                    pulled = true;
                    continue;
                }
                Err(error) if docker_error::status(&error) == Some(409) => {
                    match self.find(id).await.map_err(StartError::Unreachable)? {
                        Found::Ours(existing)
                            if replaces(&existing, epoch)
                                || joins.is_some() && existing.network != joins =>
                        {
                            drop(permit);
                            self.kill_and_remove(id, &name).await.map_err(|error| {
                                StartError::of(error, |message| {
                                    StartError::Docker(
                                        "remove the container of another epoch or network",
                                        message,
                                    )
                                })
                            })?;
                            continue;
                        }
                        Found::Ours(existing)
                            if matches!(existing.observed.phase, Phase::Running { .. }) =>
                        {
                            // It runs: without the watchdog, the engine alone stops it in time.
                            if epoch.is_some() {
                                let target = Target::Container(existing.container);
                                if let Err(error) = self.watchdog.target(id, target).await {
                                    tracing::warn!(instance = %id, %error, "a running container is not watched");
                                }
                            }
                            return Ok(existing.observed);
                        }
                        Found::Ours(existing) => existing.container,
                        Found::Nothing => continue,
                        Found::Removing => {
                            drop(permit);
                            self.wait_removed(&name).await.map_err(StartError::Unreachable)?;
                            continue;
                        }
                        Found::Foreign => {
                            return Err(StartError::NameTaken(name));
                        }
                    }
                }
                Err(error) => {
                    let refused = |message| StartError::Docker("create the container", message);
                    return Err(StartError::of(error, refused));
                }
            };
            match self.connect(&client, &name, &context.networks).await {
                // It was removed meanwhile.
                Err(StartError::Connect(..)) if self.is_absent(id).await => continue,
                connected => connected?,
            }
            if goal == Goal::Prepared {
                let (id, phase, address) = (id.clone(), Phase::Prepared, String::new());
                return Ok(Observed { id, phase, address });
            }
            if epoch.is_some() {
                self.watchdog.target(id, Target::Container(container.clone())).await?;
            }
            if spec.attach {
                drop(permit);
                tokio::select! {
                    () = cancel.cancelled() => {
                        self.attached.remove(&container);
                        return Err(StartError::Cancelled);
                    }
                    attached = self.attached.wait(&container) => {
                        if !attached {
                            return Err(StartError::NotAttached);
                        }
                    }
                }
            }
            let turn = self.turns.acquire(mounted.iter().cloned()).await;
            // By its id: the watchdog knows no other.
            let started = client.start_container(&container, None).await;
            self.attached.remove(&container);
            drop(turn);
            match started {
                Ok(()) => {
                    tracing::info!(
                        container = &container[..12.min(container.len())],
                        "container started"
                    );
                    return Ok(self.observe_started(id).await);
                }
                // It was removed meanwhile. A 404 may also mean a program that is not in the image.
                Err(error)
                    if docker_error::status(&error) == Some(404) && self.is_absent(id).await => {}
                Err(error) => {
                    let message = docker_error::start_message(&error);
                    return Err(StartError::of(error, |_| StartError::Start(message)));
                }
            }
        }
        Err(StartError::RemovedMeanwhile(name))
    }

    /// Warns of what the engine leaves out.
    async fn check_engine(
        &self,
        client: &bollard::Docker,
        id: &InstanceId,
        spec: &ContainerSpec,
    ) -> Result<(), StartError> {
        let start_interval = spec.healthcheck.as_ref().and_then(|check| check.start_interval_ms);
        if start_interval.is_none() {
            return Ok(());
        }
        let info = self.info.get(client, &self.host).await.map_err(DockerError::Engine)?;
        if !info.start_interval {
            tracing::warn!(instance = %id, "healthcheck.start_interval has no effect: the Docker engine is older than 25");
        }
        Ok(())
    }

    /// Writes the secrets and configs of a container, unless they are there. Returns their directory, if it has any.
    async fn write_files(
        &self,
        name: &str,
        id: &InstanceId,
        spec: &ContainerSpec,
    ) -> Result<Option<PathBuf>, StartError> {
        if spec.files.is_empty() {
            return Ok(None);
        }
        if !self.is_local() {
            return Err(StartError::RemoteFiles(self.host.to_string()));
        }
        let client = self.client().map_err(StartError::Unreachable)?;
        let info = self.info.get(&client, &self.host).await.map_err(DockerError::Engine)?;
        let root = info.user_namespace.unwrap_or_default();
        Ok(Some(self.files.write(name, id, spec, root).await?))
    }

    /// Returns Docker's names of the volumes that a container mounts.
    fn volume_names_of(&self, project: &Name, spec: &ContainerSpec) -> BTreeMap<VolumeKey, String> {
        let key = |volume: &Name| VolumeKey { project: project.clone(), volume: volume.clone() };
        let keys = spec.mounts.iter().filter_map(|mount| match mount {
            Mount::Volume { name, .. } => Some(key(name)),
            _ => None,
        });
        keys.map(|key| (key.clone(), self.volume_names.of(&self.identity, &key))).collect()
    }

    /// Connects a created container to the rest of its networks.
    async fn connect(
        &self,
        client: &bollard::Docker,
        name: &str,
        networks: &[String],
    ) -> Result<(), StartError> {
        for network in networks.iter().skip(1) {
            let request =
                NetworkConnectRequest { container: name.to_owned(), endpoint_config: None };
            match client.connect_network(network, request).await {
                // It is connected already, by an earlier start.
                Err(error) if docker_error::status(&error) == Some(403) => {}
                Err(error) => {
                    let refused = |message| StartError::Connect(network.clone(), message);
                    return Err(StartError::of(error, refused));
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn is_absent(&self, id: &InstanceId) -> bool {
        matches!(self.find(id).await, Ok(Found::Nothing | Found::Removing))
    }

    /// Pulls the image, and reports the progress.
    async fn pull(
        &self,
        id: &InstanceId,
        spec: &ContainerSpec,
        cancel: &CancellationToken,
    ) -> Result<(), StartError> {
        let pinned = spec.image_id.as_deref().map(str::parse).transpose();
        let mut transfer = self.images.pull(ImageRequest {
            reference: spec.image.clone(),
            id: pinned?,
            platform: spec.platform.clone(),
        });
        let mut progress = String::new();
        loop {
            let phase = Phase::Pulling { progress };
            let observed = Observed { id: id.clone(), phase, address: String::new() };
            self.reporter.answer(observed).await;
            let update = tokio::select! {
                () = cancel.cancelled() => return Err(StartError::Cancelled),
                update = transfer.next() => update,
            };
            match update {
                Some(Update::Progress(text)) => progress = text,
                Some(Update::Done(Ok(()))) => return Ok(()),
                Some(Update::Done(Err(error))) => {
                    let error = one_line(&error.to_string());
                    return Err(match docker_error::is_node_fault(&error) {
                        true => StartError::Node(error),
                        false => StartError::NoImage(error),
                    });
                }
                None => return Err(StartError::PullInterrupted),
            }
        }
    }
}

/// Reports whether a start under an epoch needs a container other than this one. One that was created without a lease, and runs,
/// goes on: it is the only one of its slot.
fn replaces(existing: &Existing, epoch: Option<u64>) -> bool {
    let runs = matches!(existing.observed.phase, Phase::Running { .. });
    epoch.is_some() && existing.epoch != epoch && !(runs && existing.epoch.is_none())
}

/// Reports whether an engine refused to create a container because a network of it did not exist.
fn lacks_network(message: &str) -> bool {
    message.contains("network")
        && ["not found", "unable to find"].iter().any(|it| message.contains(it))
}
