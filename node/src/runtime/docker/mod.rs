//! Instances as containers of a Docker engine.
//!
//! A container belongs to us by its labels, and its name follows from the instance: so a start is `create` and `start`
//! with no question before, and a second start of the same instance meets the first one's container. Containers outlive
//! the node: what carries our labels when the engine answers is ours again.

mod container;
mod logs;
mod observe;
mod reason;
mod start;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use vc_engine::runtime::{InstanceId, Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_protocol::Slot;
use vc_protocol::spec::ContainerSpec;

use super::lane::{self, Backend, Reports};
use super::{Identity, LogLines, LogQuery, RuntimeError};

/// Where Docker is when nobody says otherwise.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// How many containers are created and started at a time.
const STARTS: usize = 16;
/// How many containers are stopped and removed at a time: each may take its whole grace.
const REMOVALS: usize = 64;
/// How many images are pulled at a time.
const PULLS: usize = 8;

/// Which engine.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `unix:///path` or `tcp://host:port`; `None`: the environment's `DOCKER_HOST`, else [`DEFAULT_HOST`].
    pub host: Option<String>,
}

impl Config {
    fn host(self) -> String {
        let set = |host: &String| !host.is_empty();
        let host = self.host.filter(set).or_else(|| std::env::var("DOCKER_HOST").ok().filter(set));
        host.unwrap_or_else(|| DEFAULT_HOST.to_owned())
    }
}

/// A handle to the Docker runtime.
#[derive(Debug, Clone)]
pub struct Docker {
    actions: mpsc::Sender<RuntimeAction>,
    engine: Engine,
}

impl Docker {
    pub(super) fn start(config: Config, identity: Identity, events: mpsc::Sender<RuntimeEvent>) -> Self {
        let (reports, inbox) = lane::reports();
        let (actions, waiting) = mpsc::channel(lane::ACTIONS);
        let engine = Engine {
            host: config.host().into(),
            identity,
            reports,
            starts: Arc::new(Semaphore::new(STARTS)),
            removals: Arc::new(Semaphore::new(REMOVALS)),
            pulls: Arc::new(Semaphore::new(PULLS)),
        };
        let (backend, watcher) = (engine.clone(), engine.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = lane::run(backend, inbox, waiting, events) => {}
                () = watcher.watch() => {}
            }
        });
        Self { actions, engine }
    }

    pub(super) fn actions(&self) -> &mpsc::Sender<RuntimeAction> {
        &self.actions
    }

    pub(super) async fn logs(&self, slot: &Slot, query: LogQuery) -> Result<LogLines, RuntimeError> {
        self.engine.logs(slot, query).await
    }
}

/// A Docker engine, and whose containers of it are ours.
#[derive(Debug, Clone)]
struct Engine {
    host: Arc<str>,
    identity: Identity,
    reports: Reports,
    starts: Arc<Semaphore>,
    removals: Arc<Semaphore>,
    pulls: Arc<Semaphore>,
}

impl Engine {
    /// A client. It holds no connection (bollard makes one a request), so making it costs nothing; but it cannot be made
    /// while the socket is not there.
    fn client(&self) -> Result<bollard::Docker, Error> {
        bollard::Docker::connect_with_host(&self.host)
    }
}

impl Backend for Engine {
    async fn start(&self, id: InstanceId, spec: Box<ContainerSpec>, cancel: CancellationToken) {
        let outcome = self.start_container(&id, &spec, &cancel).await;
        match outcome {
            Ok(start::Started { phase, address }) => self.reports.answer(Observed { id, phase, address }).await,
            Err(start::Refusal::Failed(reason)) => {
                let phase = Phase::Failed { reason };
                self.reports.answer(Observed { id, phase, address: String::new() }).await;
            }
            Err(start::Refusal::Cancelled) => {}
            // The watcher notices the same, and says it once; the engine repeats the action afterwards.
            Err(start::Refusal::Lost(error)) => {
                tracing::debug!(instance = %id, error = reason::of(&error), "Docker was lost while it started this");
            }
        }
    }

    async fn remove(&self, id: InstanceId, grace: Duration) {
        match self.remove_container(&id, grace).await {
            Ok(()) => self.reports.answer(Observed { id, phase: Phase::Gone, address: String::new() }).await,
            Err(error) => tracing::warn!(instance = %id, error = reason::of(&error), "cannot remove a container"),
        }
    }

    async fn look(&self, id: InstanceId) {
        match self.observe(&id).await {
            Ok(observed) => self.reports.saw(observed).await,
            Err(error) => tracing::debug!(instance = %id, error = reason::of(&error), "cannot look at a container"),
        }
    }
}
