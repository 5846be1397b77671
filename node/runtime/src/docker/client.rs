//! The client of the Docker engine, which the other files of this folder extend.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bollard::errors::Error;
use tokio::sync::{Mutex, Semaphore, watch};
use vc_protocol::node::Orphans;
use vc_protocol::{NodeId, VolumeKey};

use super::attach::Attached;
use super::config::{Config, DnsServers, host};
use super::files::{self, Files};
use super::host_paths::ProtectedPaths;
use super::pause::Turns;
use super::subnets::NetworkPool;
use super::subpaths::{self, Subpaths};
use super::usage::RunningContainers;
use super::volume_names::VolumeNames;
use super::volume_place::{FindVolume, VolumePlace};
use crate::docker_error;
use crate::engine_info::EngineInfoCache;
use crate::error::RuntimeError;
use crate::identity::Identity;
use crate::images::Images;
use crate::instance_queue::Reporter;
use crate::watchdog::Watchdog;

/// How many containers are created and started at a time.
const CONCURRENT_STARTS: usize = 16;
/// How many containers are stopped and removed at a time; each may take its whole grace time.
const CONCURRENT_REMOVALS: usize = 64;

/// When each network was last requested, by its name in Docker. The lock is held while one is created or removed.
pub(super) type PendingNetworks = Arc<Mutex<BTreeMap<String, Instant>>>;

/// The client of a Docker engine, for the containers of one node.
#[derive(Debug, Clone)]
pub(super) struct DockerClient {
    pub(super) host: Arc<str>,
    pub(super) info: EngineInfoCache,
    pub(super) images: Images,
    pub(super) identity: Identity,
    pub(super) files: Files,
    pub(super) protected: ProtectedPaths,
    pub(super) reporter: Reporter,
    pub(super) watchdog: Watchdog,
    pub(super) starts: Arc<Semaphore>,
    pub(super) removals: Arc<Semaphore>,
    /// Number of connections made to the Docker engine since the start.
    pub(super) connections: Arc<watch::Sender<u64>>,
    pub(super) running: RunningContainers,
    pub(super) networks: PendingNetworks,
    pub(super) pool: NetworkPool,
    pub(super) volume_names: VolumeNames,
    pub(super) subpaths: Subpaths,
    pub(super) places: Places,
    pub(super) turns: Turns,
    pub(super) attached: Attached,
    /// What was reported of other nodes last.
    pub(super) orphans: Arc<Mutex<BTreeMap<NodeId, Orphans>>>,
    pub(super) dns: DnsConfig,
}

/// Returns where volumes are on this node.
#[derive(Clone)]
pub(super) struct Places(Arc<FindVolume>);

impl Places {
    pub(super) fn of(&self, volume: &VolumeKey) -> VolumePlace {
        (self.0)(volume)
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Places")
    }
}

/// The DNS servers of new containers, or Docker's defaults while they are disabled.
#[derive(Clone)]
pub(super) struct DnsConfig {
    pub(super) servers: Arc<DnsServers>,
    pub(super) enabled: Arc<AtomicBool>,
}

impl fmt::Debug for DnsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsConfig").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

impl DockerClient {
    pub(super) fn new(
        config: Config,
        identity: Identity,
        reporter: Reporter,
        watchdog: Watchdog,
    ) -> Self {
        let host: Arc<str> = host(config.host).into();
        let default_directories = || files::DIRECTORIES.map(PathBuf::from);
        let directories = config.memory.unwrap_or_else(|| default_directories().into());
        let protected = default_directories().into_iter().chain(directories.iter().cloned());
        let volume_names = VolumeNames::load(&config.data_dir);
        let subpaths = Subpaths::new(identity.node, &host);
        let mounts = PathBuf::from(subpaths::DIRECTORY);
        let protected = ProtectedPaths::new(protected.chain([config.data_dir, mounts]));
        Self {
            host,
            info: EngineInfoCache::default(),
            images: config.images,
            identity,
            protected,
            files: Files::new(directories, &identity, config.open),
            reporter,
            watchdog,
            starts: Arc::new(Semaphore::new(CONCURRENT_STARTS)),
            removals: Arc::new(Semaphore::new(CONCURRENT_REMOVALS)),
            connections: Arc::new(watch::Sender::new(0)),
            running: RunningContainers::default(),
            networks: PendingNetworks::default(),
            pool: config.pool,
            volume_names,
            subpaths,
            places: Places(config.find_volume),
            turns: Turns::default(),
            attached: Attached::default(),
            orphans: Arc::default(),
            dns: DnsConfig { servers: config.dns, enabled: Arc::new(AtomicBool::new(true)) },
        }
    }

    /// Returns a client. bollard opens a connection per request, so this is cheap; but it fails while the socket does not
    /// exist.
    pub(super) fn client(&self) -> Result<bollard::Docker, Error> {
        bollard::Docker::connect_with_host(&self.host)
    }

    /// Reports whether the engine runs on this host.
    pub(super) fn is_local(&self) -> bool {
        self.host.starts_with("unix://")
    }

    /// Converts an error of the engine.
    pub(super) fn error(&self, error: Error) -> RuntimeError {
        if docker_error::is_unreachable(&error) {
            let (host, reason) = (self.host.to_string(), docker_error::message(&error));
            RuntimeError::DockerUnavailable { host, reason }
        } else {
            RuntimeError::Docker(error.into())
        }
    }
}
