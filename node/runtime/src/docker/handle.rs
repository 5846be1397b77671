//! The handle to the Docker runtime.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use vc_engine::runtime::{RuntimeAction, RuntimeEvent};
use vc_protocol::control::ExecRequest;
use vc_protocol::{InstanceId, NetworkKey, NodeId, Slot, VolumeKey};

use super::archive::{Archive, Upload};
use super::client::DockerClient;
use super::config::Config;
use super::exec::Exec;
use super::networks::{self, ContainerByIp};
use super::orphans::AdoptError;
use super::pause::PausedInstances;
use super::sources::SourceError;
use super::volume_place::VolumePlace;
use crate::docker_error::DockerError;
use crate::drain::Drain;
use crate::error::RuntimeError;
use crate::identity::Identity;
use crate::instance_queue::{self, MAX_PENDING_ACTIONS};
use crate::log::{LogLines, LogQuery};
use crate::usage::InstanceUsage;
use crate::watchdog::Watchdog;

/// How long the engine may take to describe itself.
const INFO_TIMEOUT: Duration = Duration::from_secs(5);

/// A handle to the Docker runtime.
#[derive(Debug, Clone)]
pub struct Docker {
    actions: mpsc::Sender<RuntimeAction>,
    client: Arc<DockerClient>,
}

