//! Runs a task for each copy on this node, and removes copies.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use vc_engine::Input;
use vc_engine::volumes::VolumeTask;
use vc_protocol::{NodeId, VolumeKey};
use vc_runtime::Runtime;
use vc_runtime::docker::{Docker, VolumePlace};
use vc_volumes::Store;

use super::copy::{CopyContext, CopyTask};
use super::error::CopyError;
use super::{How, Removal, Volumes, metrics};
use crate::clock;
use crate::driver_message::DriverMessage;
use crate::snapshot::Snapshot;

/// Snapshots that are got from other nodes at a time.
const MAX_TRANSFERS: usize = 2;
/// Snapshots that are taken at a time.
const MAX_PASSES: usize = 4;
/// Time between attempts to open the store.
const OPEN_INTERVAL: Duration = Duration::from_secs(10);
/// How often the trash is emptied of what has expired.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(600);
/// How long the containers of a volume that is removed may take to be gone, and how often they are looked for.
const USERS_TIMEOUT: Duration = Duration::from_secs(300);
const USERS_INTERVAL: Duration = Duration::from_secs(1);

/// Runs a task for each copy. [`run`](Self::run) it as a task.
pub(crate) struct Supervisor {
    pub(crate) volumes: Volumes,
    pub(crate) dir: PathBuf,
    pub(crate) node: NodeId,
    pub(crate) runtime: Runtime,
    pub(crate) members: libp2p_stream::Control,
    pub(crate) driver: mpsc::Sender<DriverMessage>,
    pub(crate) snapshot: watch::Receiver<Snapshot>,
}

/// A copy that has a task.
struct Running {
    tasks: watch::Sender<Option<VolumeTask>>,
    handle: JoinHandle<()>,
    place: VolumePlace,
}

impl Supervisor {
    /// Carries out what the driver says, for ever.
    pub(crate) async fn run(self) {
        let Self { volumes, dir, node, runtime, members, driver, snapshot } = self;
        tokio::spawn(metrics::watch_disk(dir.clone(), volumes.metrics().clone()));
        // Child processes have no volumes.
        let Runtime::Docker(docker) = runtime else { return std::future::pending().await };
        let store = open(dir).await;
        let read = store.clone();
        let copies = tokio::task::spawn_blocking(move || read.copies()).await;
        match copies {
            Ok(Ok(copies)) => {
                for (volume, copy) in copies {
                    let input = DriverMessage::Input(Input::Volume(volume, copy));
                    if driver.send(input).await.is_err() {
                        return;
                    }
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "cannot read the copies of volumes"),
            Err(_) => return,
        }
        volumes.0.store.send_replace(Some(store.clone()));
        let context = CopyContext {
            node,
            docker: docker.clone(),
            members,
            driver,
            snapshot,
            transfers: Arc::new(Semaphore::new(MAX_TRANSFERS)),
            passes: Arc::new(Semaphore::new(MAX_PASSES)),
            volumes: volumes.clone(),
        };
        let mut running: BTreeMap<VolumeKey, Running> = BTreeMap::new();
        let mut removals: BTreeMap<VolumeKey, JoinHandle<()>> = BTreeMap::new();
        let mut expiry = interval(EXPIRY_INTERVAL);
        expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wanted = volumes.take();
            for (volume, removal) in wanted.removed {
                let ended = running.remove(&volume);
                let before = removals.remove(&volume);
                let removal =
                    remove(store.clone(), docker.clone(), volume.clone(), removal, ended, before);
                let (metrics, key) = (volumes.metrics().clone(), volume.clone());
                let removal = async move {
                    removal.await;
                    metrics.forget(&key);
                };
                removals.insert(volume, tokio::spawn(removal));
            }
            removals.retain(|_, removal| !removal.is_finished());
            if let Some(tasks) = wanted.tasks {
                for (volume, copy) in &running {
                    if !tasks.contains_key(volume) {
                        copy.tasks.send_replace(None);
                    }
                }
                for (volume, task) in tasks {
                    let place = VolumePlace::on(node, &task.spec);
                    if let Some(copy) = running.get_mut(&volume) {
                        copy.place = place;
                        let is_new = |now: &Option<VolumeTask>| now.as_ref() != Some(&task);
                        if is_new(&copy.tasks.borrow()) {
                            copy.tasks.send_replace(Some(task));
                        }
                        continue;
                    }
                    let (tasks, latest) = watch::channel(Some(task));
                    let (context, store) = (context.clone(), store.clone());
                    let (key, removal) = (volume.clone(), removals.remove(&volume));
                    let handle = tokio::spawn(async move {
                        if let Some(removal) = removal {
                            let _ = removal.await;
                        }
                        CopyTask::new(context, store.volume(&key), latest).run().await;
                    });
                    running.insert(volume, Running { tasks, handle, place });
                }
            }
            tokio::select! {
                () = volumes.0.changed.notified() => {}
                _ = expiry.tick() => expire(store.clone()).await,
            }
        }
    }
}

