//! A runtime on a test's Docker engine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use vc_engine::runtime::{InstanceId, Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_protocol::file::FileRequest;
use vc_protocol::spec::ContainerSpec;
use vc_protocol::{ClusterId, Keypair, NodeId, VolumeKey};
use vc_runtime::docker::{Config, DnsServers, NetworkPool, OpenFile, OpenFileError, VolumePlace};
use vc_runtime::images::Images;
use vc_runtime::{Config as RuntimeConfig, Identity, NoDrain, Runtime, Watchdog};

use crate::engine::Engine;

/// Longer than anything takes on a busy host.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);
pub(crate) const IMAGE: &str = "vc-test:1";

pub(crate) fn identity(node: u8) -> Identity {
    let key = |byte| Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes").public();
    Identity {
        cluster: ClusterId::of(&key(1)).expect("ed25519"),
        node: NodeId::of(&key(node)).expect("ed25519"),
    }
}

/// The contents of secrets and configs, by the text of their keys.
pub(crate) type Contents = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Where volumes are, if not in one of Docker's.
pub(crate) type Places = Arc<Mutex<BTreeMap<VolumeKey, VolumePlace>>>;

fn docker_dns() -> Arc<DnsServers> {
    Arc::new(Vec::new)
}

/// A runtime on an engine, and its events.
pub(crate) struct Host {
    pub(crate) runtime: Runtime,
    pub(crate) events: mpsc::Receiver<RuntimeEvent>,
    pub(crate) places: Places,
    _dir: TempDir,
}

impl Host {
    pub(crate) fn at(host: String, node: u8) -> Self {
        Self::with_files(host, node, Contents::default(), Vec::new())
    }

    pub(crate) fn with_files(
        host: String,
        node: u8,
        contents: Contents,
        memory: Vec<PathBuf>,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self::with(host, node, contents, memory, dir, docker_dns())
    }

    /// Uses the watchdog of a data directory.
    pub(crate) fn watched(host: String, dir: TempDir, watchdog: Watchdog) -> Self {
        let contents = Contents::default();
        Self::with_watchdog(host, 2, contents, Vec::new(), dir, docker_dns(), watchdog)
    }

    /// Uses the image store in `dir`.
    pub(crate) fn with_images(host: String, dir: TempDir) -> Self {
        Self::with(host, 2, Contents::default(), Vec::new(), dir, docker_dns())
    }

    pub(crate) fn with(
        host: String,
        node: u8,
        contents: Contents,
        memory: Vec<PathBuf>,
        dir: TempDir,
        dns: Arc<DnsServers>,
    ) -> Self {
        Self::with_watchdog(host, node, contents, memory, dir, dns, Watchdog::none())
    }

    fn with_watchdog(
        host: String,
        node: u8,
        contents: Contents,
        memory: Vec<PathBuf>,
        dir: TempDir,
        dns: Arc<DnsServers>,
        watchdog: Watchdog,
    ) -> Self {
        let (tx, events) = mpsc::channel(64);
        let places = Places::default();
        let found = Arc::clone(&places);
        let images = Images::open(dir.path(), Some(&host)).expect("a store");
        let open: Arc<OpenFile> = Arc::new(move |request| {
            let FileRequest { instance, file, version } = request;
            let project = instance.slot.service.project;
            let key = vc_crdt::FileKey { project, file: file.clone(), version };
            let content = contents.lock().expect("not poisoned").get(&key.to_string()).cloned();
            Box::pin(std::future::ready(content.ok_or(OpenFileError::NotFound(file))))
        });
        let host = Some(host);
        let data_dir = dir.path().to_owned();
        let config = Config {
            host,
            open,
            memory: Some(memory),
            data_dir,
            images,
            pool: NetworkPool::default(),
            dns,
            find_volume: Arc::new(move |key| {
                found.lock().expect("not poisoned").get(key).cloned().unwrap_or_default()
            }),
        };
        let config = RuntimeConfig::Docker(config);
        let runtime = Runtime::start(config, identity(node), Arc::new(NoDrain), watchdog, tx);
        Self { runtime, events, places, _dir: dir }
    }

    pub(crate) async fn on(engine: &Engine) -> (Self, Vec<Observed>) {
        let mut host = Self::at(engine.host(), 2);
        let all = host.listed().await;
        (host, all)
    }

    pub(crate) async fn event(&mut self) -> RuntimeEvent {
        timeout(TIMEOUT, self.events.recv()).await.expect("in time").expect("an event")
    }

    pub(crate) async fn listed(&mut self) -> Vec<Observed> {
        loop {
            if let RuntimeEvent::Listed(all) = self.event().await {
                return all;
            }
        }
    }

    pub(crate) fn start(&self, slot: &str, spec: &ContainerSpec) -> InstanceId {
        self.start_under(None, slot, spec)
    }

    pub(crate) fn start_under(
        &self,
        epoch: Option<u64>,
        slot: &str,
        spec: &ContainerSpec,
    ) -> InstanceId {
        let id = InstanceId { slot: slot.parse().expect("a slot"), digest: spec.digest() };
        self.runtime.perform(RuntimeAction::Start {
            id: id.clone(),
            spec: Box::new(spec.clone()),
            epoch,
            trace: None,
        });
        id
    }

    pub(crate) async fn change(&mut self, id: &InstanceId) -> Observed {
        loop {
            match self.event().await {
                RuntimeEvent::Changed(observed) if observed.id == *id => return observed,
                _ => {}
            }
        }
    }

    /// Returns the next phase that is not `Running`.
    pub(crate) async fn not_running(&mut self, id: &InstanceId) -> Phase {
        loop {
            let phase = self.change(id).await.phase;
            if !matches!(phase, Phase::Running { .. }) {
                return phase;
            }
        }
    }

    pub(crate) async fn running(&mut self, id: &InstanceId) {
        let phase = self.change(id).await.phase;
        assert!(matches!(phase, Phase::Running { .. }), "{phase:?}");
    }

    pub(crate) async fn remove(&mut self, id: &InstanceId, grace_ms: u64) {
        self.runtime.perform(RuntimeAction::Remove {
            id: id.clone(),
            drain_ms: grace_ms,
            grace_ms,
        });
        assert_eq!(self.not_running(id).await, Phase::Gone);
    }
}

pub(crate) fn shell(script: &str) -> ContainerSpec {
    let command = ["sh", "-c", script].map(str::to_owned).into();
    ContainerSpec { image: IMAGE.to_owned(), command: Some(command), ..ContainerSpec::default() }
}

/// Starts a container of a slot in these networks, and returns its id.
pub(crate) async fn start_in_networks(
    host: &mut Host,
    engine: &Engine,
    slot: &str,
    networks: &[&str],
) -> String {
    let networks = networks.iter().map(|name| (name.parse().expect("a name"), Default::default()));
    let spec =
        ContainerSpec { networks: networks.collect::<BTreeMap<_, _>>(), ..shell("exec sleep 600") };
    let id = host.start(slot, &spec);
    host.running(&id).await;
    let service = format!("label=vc.service={}", id.slot.service.service);
    let project = format!("label=vc.project={}", id.slot.service.project);
    engine.run(&["ps", "-q", "--filter", &service, "--filter", &project])
}