impl Docker {
    pub(crate) fn start(
        config: Config,
        identity: Identity,
        drain: Arc<dyn Drain>,
        watchdog: Watchdog,
        events: mpsc::Sender<RuntimeEvent>,
    ) -> Self {
        let (reporter, receiver) = instance_queue::channel();
        let (actions, waiting) = mpsc::channel(MAX_PENDING_ACTIONS);
        let client = DockerClient::new(config, identity, reporter, watchdog);
        let (backend, watcher) = (client.clone(), client.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = instance_queue::run(backend, drain, receiver, waiting, events) => {}
                () = watcher.watch() => {}
            }
        });
        Self { actions, client: Arc::new(client) }
    }

    pub(crate) fn actions(&self) -> &mpsc::Sender<RuntimeAction> {
        &self.actions
    }

    /// Removes the data of a volume of Docker's; retries while a container that is being removed still uses it.
    pub async fn remove_volume(&self, volume: &VolumeKey) {
        self.client.remove_volume(volume).await;
    }

    /// Returns the directory of the data of a volume, which is created if it is missing.
    ///
    /// # Errors
    /// Docker refuses or does not answer, its volumes are on another host, or the directory cannot be created.
    pub async fn volume_directory(
        &self,
        volume: &VolumeKey,
        place: &VolumePlace,
    ) -> Result<PathBuf, RuntimeError> {
        self.client.volume_directory(volume, place).await
    }

    /// Returns the directory of the data of a volume of Docker's; `None` if there is none.
    ///
    /// # Errors
    /// Docker refuses or does not answer.
    pub async fn existing_volume(
        &self,
        volume: &VolumeKey,
    ) -> Result<Option<PathBuf>, RuntimeError> {
        self.client.existing_volume(volume).await
    }

    /// Returns the directory of a volume of Docker's, by Docker's name, of which a new volume may be a copy.
    ///
    /// # Errors
    /// There is none, a running container mounts it, or Docker refuses or does not answer.
    pub async fn volume_source(&self, name: &str) -> Result<PathBuf, SourceError> {
        self.client.volume_source(name).await
    }

    /// Returns the directory of the host that a path leads to, of which a new volume may be a copy. The error for one that is in use
    /// names the containers if `names`.
    ///
    /// # Errors
    /// There is none, it belongs to the system, a running container may write it, or Docker refuses or does not answer.
    pub async fn directory_source(&self, path: &Path, names: bool) -> Result<PathBuf, SourceError> {
        let docker = self.data_dir().await;
        self.client.directory_source(path, docker.as_deref(), names).await
    }

    /// Stops the processes of all instances on this node that may write a volume, until what it returns is dropped.
    ///
    /// # Errors
    /// Docker refuses or does not answer, or a process did not stop in time. All go on.
    pub async fn pause(
        &self,
        volume: &VolumeKey,
        place: &VolumePlace,
    ) -> Result<PausedInstances, RuntimeError> {
        self.client.pause(volume, place).await
    }

    /// Returns how many containers of this node mount a volume, running or not.
    ///
    /// # Errors
    /// Docker refuses or does not answer.
    pub async fn volume_users(
        &self,
        volume: &VolumeKey,
        place: &VolumePlace,
    ) -> Result<usize, DockerError> {
        Ok(self.client.users(volume, place).await?.len())
    }

    pub(crate) async fn logs(
        &self,
        slot: &Slot,
        query: LogQuery,
    ) -> Result<LogLines, RuntimeError> {
        self.client.logs(slot, query).await
    }

    pub(crate) async fn usage(&self) -> Result<Vec<InstanceUsage>, RuntimeError> {
        self.client.usage().await
    }

    pub(crate) async fn exec(
        &self,
        instance: &InstanceId,
        request: &ExecRequest,
    ) -> Result<Exec, RuntimeError> {
        match request.attach {
            true => self.client.attach(instance, request).await,
            false => self.client.exec(instance, request).await,
        }
    }

    pub(crate) async fn copy_out(
        &self,
        instance: &InstanceId,
        path: &str,
    ) -> Result<Archive, RuntimeError> {
        self.client.copy_out(instance, path).await
    }

    pub(crate) async fn copy_in(
        &self,
        instance: &InstanceId,
        path: &str,
        name: &str,
    ) -> Result<Upload, RuntimeError> {
        self.client.copy_in(instance, path, name).await
    }

    /// Returns the containers in this node's networks, once for each of their addresses.
    ///
    /// # Errors
    /// Docker refuses or does not answer.
    pub async fn containers_by_ip(&self) -> Result<Vec<ContainerByIp>, DockerError> {
        Ok(self.client.containers_by_ip().await?)
    }

    /// Returns a number that grows whenever containers may have started or ended, by Docker's events.
    pub fn changes(&self) -> u64 {
        self.client.running.changes()
    }

    /// Stops and removes the containers of a former node, and takes over these of its volumes. Returns the number of containers.
    ///
    /// # Errors
    /// Docker refuses, or the names of the volumes cannot be saved: some containers may have been stopped.
    pub async fn adopt(
        &self,
        former: NodeId,
        volumes: &BTreeSet<VolumeKey>,
    ) -> Result<u32, AdoptError> {
        self.client.adopt(former, volumes).await
    }

    /// Returns the directory of Docker's data; `None` if the engine is not on this host, or does not answer.
    pub async fn data_dir(&self) -> Option<PathBuf> {
        if !self.is_local() {
            return None;
        }
        let client = self.client.client().ok()?;
        let info = tokio::time::timeout(INFO_TIMEOUT, client.info()).await.ok()?.ok()?;
        info.docker_root_dir.map(PathBuf::from)
    }

    /// Returns the prefix that the names of all bridges of the node's networks have, and no others, not even those of
    /// other nodes on the same host.
    pub fn bridge_prefix(&self) -> String {
        networks::bridge_prefix(&self.client.identity)
    }

    /// Returns the prefix that the names of the bridges of internal networks have, and no others.
    pub fn internal_bridge_prefix(&self) -> String {
        networks::internal_bridge_prefix(&self.client.identity)
    }

    /// Returns the name of the bridge of a network, whether it exists or not.
    pub fn bridge_name(&self, network: &NetworkKey, internal: bool) -> String {
        networks::bridge_name(&self.client.identity, network, internal)
    }

    /// Returns whether the engine filters packets with nftables, in tables of its own, which iptables' rules do not precede.
    ///
    /// # Errors
    /// Docker refuses or does not answer.
    pub async fn filters_with_nftables(&self) -> Result<bool, DockerError> {
        let backend = self.client.client()?.info().await?.firewall_backend;
        let driver = backend.and_then(|backend| backend.driver).unwrap_or_default();
        Ok(driver.starts_with("nftables"))
    }

    /// Reports whether the engine runs on this host.
    pub fn is_local(&self) -> bool {
        self.client.is_local()
    }

    /// Sets whether containers created from now on get the DNS servers of [`Config::dns`], which they do by default, or
    /// Docker's own.
    pub fn enable_dns(&self, enabled: bool) {
        self.client.dns.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Returns the cluster and node that it runs containers for.
    pub fn identity(&self) -> Identity {
        self.client.identity
    }
}
