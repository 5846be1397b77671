//! Instances as containers of a Docker engine.
//!
//! A container belongs to us by its labels, and its name follows from the instance: so a start is `create` and `start`
//! with no question before, and a second start of the same instance meets the first one's container. Containers outlive
//! the node: what carries our labels when the engine answers is ours again.

mod archive;
mod connection;
mod container;
mod exec;
mod files;
mod hijack;
mod logs;
mod networks;
mod observe;
mod remove;
mod start;
mod volumes;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bollard::errors::Error;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vc_engine::runtime::{InstanceId, Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_protocol::control::ExecRequest;
use vc_protocol::spec::ContainerSpec;
use vc_protocol::{Slot, VolumeKey};

pub use networks::Neighbour;

use self::files::Files;
use crate::images::Images;
use crate::lane::{self, Backend, Reports};
use crate::{Drain, Identity, LogLines, LogQuery, RuntimeError, reason};

pub use files::OpenFile;

pub use archive::{Archive, Upload};
pub use exec::{Exec, ExecProcess};
pub use hijack::ExecOutput;

/// Where Docker is when nobody says otherwise.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// How many containers are created and started at a time.
const STARTS: usize = 16;
/// How many containers are stopped and removed at a time: each may take its whole grace.
const REMOVALS: usize = 64;
/// An action that met no engine is tried again after so long, or when the engine is back.
const RETRY: Duration = Duration::from_secs(30);

/// Which engine, and what its containers read.
#[derive(Clone)]
pub struct Config {
    /// As [`host`] takes it.
    pub host: Option<String>,
    /// Where images come from that the engine does not have.
    pub images: Images,
    /// Opens secrets and configs.
    pub open: Arc<OpenFile>,
    /// Where they are kept: the first of these that is in memory. `None`: under /run, else under /dev/shm. The engine
    /// must see the same directory.
    pub memory: Option<Vec<PathBuf>>,
    /// Returns the DNS servers of a container that is about to be created.
    pub dns: Arc<DnsServers>,
}

/// Returns the addresses of DNS servers, in the order in which they are asked.
pub type DnsServers = dyn Fn() -> Vec<IpAddr> + Send + Sync;

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Where Docker is: `unix:///path` or `tcp://host:port`; `None`: the environment's `DOCKER_HOST`, else [`DEFAULT_HOST`].
pub fn host(given: Option<String>) -> String {
    let set = |host: &String| !host.is_empty();
    let host = given.filter(set).or_else(|| std::env::var("DOCKER_HOST").ok().filter(set));
    host.unwrap_or_else(|| DEFAULT_HOST.to_owned())
}

/// A handle to the Docker runtime.
#[derive(Debug, Clone)]
pub struct Docker {
    actions: mpsc::Sender<RuntimeAction>,
    engine: Engine,
}

impl Docker {
    pub(super) fn start(
        config: Config,
        identity: Identity,
        drain: Arc<dyn Drain>,
        events: mpsc::Sender<RuntimeEvent>,
    ) -> Self {
        let (reports, inbox) = lane::reports();
        let (actions, waiting) = mpsc::channel(lane::ACTIONS);
        let directories = || files::DIRECTORIES.map(PathBuf::from).into();
        let directories = config.memory.unwrap_or_else(directories);
        let engine = Engine {
            host: host(config.host).into(),
            images: config.images,
            identity,
            files: Files::new(directories, &identity, config.open),
            reports,
            starts: Arc::new(Semaphore::new(STARTS)),
            removals: Arc::new(Semaphore::new(REMOVALS)),
            connections: Arc::new(watch::Sender::new(0)),
            networks: networks::Wishes::default(),
            dns: DnsConfig { servers: config.dns, enabled: Arc::new(AtomicBool::new(true)) },
        };
        let (backend, watcher) = (engine.clone(), engine.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = lane::run(backend, drain, inbox, waiting, events) => {}
                () = watcher.watch() => {}
            }
        });
        Self { actions, engine }
    }

    pub(super) fn actions(&self) -> &mpsc::Sender<RuntimeAction> {
        &self.actions
    }

    pub(super) async fn remove_volume(&self, volume: &VolumeKey) {
        self.engine.remove_volume(volume).await;
    }

    pub(super) async fn logs(
        &self,
        slot: &Slot,
        query: LogQuery,
    ) -> Result<LogLines, RuntimeError> {
        self.engine.logs(slot, query).await
    }

    pub(super) async fn exec(
        &self,
        instance: &InstanceId,
        request: &ExecRequest,
    ) -> Result<Exec, RuntimeError> {
        self.engine.exec(instance, request).await
    }

    pub(super) async fn copy_out(
        &self,
        instance: &InstanceId,
        path: &str,
    ) -> Result<Archive, RuntimeError> {
        self.engine.copy_out(instance, path).await
    }

    pub(super) async fn copy_in(
        &self,
        instance: &InstanceId,
        path: &str,
        name: &str,
    ) -> Result<Upload, RuntimeError> {
        self.engine.copy_in(instance, path, name).await
    }
}

