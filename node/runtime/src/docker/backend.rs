//! Performs the engine's actions on containers, retrying while the Docker engine is unreachable.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vc_engine::runtime::{InstanceId, Observed, Phase};
use vc_protocol::spec::ContainerSpec;

use super::client::DockerClient;
use super::start::{Goal, StartError};
use crate::docker_error;
use crate::instance_queue::Backend;

/// When an action is retried that did not reach the engine, unless the engine is connected to before.
const RETRY: Duration = Duration::from_secs(30);

impl Backend for DockerClient {
    async fn start(
        &self,
        id: InstanceId,
        spec: Box<ContainerSpec>,
        epoch: Option<u64>,
        cancel: CancellationToken,
    ) {
        self.reach(Goal::Running, id, spec, epoch, cancel).await;
    }

    async fn prepare(
        &self,
        id: InstanceId,
        spec: Box<ContainerSpec>,
        epoch: Option<u64>,
        cancel: CancellationToken,
    ) {
        self.reach(Goal::Prepared, id, spec, epoch, cancel).await;
    }

    async fn remove(&self, id: InstanceId, grace: Duration) {
        let mut connections = self.connections.subscribe();
        loop {
            connections.mark_unchanged();
            let Err(error) = self.remove_container(&id, grace).await else {
                self.watchdog.removed(&id);
                let gone = Observed { id, phase: Phase::Gone, address: String::new() };
                return self.reporter.answer(gone).await;
            };
            let message = docker_error::message(&error);
            if !docker_error::is_unreachable(&error) {
                // The engine repeats the action.
                return tracing::warn!(instance = %id, error = message, "cannot remove a container");
            }
            tracing::debug!(instance = %id, error = message, "Docker is unreachable; retrying the removal");
            let _ = timeout(RETRY, connections.changed()).await;
        }
    }

    async fn inspect(&self, id: InstanceId) {
        match self.observe(&id).await {
            Ok(observed) => self.reporter.observed(observed).await,
            Err(error) => {
                let error = docker_error::message(&error);
                tracing::debug!(instance = %id, error, "cannot inspect a container");
            }
        }
    }
}

impl DockerClient {
    /// Brings an instance to a goal and answers with what it is then, retrying while the engine is unreachable.
    async fn reach(
        &self,
        goal: Goal,
        id: InstanceId,
        spec: Box<ContainerSpec>,
        epoch: Option<u64>,
        cancel: CancellationToken,
    ) {
        let mut connections = self.connections.subscribe();
        loop {
            connections.mark_unchanged();
            let phase = match self.reach_goal(goal, &id, &spec, epoch, &cancel).await {
                Ok(observed) => return self.reporter.answer(observed).await,
                Err(StartError::Cancelled) => return,
                // The watcher reports the outage.
                Err(StartError::Unreachable(error)) => {
                    let error = docker_error::message(&error);
                    tracing::debug!(instance = %id, error, "Docker is unreachable; retrying the start");
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        _ = timeout(RETRY, connections.changed()) => continue,
                    }
                }
                Err(StartError::NoImage(error)) => Phase::NoImage { reason: error.to_string() },
                Err(StartError::Node(reason)) => Phase::NodeFault { reason },
                Err(StartError::Watchdog(error)) => Phase::NodeFault { reason: error.to_string() },
                Err(error) => Phase::Failed { reason: error.to_string() },
            };
            return self.reporter.answer(Observed { id, phase, address: String::new() }).await;
        }
    }
}
