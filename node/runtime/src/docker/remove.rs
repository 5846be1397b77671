//! Removing containers.

use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::{
    RemoveContainerOptionsBuilder, StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures::StreamExt as _;
use tokio::time::timeout;
use vc_engine::runtime::InstanceId;

use super::client::DockerClient;
use super::observe::Found;
use super::{labels, units};
use crate::docker_error;

/// How long Docker may take to remove a container, and to stop one after its grace time.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(60);

impl DockerClient {
    /// Stops the container of an instance within its grace time, then removes it with its anonymous volumes and its
    /// files. One that does not exist is not an error.
    pub(super) async fn remove_container(
        &self,
        id: &InstanceId,
        grace: Duration,
    ) -> Result<(), Error> {
        let name = labels::container_name(&self.identity, id);
        self.stop_and_remove(id, &name, grace).await?;
        self.files.remove(&name);
        Ok(())
    }

    /// Kills the container of an instance and removes it, but not its files.
    pub(super) async fn kill_and_remove(&self, id: &InstanceId, name: &str) -> Result<(), Error> {
        self.stop_and_remove(id, name, Duration::ZERO).await
    }

    async fn stop_and_remove(
        &self,
        id: &InstanceId,
        name: &str,
        grace: Duration,
    ) -> Result<(), Error> {
        let _permit = self.removals.acquire().await;
        match self.find(id).await? {
            Found::Nothing => return Ok(()),
            Found::Foreign => {
                tracing::warn!(instance = %id, name, "ignoring a container of another owner with this name");
                return Ok(());
            }
            Found::Removing => return self.wait_removed(name).await,
            Found::Ours(_) => {}
        }
        // Docker answers when it has stopped.
        let client = self.client()?.with_timeout(grace.saturating_add(REMOVAL_TIMEOUT));
        let seconds = i32::try_from(units::seconds(grace)).unwrap_or(i32::MAX);
        match client
            .stop_container(name, Some(StopContainerOptionsBuilder::default().t(seconds).build()))
            .await
        {
            Err(error) if docker_error::is_unreachable(&error) => return Err(error),
            Err(error) if docker_error::status(&error) != Some(404) => {
                tracing::debug!(instance = %id, error = docker_error::message(&error), "cannot stop a container; killing it");
            }
            _ => {}
        }
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match client.remove_container(name, Some(options)).await {
            Err(error) => match docker_error::status(&error) {
                Some(404) => Ok(()),
                // "removal of container … is already in progress"
                Some(409) => self.wait_removed(name).await,
                _ => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }

    /// Waits until a container that Docker is removing is gone.
    pub(super) async fn wait_removed(&self, name: &str) -> Result<(), Error> {
        let client = self.client()?.with_timeout(REMOVAL_TIMEOUT);
        let options = WaitContainerOptionsBuilder::default().condition("removed").build();
        let mut ended = Box::pin(client.wait_container(name, Some(options)));
        match timeout(REMOVAL_TIMEOUT, ended.next()).await {
            Err(_) => Err(Error::RequestTimeoutError),
            Ok(Some(Err(error))) if docker_error::is_unreachable(&error) => Err(error),
            // Its exit code does not matter.
            Ok(_) => Ok(()),
        }
    }
}