/// Opens the store, and tries again while that fails.
async fn open(dir: PathBuf) -> Store {
    let path = dir.join("volumes");
    let mut said = None;
    loop {
        let at = path.clone();
        match tokio::task::spawn_blocking(move || Store::open(&at)).await {
            Ok(Ok(store)) => return store,
            Ok(Err(error)) => {
                let text = error.to_string();
                if said.as_ref() != Some(&text) {
                    tracing::error!(
                        error = text,
                        "cannot open the store of volumes; no service that writes one starts until that succeeds"
                    );
                    said = Some(text);
                }
            }
            Err(_) => {}
        }
        sleep(OPEN_INTERVAL).await;
    }
}

async fn expire(store: Store) {
    let expired = tokio::task::spawn_blocking(move || store.expire(clock::now())).await;
    if let Ok(Err(error)) = expired {
        tracing::warn!(%error, "cannot delete what has expired in the trash of volumes");
    }
}

/// Moves a copy to the trash, and then deletes its volume in Docker unless it is only forgotten. `running` is its task, `before` a
/// removal that goes on.
async fn remove(
    store: Store,
    docker: Docker,
    volume: VolumeKey,
    removal: Removal,
    running: Option<Running>,
    before: Option<JoinHandle<()>>,
) {
    if let Some(before) = before {
        let _ = before.await;
    }
    let place = running.as_ref().map(|it| it.place.clone()).unwrap_or_default();
    if let Some(Running { tasks, handle, .. }) = running {
        drop(tasks);
        handle.abort();
        let _ = handle.await;
    }
    match (trash(&store, &docker, &volume, &place, removal).await, removal.how) {
        (Ok(()), How::Remove) => {}
        (Ok(()), How::Forget) => return,
        (Err(error), How::Forget) => {
            // Its snapshots are kept, if not what was written since the last one, which stays in Docker.
            tracing::warn!(%volume, %error, "a volume is forgotten without a last snapshot");
            if let Err(error) =
                store.volume(&volume).forget(None, removal.decided, clock::now()).await
            {
                tracing::error!(%volume, %error, "a forgotten volume is left where it is");
            }
            return;
        }
        (Err(error), How::Remove) => {
            tracing::error!(
                %volume,
                %error,
                "a removed volume is left where it is, as its last snapshot failed: see 'docker volume ls' on this host"
            );
            return;
        }
    }
    if place == VolumePlace::Volume {
        docker.remove_volume(&volume).await;
    }
}

async fn trash(
    store: &Store,
    docker: &Docker,
    volume: &VolumeKey,
    place: &VolumePlace,
    Removal { how, decided }: Removal,
) -> Result<(), CopyError> {
    let started = tokio::time::Instant::now();
    while docker.volume_users(volume, place).await? > 0 && started.elapsed() < USERS_TIMEOUT {
        sleep(USERS_INTERVAL).await;
    }
    let working = match place {
        VolumePlace::Volume => docker.existing_volume(volume).await?,
        VolumePlace::Directory(path) => Some(path.clone()),
        VolumePlace::Mounted(_) => None,
    };
    let (copy, now) = (store.volume(volume), clock::now());
    let trashed = match how {
        How::Remove => copy.trash(working.as_deref(), decided, now).await?,
        How::Forget => copy.forget(working.as_deref(), decided, now).await?,
    };
    let snapshot = trashed.and_then(|it| it.newest).map(|it| it.id.to_string());
    match how {
        How::Remove => {
            tracing::info!(%volume, snapshot, "volume removed: its snapshots are in the trash for 24 h");
        }
        How::Forget => {
            tracing::info!(%volume, snapshot, "volume forgotten: its data stays in Docker and in the trash");
        }
    }
    Ok(())
}
