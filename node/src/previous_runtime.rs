//! Ends the instances of the runtime that a node used until now: the next one does not know them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use vc_client::text::list;
use vc_crdt::ClusterState;
use vc_engine::runtime::{Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_protocol::{InstanceId, Millis};
use vc_runtime::docker::OpenFileError;
use vc_runtime::images::Images;
use vc_runtime::{Config, Identity, NoDrain, Runtime, Watchdog, docker, process};

use crate::settings::{RuntimeChoice, Settings};

/// All instances end within this time.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Time from SIGTERM to SIGKILL for an instance whose service is no longer known.
const GRACE: Millis = 10_000;
/// Events that may wait; the runtime waits when the queue is full.
const EVENTS: usize = 256;
/// The most instances that an error names.
const MAX_NAMED: usize = 8;

/// Why instances may still run. The settings are not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StopError {
    /// The runtime cannot be reached.
    #[error(
        "the runtime is not changed, as instances may run in the present one, which cannot be reached: {0}; start it, or \
         drain this node first"
    )]
    Unavailable(String),
    /// Instances did not end.
    #[error("the runtime is not changed, as {0} did not end in the present one: see its log")]
    StillRun(String),
    /// The store of images cannot be opened.
    #[error("cannot open the store of images: {0}")]
    Images(#[from] std::io::Error),
}

/// Ends all instances of this node in the runtime of these settings, and waits for that.
pub(crate) async fn stop_instances(
    dir: &Path,
    settings: &Settings,
    identity: Identity,
    cluster: &ClusterState,
) -> Result<(), StopError> {
    let config = match settings.runtime() {
        RuntimeChoice::Process => Config::Process(process::Config { dir: dir.to_owned() }),
        // Nothing is started, so neither images nor files nor names are needed.
        RuntimeChoice::Docker => Config::Docker(docker::Config {
            host: settings.docker_host.clone(),
            images: Images::open(dir, None)?,
            open: Arc::new(|request| {
                Box::pin(std::future::ready(Err(OpenFileError::NotFound(request.file))))
            }),
            memory: None,
            data_dir: dir.to_owned(),
            pool: docker::NetworkPool::default(),
            dns: Arc::new(Vec::new),
            find_volume: Arc::new(|_| docker::VolumePlace::default()),
        }),
    };
    let (sender, mut events) = mpsc::channel(EVENTS);
    let runtime = Runtime::start(config, identity, Arc::new(NoDrain), Watchdog::none(), sender);
    let mut running: BTreeMap<InstanceId, Phase> = BTreeMap::new();
    let stop = async {
        while let Some(event) = events.recv().await {
            match event {
                RuntimeEvent::Listed(listed) => {
                    running = listed.into_iter().map(|it| (it.id, it.phase)).collect();
                }
                RuntimeEvent::Changed(Observed { id, phase, .. }) => {
                    running.insert(id, phase);
                }
                RuntimeEvent::Orphans(_) => {}
                RuntimeEvent::Unavailable(reason) | RuntimeEvent::Hung(reason) => {
                    return Err(StopError::Unavailable(reason));
                }
            }
            running.retain(|_, phase| *phase != Phase::Gone);
            if running.is_empty() {
                break;
            }
            for id in running.keys().cloned() {
                let service = cluster.services.get(&id.slot.service);
                let grace_ms = service.map_or(GRACE, |it| it.spec.container.stop_grace_ms);
                runtime.perform(RuntimeAction::Remove { id, drain_ms: grace_ms, grace_ms });
            }
        }
        Ok(())
    };
    match timeout(TIMEOUT, stop).await {
        Ok(result) => result,
        Err(_) => {
            let left = running.keys().map(|id| id.slot.to_string()).collect();
            Err(StopError::StillRun(list(left, MAX_NAMED)))
        }
    }
}
