//! Starting and removing containers.

use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures::StreamExt as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vc_engine::runtime::{InstanceId, Observed, Phase};
use vc_protocol::spec::ContainerSpec;

use super::observe::Found;
use super::{Engine, container, reason};
use crate::runtime::now;

/// A pull that shows no progress for so long has failed.
const PULL_IDLE: Duration = Duration::from_secs(300);
/// How long a container on its way out may take, and Docker to stop one beyond its grace.
const REMOVAL: Duration = Duration::from_secs(60);
/// How often the way from "create" to "start" is taken when others interfere (a removal, a pull).
const TRIES: usize = 4;

/// Why there was no start.
pub(super) enum Refusal {
    /// It cannot be, for this reason.
    Failed(String),
    /// It is no longer wanted.
    Cancelled,
    /// The engine is out of reach.
    Lost(Error),
}

impl Refusal {
    fn of(error: Error, tell: impl FnOnce(&Error) -> String) -> Self {
        if reason::is_lost(&error) { Self::Lost(error) } else { Self::Failed(tell(&error)) }
    }
}

impl Engine {
    /// Creates and starts a container in two calls. What is in the way (no image, the container itself) shows in their
    /// answers, so nothing is asked before.
    pub(super) async fn start_container(
        &self,
        id: &InstanceId,
        spec: &ContainerSpec,
        cancel: &CancellationToken,
    ) -> Result<Observed, Refusal> {
        let name = container::name(&self.identity, id);
        let client = self.client().map_err(Refusal::Lost)?;
        let mut options = CreateContainerOptionsBuilder::default().name(&name);
        if let Some(platform) = &spec.platform {
            options = options.platform(platform);
        }
        let options = options.build();
        let mut pulled = false;
        for _ in 0..TRIES {
            // Never closed.
            let permit = self.starts.acquire().await;
            let body = container::body(&self.identity, id, spec);
            match client.create_container(Some(options.clone()), body).await {
                Ok(_) => {}
                Err(error) if reason::status(&error) == Some(404) && !pulled => {
                    drop(permit);
                    self.pull(id, spec, cancel).await?;
                    pulled = true;
                    continue;
                }
                Err(error) if reason::status(&error) == Some(409) => {
                    match self.find(id).await.map_err(Refusal::Lost)? {
                        Found::Ours(observed)
                            if matches!(observed.phase, Phase::Running { .. }) =>
                        {
                            return Ok(observed);
                        }
                        Found::Ours(_) => {}
                        Found::Nothing => continue,
                        Found::Leaving => {
                            drop(permit);
                            self.wait_removed(&name).await.map_err(Refusal::Lost)?;
                            continue;
                        }
                        Found::Foreign => {
                            let told = format!(
                                "the name {name} is taken by a container that is not ours: docker rm {name}"
                            );
                            return Err(Refusal::Failed(told));
                        }
                    }
                }
                Err(error) => {
                    let tell =
                        |error: &Error| format!("Docker cannot create it: {}", reason::of(error));
                    return Err(Refusal::of(error, tell));
                }
            }
            match client.start_container(&name, None).await {
                // Its address follows: the engine's event makes us look.
                Ok(()) => {
                    let phase = Phase::Running { health: None, started: now() };
                    return Ok(Observed { id: id.clone(), phase, address: String::new() });
                }
                // Somebody removed it in between. A 404 may also mean a program that is not in the image.
                Err(error) if reason::status(&error) == Some(404) && self.is_absent(id).await => {}
                Err(error) => {
                    return Err(Refusal::of(error, |error| reason::of_start(error)));
                }
            }
        }
        Err(Refusal::Failed(format!("somebody keeps removing the container {name}")))
    }

    async fn is_absent(&self, id: &InstanceId) -> bool {
        matches!(self.find(id).await, Ok(Found::Nothing | Found::Leaving))
    }

    async fn pull(
        &self,
        id: &InstanceId,
        spec: &ContainerSpec,
        cancel: &CancellationToken,
    ) -> Result<(), Refusal> {
        let observed = Observed {
            id: id.clone(),
            phase: Phase::Pulling { progress: String::new() },
            address: String::new(),
        };
        self.reports.answer(observed).await;
        tokio::select! {
            () = cancel.cancelled() => Err(Refusal::Cancelled),
            outcome = async {
                let _permit = self.pulls.acquire().await;
                self.pull_image(spec).await
            } => outcome.map_err(|error| Refusal::of(error, |error| {
                format!("image {} is not on this machine and cannot be pulled: {}", spec.image, reason::of(error))
            })),
        }
    }

    async fn pull_image(&self, spec: &ContainerSpec) -> Result<(), Error> {
        let mut options =
            CreateImageOptionsBuilder::default().from_image(&container::tagged(&spec.image));
        if let Some(platform) = &spec.platform {
            options = options.platform(platform);
        }
        let client = self.client()?.with_timeout(PULL_IDLE);
        let mut progress = Box::pin(client.create_image(Some(options.build()), None, None));
        loop {
            match timeout(PULL_IDLE, progress.next()).await {
                Ok(Some(step)) => step.map(drop)?,
                Ok(None) => return Ok(()),
                Err(_) => {
                    return Err(Error::DockerStreamError {
                        error: "there is no progress any more".into(),
                    });
                }
            }
        }
    }

    /// Stops it within its grace, then removes it with its anonymous volumes.
    pub(super) async fn remove_container(
        &self,
        id: &InstanceId,
        grace: Duration,
    ) -> Result<(), Error> {
        let name = container::name(&self.identity, id);
        let _permit = self.removals.acquire().await;
        match self.find(id).await? {
            Found::Nothing => return Ok(()),
            Found::Foreign => {
                tracing::warn!(instance = %id, name, "a container of this name is not ours: it is left alone");
                return Ok(());
            }
            Found::Leaving => return self.wait_removed(&name).await,
            Found::Ours(_) => {}
        }
        // The answer comes when it has stopped.
        let client = self.client()?.with_timeout(grace.saturating_add(REMOVAL));
        let seconds = i32::try_from(container::seconds(grace)).unwrap_or(i32::MAX);
        match client
            .stop_container(&name, Some(StopContainerOptionsBuilder::default().t(seconds).build()))
            .await
        {
            Err(error) if reason::is_lost(&error) => return Err(error),
            Err(error) if reason::status(&error) != Some(404) => {
                tracing::debug!(instance = %id, error = reason::of(&error), "cannot stop a container: it is killed");
            }
            _ => {}
        }
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match client.remove_container(&name, Some(options)).await {
            Err(error) => match reason::status(&error) {
                Some(404) => Ok(()),
                // "removal of container … is already in progress"
                Some(409) => self.wait_removed(&name).await,
                _ => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }

    /// Waits until a container that is on its way out is gone.
    async fn wait_removed(&self, name: &str) -> Result<(), Error> {
        let client = self.client()?.with_timeout(REMOVAL);
        let options = WaitContainerOptionsBuilder::default().condition("removed").build();
        let mut ended = Box::pin(client.wait_container(name, Some(options)));
        match timeout(REMOVAL, ended.next()).await {
            Err(_) => Err(Error::RequestTimeoutError),
            Ok(Some(Err(error))) if reason::is_lost(&error) => Err(error),
            // Whatever its exit code was.
            Ok(_) => Ok(()),
        }
    }
}
