//! Pausing the instances that write a volume, while a snapshot of it is taken.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard::errors::Error;
use bollard::models::{ContainerSummaryStateEnum as State, MountPoint};
use bollard::query_parameters::ListContainersOptionsBuilder;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use vc_protocol::{Slot, VolumeKey};

use super::client::DockerClient;
use super::freezer::Freezer;
use super::labels;
use super::volume_place::VolumePlace;
use crate::docker_error;
use crate::error::RuntimeError;

/// How long the processes of an instance may take to stop. They go on after that, and the pause has failed.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The first and the longest time between attempts to make Docker resume a container.
const RETRY_INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Instances whose processes stand still until this is dropped. No other that mounts the volume is started meanwhile.
#[derive(Debug)]
pub struct PausedInstances {
    // Dropped in this order.
    stopped: Vec<Stopped>,
    _turns: Vec<Turn>,
    since: Instant,
}

impl PausedInstances {
    /// Returns since when the first of them may stand still.
    pub fn since(&self) -> Instant {
        self.since
    }
}

/// A container that was stopped.
#[derive(Debug)]
enum Stopped {
    /// By the freezer of its control group.
    Frozen(Freezer),
    /// By Docker, on a host whose freezers the node does not see.
    Paused(bollard::Docker, String),
}

impl Drop for Stopped {
    fn drop(&mut self) {
        match self {
            Self::Frozen(freezer) => match freezer.thaw() {
                Ok(()) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    tracing::error!(?freezer, %error, "cannot let a container go on");
                }
            },
            Self::Paused(client, container) => {
                let (client, container) = (client.clone(), container.clone());
                if let Ok(runtime) = Handle::try_current() {
                    runtime.spawn(async move { unpause(&client, &container).await });
                }
            }
        }
    }
}

/// Reports whether there is no such control group any more.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// Makes Docker resume a container, until it has or there is nothing to resume.
async fn unpause(client: &bollard::Docker, container: &str) {
    let mut pause = RETRY_INTERVAL.0;
    while let Err(error) = client.unpause_container(container).await {
        if !docker_error::is_unreachable(&error) {
            let error = docker_error::message(&error);
            return tracing::debug!(container, error, "a container does not need to be resumed");
        }
        sleep(pause).await;
        pause = RETRY_INTERVAL.1.min(pause * 2);
    }
}

/// A container that mounts a volume.
#[derive(Debug)]
pub(super) struct VolumeUser {
    id: String,
    slot: Slot,
    state: State,
    /// Whether it mounts the volume for writing.
    writes: bool,
}

/// Keeps instances from being started while a volume of theirs is paused, and volumes from being paused while an instance is started
/// that mounts them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Volumes, and ids of containers.
    busy: Mutex<BTreeSet<String>>,
    ended: Notify,
}

/// The turn for some volumes and containers, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    of: BTreeSet<String>,
    turns: Turns,
}

impl Turns {
    /// Waits until none of these volumes and containers is in use by another turn.
    pub(super) async fn acquire(&self, of: impl IntoIterator<Item = String>) -> Turn {
        let of: BTreeSet<String> = of.into_iter().collect();
        loop {
            let mut ended = std::pin::pin!(self.0.ended.notified());
            ended.as_mut().enable();
            {
                let mut busy = self.0.busy.lock().unwrap_or_else(PoisonError::into_inner);
                if busy.is_disjoint(&of) {
                    busy.extend(of.iter().cloned());
                    return Turn { of, turns: self.clone() };
                }
            }
            ended.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut busy = self.turns.0.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|it| !self.of.contains(it));
        drop(busy);
        self.turns.0.ended.notify_waiters();
    }
}

