//! Attaching to a container before it starts, so that nothing of what it writes is missed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerSummaryStateEnum;
use tokio::sync::watch;
use tokio::time::timeout;
use vc_protocol::InstanceId;
use vc_protocol::control::ExecRequest;

use super::client::DockerClient;
use super::exec::{Exec, ExecProcess, START_TIMEOUT};
use super::hijack::{ExecOutput, hijack};
use crate::error::RuntimeError;

/// How long a container waits for its client.
pub(super) const ATTACH_TIMEOUT: Duration = Duration::from_secs(30);

/// The containers that a client is attached to and that have not been started, by their ids: at most one for each client.
#[derive(Debug, Clone, Default)]
pub(super) struct Attached(Arc<watch::Sender<BTreeSet<String>>>);

impl Attached {
    /// Waits until a client is attached to a container, for at most [`ATTACH_TIMEOUT`]. Returns whether one is.
    pub(super) async fn wait(&self, container: &str) -> bool {
        let mut attached = self.0.subscribe();
        let attached = attached.wait_for(|attached| attached.contains(container));
        timeout(ATTACH_TIMEOUT, attached).await.is_ok()
    }

    /// Forgets the client of a container that was started, or is not to be.
    pub(super) fn remove(&self, container: &str) {
        self.0.send_if_modified(|attached| attached.remove(container));
    }

    fn add(&self, container: &str) {
        self.0.send_modify(|attached| {
            attached.insert(container.to_owned());
        });
    }

    fn contains(&self, container: &str) -> bool {
        self.0.borrow().contains(container)
    }
}

impl DockerClient {
    /// Attaches to the container of an instance that waits for it, and which then starts.
    pub(super) async fn attach(
        &self,
        instance: &InstanceId,
        request: &ExecRequest,
    ) -> Result<Exec, RuntimeError> {
        let late = || RuntimeError::ExecTimeout(START_TIMEOUT.as_secs());
        timeout(START_TIMEOUT, self.start_attached(instance, request)).await.map_err(|_| late())?
    }

    async fn start_attached(
        &self,
        instance: &InstanceId,
        request: &ExecRequest,
    ) -> Result<Exec, RuntimeError> {
        let client = self.client().map_err(|error| self.error(error))?;
        let not_waiting = || RuntimeError::NotWaiting(instance.slot.clone());
        // Its image may have to be fetched first: the client asks again.
        let container = match self.instance_container(&client, instance).await? {
            Some((id, ContainerSummaryStateEnum::CREATED)) => id,
            _ => return Err(not_waiting()),
        };
        if self.attached.contains(&container) {
            return Err(not_waiting());
        }
        let stdin = u8::from(request.stdin);
        let path =
            format!("/containers/{container}/attach?stream=1&stdout=1&stderr=1&stdin={stdin}");
        let attached = hijack(&self.host, &path, String::new()).await;
        // One whose creation failed is gone again, and another one follows.
        let (input, output) = attached.map_err(|error| {
            let is_gone = error.to_string().contains("No such container");
            if is_gone { not_waiting() } else { RuntimeError::Exec(error) }
        })?;
        self.attached.add(&container);
        let output = ExecOutput::new(output, request.tty);
        let process = ExecProcess::of_container(client, container);
        if let (true, Some((columns, rows))) = (request.tty, request.size) {
            process.set_initial_size(columns, rows).await;
        }
        Ok(Exec { input: Box::pin(input), output, process })
    }
}
