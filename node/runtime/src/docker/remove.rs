//! Removing containers.

use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::{
    RemoveContainerOptionsBuilder, StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures::StreamExt as _;
use tokio::time::timeout;
use vc_engine::runtime::InstanceId;

use super::observe::Found;
use super::{Engine, container};
use crate::reason;

/// How long a container on its way out may take, and Docker to stop one beyond its grace.
const REMOVAL: Duration = Duration::from_secs(60);

impl Engine {
    /// Stops it within its grace, then removes it with its anonymous volumes and its files.
    pub(super) async fn remove_container(
        &self,
        id: &InstanceId,
        grace: Duration,
    ) -> Result<(), Error> {
        let name = container::name(&self.identity, id);
        self.stop_and_remove(id, &name, grace).await?;
        self.files.remove(&name);
        Ok(())
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
                tracing::warn!(instance = %id, name, "a container of this name is not ours: it is left alone");
                return Ok(());
            }
            Found::Leaving => return self.wait_removed(name).await,
            Found::Ours(_) => {}
        }
        // The answer comes when it has stopped.
        let client = self.client()?.with_timeout(grace.saturating_add(REMOVAL));
        let seconds = i32::try_from(container::seconds(grace)).unwrap_or(i32::MAX);
        match client
            .stop_container(name, Some(StopContainerOptionsBuilder::default().t(seconds).build()))
            .await
        {
            Err(error) if reason::is_lost(&error) => return Err(error),
            Err(error) if reason::status(&error) != Some(404) => {
                tracing::debug!(instance = %id, error = reason::of(&error), "cannot stop a container: it is killed");
            }
            _ => {}
        }
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match client.remove_container(name, Some(options)).await {
            Err(error) => match reason::status(&error) {
                Some(404) => Ok(()),
                // "removal of container … is already in progress"
                Some(409) => self.wait_removed(name).await,
                _ => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }

    /// Waits until a container that is on its way out is gone.
    pub(super) async fn wait_removed(&self, name: &str) -> Result<(), Error> {
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