impl DockerClient {
    /// Stops the processes of all containers of this node that may write a volume.
    ///
    /// # Errors
    /// Docker refuses or does not answer, or a process did not stop in time. All go on.
    pub(super) async fn pause(
        &self,
        volume: &VolumeKey,
        place: &VolumePlace,
    ) -> Result<PausedInstances, RuntimeError> {
        let turn = self.turns.acquire([volume.to_string()]).await;
        let client = self.client().map_err(|error| self.error(error))?;
        let mut running = Vec::new();
        let users = self.users(volume, place).await.map_err(|error| self.error(error))?;
        for container in users.into_iter().filter(|it| it.writes && it.state == State::RUNNING) {
            let found = client.inspect_container(&container.id, None).await;
            let found = match found {
                Err(error) if docker_error::status(&error) == Some(404) => continue,
                found => found.map_err(|error| self.error(error))?,
            };
            let pid = found.state.and_then(|state| state.pid).unwrap_or_default();
            let freezer = Freezer::of(pid, &container.id).filter(|_| self.is_local());
            running.push((container.slot, container.id, freezer));
        }
        let ids = running.iter().map(|(_, id, _)| id.clone());
        let started = self.turns.acquire(ids.collect::<Vec<_>>()).await;
        let (stopped, _turns, since) = (Vec::new(), vec![turn, started], Instant::now());
        let mut paused = PausedInstances { stopped, _turns, since };
        for (slot, container, freezer) in &running {
            match freezer {
                // Docker or an operator has paused it, and resumes it.
                Some(freezer) if freezer.is_frozen().unwrap_or(false) => {}
                Some(freezer) => {
                    // Before: a write that fails may have stopped some processes.
                    paused.stopped.push(Stopped::Frozen(freezer.clone()));
                    match freezer.freeze() {
                        Err(error) if !is_gone(&error) => {
                            return Err(RuntimeError::Pause(slot.clone(), error));
                        }
                        _ => {}
                    }
                }
                None => match client.pause_container(container).await {
                    Ok(()) => {
                        paused.stopped.push(Stopped::Paused(client.clone(), container.clone()));
                    }
                    // It has ended meanwhile, or is paused.
                    Err(error) if matches!(docker_error::status(&error), Some(404 | 409)) => {}
                    Err(error) => return Err(self.error(error)),
                },
            }
        }
        let frozen =
            running.iter().filter_map(|(slot, _, freezer)| Some((slot, freezer.as_ref()?)));
        for (slot, freezer) in frozen {
            match timeout(PAUSE_TIMEOUT, freezer.frozen()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if is_gone(&error) => {}
                Ok(Err(error)) => return Err(RuntimeError::Pause(slot.clone(), error)),
                Err(_) => {
                    let error = io::Error::new(io::ErrorKind::TimedOut, "it waits for a disk");
                    return Err(RuntimeError::Pause(slot.clone(), error));
                }
            }
        }
        Ok(paused)
    }

    /// Returns the containers of this node that mount a volume.
    pub(super) async fn users(
        &self,
        volume: &VolumeKey,
        place: &VolumePlace,
    ) -> Result<Vec<VolumeUser>, Error> {
        let name = self.volume_names.of(&self.identity, volume);
        let is_mounted = |mount: &MountPoint| {
            let source = mount.source.as_deref().map(Path::new);
            let is_whole = match place {
                VolumePlace::Directory(path) => source == Some(path),
                _ => mount.name.as_ref() == Some(&name),
            };
            is_whole || source.is_some_and(|source| self.subpaths.is_of(&name, source))
        };
        let filters = HashMap::from([("label", labels::filters(&self.identity))]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let mut users = Vec::new();
        for summary in self.client()?.list_containers(Some(options)).await? {
            let mounts: Vec<MountPoint> = summary.mounts.unwrap_or_default();
            let mut mounts = mounts.iter().filter(|it| is_mounted(it)).peekable();
            let labels = summary.labels.unwrap_or_default();
            let id = labels::instance(&self.identity, &labels).and_then(Result::ok);
            let (Some(id), Some(_)) = (id, mounts.peek()) else { continue };
            users.push(VolumeUser {
                id: summary.id.unwrap_or_default(),
                slot: id.slot,
                state: summary.state.unwrap_or(State::EMPTY),
                writes: mounts.any(|mount| mount.rw != Some(false)),
            });
        }
        Ok(users)
    }

    /// Lets all instances go on that a node which was killed has left paused.
    pub(super) async fn resume_all(&self) -> Result<(), Error> {
        let client = self.client()?;
        let filters = HashMap::from([("label", labels::filters(&self.identity))]);
        let options = ListContainersOptionsBuilder::default().filters(&filters).build();
        for summary in client.list_containers(Some(options)).await? {
            let container = summary.id.unwrap_or_default();
            if summary.state == Some(State::PAUSED) {
                match client.unpause_container(&container).await {
                    Err(error) if docker_error::is_unreachable(&error) => return Err(error),
                    resumed => tracing::info!(
                        container,
                        ok = resumed.is_ok(),
                        "resumed a container that was paused"
                    ),
                }
            }
            if !self.is_local() {
                continue;
            }
            let found = match client.inspect_container(&container, None).await {
                Err(error) if docker_error::status(&error) == Some(404) => continue,
                found => found?,
            };
            let pid = found.state.and_then(|state| state.pid).unwrap_or_default();
            let Some(freezer) = Freezer::of(pid, &container) else { continue };
            if freezer.is_frozen().unwrap_or(false) && freezer.thaw().is_ok() {
                tracing::info!(container, "a container goes on that was stopped for a snapshot");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_instance_is_not_started_while_a_volume_of_it_is_paused() {
        let turns = Turns::default();
        let of = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let paused = turns.acquire(of(&["shop/data"])).await;
        let mut start = Box::pin(turns.acquire(of(&["shop/data", "shop/logs"])));
        assert!(start.as_mut().now_or_never().is_none());
        assert!(turns.acquire(of(&["shop/logs"])).now_or_never().is_some());
        drop(paused);
        assert_eq!(start.await.of.len(), 2);
        assert!(turns.acquire(of(&["shop/data"])).now_or_never().is_some());
    }
}
