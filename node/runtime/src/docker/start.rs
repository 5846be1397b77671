//! Starting containers.

use bollard::errors::Error;
use bollard::models::NetworkConnectRequest;
use bollard::query_parameters::CreateContainerOptionsBuilder;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use vc_engine::runtime::{InstanceId, Observed, Phase};
use vc_protocol::spec::ContainerSpec;

use super::container::Surroundings;
use super::observe::Found;
use super::{Engine, container};
use crate::clock::now;
use crate::images::manifest::DigestError;
use crate::images::{News, Want};
use crate::reason;
use crate::text::one_line;

/// How often the way from "create" to "start" is taken when others interfere (a removal, a pull).
const TRIES: usize = 4;

/// Why there was no start.
pub(super) enum Refusal {
    /// It cannot be, for this reason.
    Failed(String),
    /// Its image is not to be had, for this reason.
    NoImage(String),
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
    /// Creates and starts a container. What is in the way (no image, the container itself) shows in the answers, so
    /// nothing is asked before.
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
            let around = self.surround(&name, id, spec).await?;
            let body = container::body(&self.identity, id, spec, &around);
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
            match self.connect(&client, &name, &around.networks).await {
                // Somebody removed it in between.
                Err(Refusal::Failed(_)) if self.is_absent(id).await => continue,
                outcome => outcome?,
            }
            match client.start_container(&name, None).await {
                // Its address follows: the engine's event makes us look.
                Ok(()) => {
                    let phase =
                        Phase::Running { health: None, started: now(), said: String::new() };
                    return Ok(Observed { id: id.clone(), phase, address: String::new() });
                }
                // Somebody removed it in between. A 404 may also mean a program that is not in the image.
                Err(error) if reason::status(&error) == Some(404) && self.is_absent(id).await => {}
                Err(error) => {
                    return Err(Refusal::of(error, reason::of_start));
                }
            }
        }
        Err(Refusal::Failed(format!("somebody keeps removing the container {name}")))
    }

    /// Makes what a container needs before it can be made or started again: its files, volumes, networks.
    async fn surround(
        &self,
        name: &str,
        id: &InstanceId,
        spec: &ContainerSpec,
    ) -> Result<Surroundings, Refusal> {
        let files = if spec.files.is_empty() {
            None
        } else if self.host.starts_with("unix://") {
            let (files, project) = (self.files.clone(), id.slot.service.project.clone());
            let (name, spec) = (name.to_owned(), spec.clone());
            let placed = spawn_blocking(move || files.place(&project, &name, &spec)).await;
            let placed = placed.unwrap_or_else(|_| Err("its secrets cannot be opened".to_owned()));
            Some(placed.map_err(Refusal::Failed)?)
        } else {
            return Err(Refusal::Failed(format!(
                "it has secrets or configs, and Docker at {} may be on another node: they are not sent there",
                self.host
            )));
        };
        let project = &id.slot.service.project;
        self.make_volumes(project, spec).await.map_err(|error| {
            Refusal::of(error, |error| {
                format!("Docker cannot make its volumes: {}", reason::of(error))
            })
        })?;
        let networks = self.networks_of(project, spec).await.map_err(|error| {
            Refusal::of(error, |error| {
                format!("Docker cannot make its networks: {}", reason::of(error))
            })
        })?;
        Ok(Surroundings { networks, resolvers: self.resolvers(), files })
    }

    /// Connects a container that has been made to the rest of its networks.
    async fn connect(
        &self,
        client: &bollard::Docker,
        name: &str,
        networks: &[String],
    ) -> Result<(), Refusal> {
        for network in networks.iter().skip(1) {
            let request =
                NetworkConnectRequest { container: name.to_owned(), endpoint_config: None };
            match client.connect_network(network, request).await {
                // An earlier start has come so far already.
                Err(error) if reason::status(&error) == Some(403) => {}
                Err(error) => {
                    let tell = |error: &Error| {
                        format!("Docker cannot connect it to {network}: {}", reason::of(error))
                    };
                    return Err(Refusal::of(error, tell));
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn is_absent(&self, id: &InstanceId) -> bool {
        matches!(self.find(id).await, Ok(Found::Nothing | Found::Leaving))
    }

    /// Gets the image from wherever it is, and tells how far that is.
    async fn pull(
        &self,
        id: &InstanceId,
        spec: &ContainerSpec,
        cancel: &CancellationToken,
    ) -> Result<(), Refusal> {
        let pinned = spec.image_id.as_deref().map(str::parse).transpose();
        let mut transfer = self.images.obtain(Want {
            reference: spec.image.clone(),
            id: pinned.map_err(|error: DigestError| Refusal::Failed(error.to_string()))?,
            platform: spec.platform.clone(),
        });
        let mut progress = String::new();
        loop {
            let phase = Phase::Pulling { progress };
            let observed = Observed { id: id.clone(), phase, address: String::new() };
            self.reports.answer(observed).await;
            let news = tokio::select! {
                () = cancel.cancelled() => return Err(Refusal::Cancelled),
                news = transfer.next() => news,
            };
            match news {
                Some(News::Progress(now)) => progress = now,
                Some(News::Outcome(Ok(()))) => return Ok(()),
                Some(News::Outcome(Err(reason))) => {
                    return Err(Refusal::NoImage(one_line(&reason)));
                }
                None => {
                    return Err(Refusal::Failed("the transfer of its image broke down".to_owned()));
                }
            }
        }
    }
}