/// A Docker engine, and whose containers of it are ours.
#[derive(Debug, Clone)]
struct Engine {
    host: Arc<str>,
    images: Images,
    identity: Identity,
    files: Files,
    reports: Reports,
    starts: Arc<Semaphore>,
    removals: Arc<Semaphore>,
    /// Counts how often the engine was reached anew.
    connections: Arc<watch::Sender<u64>>,
    /// The networks that were asked for.
    networks: networks::Wishes,
    dns: DnsConfig,
}

/// The DNS servers that new containers are given, or Docker's defaults while they are disabled.
#[derive(Clone)]
struct DnsConfig {
    servers: Arc<DnsServers>,
    enabled: Arc<AtomicBool>,
}

impl fmt::Debug for DnsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsConfig").field("enabled", &self.enabled).finish_non_exhaustive()
    }
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
        let mut connections = self.connections.subscribe();
        loop {
            connections.mark_unchanged();
            let phase = match self.start_container(&id, &spec, &cancel).await {
                Ok(observed) => return self.reports.answer(observed).await,
                Err(start::Refusal::Failed(reason)) => Phase::Failed { reason },
                Err(start::Refusal::NoImage(reason)) => Phase::NoImage { reason },
                Err(start::Refusal::Cancelled) => return,
                // The watcher notices the same, and tells it once.
                Err(start::Refusal::Lost(error)) => {
                    tracing::debug!(instance = %id, error = reason::of(&error), "Docker was lost before this started");
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        _ = timeout(RETRY, connections.changed()) => continue,
                    }
                }
            };
            return self.reports.answer(Observed { id, phase, address: String::new() }).await;
        }
    }

    async fn remove(&self, id: InstanceId, grace: Duration) {
        let mut connections = self.connections.subscribe();
        loop {
            connections.mark_unchanged();
            match self.remove_container(&id, grace).await {
                Ok(()) => {
                    let gone = Observed { id, phase: Phase::Gone, address: String::new() };
                    return self.reports.answer(gone).await;
                }
                Err(error) if reason::is_lost(&error) => {
                    tracing::debug!(instance = %id, error = reason::of(&error), "Docker was lost before this was removed");
                    let _ = timeout(RETRY, connections.changed()).await;
                }
                // The engine asks again.
                Err(error) => {
                    let error = reason::of(&error);
                    return tracing::warn!(instance = %id, error, "Docker cannot remove a container");
                }
            }
        }
    }

    async fn look(&self, id: InstanceId) {
        match self.observe(&id).await {
            Ok(observed) => self.reports.saw(observed).await,
            Err(error) => {
                tracing::debug!(instance = %id, error = reason::of(&error), "cannot look at a container")
            }
        }
    }
}
