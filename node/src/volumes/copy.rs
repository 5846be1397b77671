//! The copy of one volume: follows the task that the engine gives it.

mod fetch;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use vc_engine::Input;
use vc_engine::volumes::{VolumeRole, VolumeTask};
use vc_protocol::NodeId;
use vc_protocol::lease::Epoch;
use vc_protocol::volume::{SnapshotId, VolumeCopy};
use vc_runtime::docker::{Docker, VolumePlace};
use vc_volumes::{Conflict, Outcome, Volume};

use super::Volumes;
use super::error::CopyError;
use super::metrics::Operation;
use super::pause::pause_writers;
use super::schedule::{Retry, Schedule};
use crate::clock;
use crate::driver_message::DriverMessage;
use crate::snapshot::Snapshot;

/// Time until the next attempt at a first snapshot for which there was no room.
const ROOM_RETRY: Duration = Duration::from_secs(300);
/// Time until the next attempt when the task has changed meanwhile.
const MIN_RETRY: Duration = Duration::from_millis(200);

/// What all copies of a node share. Cheap to clone.
#[derive(Clone)]
pub(super) struct CopyContext {
    pub(super) node: NodeId,
    pub(super) docker: Docker,
    pub(super) members: libp2p_stream::Control,
    pub(super) driver: mpsc::Sender<DriverMessage>,
    pub(super) snapshot: watch::Receiver<Snapshot>,
    /// Permits to get snapshots from other nodes.
    pub(super) transfers: Arc<Semaphore>,
    /// Permits to take snapshots.
    pub(super) passes: Arc<Semaphore>,
    pub(super) volumes: Volumes,
}

/// The copy of one volume. [`run`](Self::run) it as a task; dropping that ends what it does, with its processes.
pub(super) struct CopyTask {
    context: CopyContext,
    volume: Volume,
    tasks: watch::Receiver<Option<VolumeTask>>,
    reported: Option<VolumeCopy>,
    /// Whether the last pass has found nothing that was written since the newest snapshot.
    unchanged: bool,
    /// The problem that was logged last.
    problem: Option<String>,
    retry: Retry,
}

/// What of a task must not change while it is performed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Idle,
    Primary(Epoch, VolumePlace),
    Closing(Epoch, VolumePlace),
    Replica(VolumePlace),
}

impl Part {
    fn of(node: NodeId, task: Option<&VolumeTask>) -> Self {
        let Some(VolumeTask { role, spec }) = task else { return Self::Idle };
        let place = VolumePlace::on(node, spec);
        match role {
            VolumeRole::Primary { epoch, .. } => Self::Primary(*epoch, place),
            VolumeRole::Closing { epoch } => Self::Closing(*epoch, place),
            VolumeRole::Replica { .. } => Self::Replica(place),
        }
    }
}

impl CopyTask {
    pub(super) fn new(
        context: CopyContext,
        volume: Volume,
        tasks: watch::Receiver<Option<VolumeTask>>,
    ) -> Self {
        Self {
            context,
            volume,
            tasks,
            reported: None,
            unchanged: false,
            problem: None,
            retry: Retry::new(),
        }
    }

    /// Follows the tasks until their sender is dropped.
    pub(super) async fn run(mut self) {
        let node = self.context.node;
        loop {
            let part = Part::of(node, self.tasks.borrow_and_update().as_ref());
            let mut tasks = self.tasks.clone();
            let changed = async {
                let other = |task: &Option<VolumeTask>| Part::of(node, task.as_ref()) != part;
                tasks.wait_for(other).await.is_ok()
            };
            tokio::select! {
                goes_on = changed => if !goes_on {
                    return;
                },
                () = self.perform(&part) => {}
            }
            self.retry = Retry::new();
        }
    }

    /// Performs a part until it changes, and tries again what fails.
    async fn perform(&mut self, part: &Part) {
        loop {
            let done: Result<Infallible, CopyError> = match part {
                Part::Idle => std::future::pending().await,
                Part::Primary(epoch, place) => self.write(*epoch, place).await,
                Part::Closing(epoch, place) => self.close(*epoch, place).await,
                Part::Replica(place) => self.replicate(place).await,
            };
            let Err(error) = done;
            self.context.volumes.metrics().failed(self.volume.key(), operation(part, &error));
            if self.retry.is_new() && error.is_passing() {
                // Told when it fails again: whenever a node starts anew, a transfer from it fails once.
                tracing::debug!(volume = %self.volume.key(), %error, "a transfer of a volume failed");
            } else {
                self.failed(&error).await;
            }
            let mut pause = self.retry.after_failure();
            // Whether there is room for a first snapshot takes a walk through all of it.
            if error.needs_room() && self.reported.as_ref().is_none_or(|it| it.snapshot.is_none()) {
                pause = pause.max(ROOM_RETRY);
            }
            // Another source may be there.
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.tasks.changed() => sleep(MIN_RETRY).await,
            }
        }
    }

    /// Makes the working directory ready for an epoch, and takes snapshots of it.
    async fn write(&mut self, epoch: Epoch, place: &VolumePlace) -> Result<Infallible, CopyError> {
        let working = self.context.docker.volume_directory(self.volume.key(), place).await?;
        let copy = self.copy().await?;
        let begins = copy.written != Some(epoch) || copy.closed;
        if begins {
            let (mut newest, sources) = self.newest();
            if let Some(wanted) = needed(&copy, newest) {
                newest = Some(self.fetch(&copy, wanted, &sources).await?);
            }
            let begun = self.volume.begin(&working, epoch, newest, clock::now()).await?;
            self.put_aside(begun.conflict.as_ref());
            tracing::info!(volume = %self.volume.key(), epoch, kept = begun.kept, "volume is ready to be written");
        }
        self.unchanged = false;
        if begins {
            self.report().await?;
        }
        let mut schedule = Schedule::begin(Instant::now());
        // With the writers of the last snapshot: what they wrote until they ended is in the next one.
        let mut last = None;
        loop {
            let task = self.tasks.borrow_and_update().clone();
            let Some(VolumeTask { role: VolumeRole::Primary { snapshots, writers, .. }, spec }) =
                task
            else {
                std::future::pending().await
            };
            if !snapshots || (writers.is_empty() && last.as_ref() == Some(&writers)) {
                self.report().await?;
                if self.tasks.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                continue;
            }
            tokio::select! {
                () = sleep_until(schedule.due()) => {}
                changed = self.tasks.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    continue;
                }
            }
            let pause = pause_writers(
                self.context.docker.clone(),
                self.volume.key().clone(),
                place.clone(),
                spec.hooks.clone(),
                writers.first().cloned(),
            );
            // The semaphore is never closed.
            let permit = Arc::clone(&self.context.passes).acquire_owned().await;
            let begun = Instant::now();
            let outcome = self.volume.snapshot(&working, epoch, clock::now(), &pause).await?;
            drop(permit);
            self.unchanged = matches!(outcome, Outcome::Unchanged(_));
            match outcome {
                Outcome::Unchanged(_) => schedule.unchanged(begun, begun.elapsed()),
                Outcome::Taken { manifest, paused } => {
                    let metrics = self.context.volumes.metrics();
                    metrics.taken(self.volume.key(), begun.elapsed(), paused);
                    tracing::debug!(volume = %self.volume.key(), snapshot = %manifest.id, ?paused, "snapshot taken");
                    self.volume.prune(spec.keep, clock::now()).await?;
                    schedule.taken(begun, begun.elapsed(), paused);
                }
            }
            last = Some(writers);
            self.retry = Retry::new();
            self.report().await?;
        }
    }

    /// Takes the last snapshot of a volume that is not written any more.
    async fn close(&mut self, epoch: Epoch, place: &VolumePlace) -> Result<Infallible, CopyError> {
        let copy = self.copy().await?;
        if !(copy.closed && copy.written == Some(epoch)) {
            let working = self.context.docker.volume_directory(self.volume.key(), place).await?;
            let outcome = self.volume.close(&working, epoch, clock::now()).await?;
            let snapshot = outcome.manifest().id;
            tracing::info!(volume = %self.volume.key(), epoch, %snapshot, "volume closed");
        }
        self.report().await?;
        std::future::pending().await
    }

    /// Gets what others have written.
    async fn replicate(&mut self, place: &VolumePlace) -> Result<Infallible, CopyError> {
        let mut followed = None;
        loop {
            let task = self.tasks.borrow_and_update().clone();
            let Some(VolumeTask { role: VolumeRole::Replica { fence, newest, sources }, spec }) =
                task
            else {
                std::future::pending().await
            };
            let mut copy = self.copy().await?;
            if let Some(newest) = newest {
                // Not above what can be got: the writer of the fence may have no snapshot yet.
                self.volume.raise_fence(fence.min(newest.epoch)).await?;
                if copy.snapshot.is_none_or(|have| have < newest) {
                    self.fetch(&copy, newest, &sources).await?;
                    self.volume.prune(spec.keep, clock::now()).await?;
                    copy = self.copy().await?;
                }
            }
            if followed != Some(copy.snapshot) {
                let key = self.volume.key();
                let working = self.context.docker.volume_directory(key, place).await?;
                let conflict = self.volume.follow(&working, clock::now()).await?;
                self.put_aside(conflict.as_ref());
                followed = Some(copy.snapshot);
            }
            self.retry = Retry::new();
            self.report().await?;
            if self.tasks.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns the newest snapshot of the cluster, and who has it.
    fn newest(&self) -> (Option<SnapshotId>, Vec<NodeId>) {
        match self.tasks.borrow().as_ref().map(|task| &task.role) {
            Some(
                VolumeRole::Primary { newest, sources, .. }
                | VolumeRole::Replica { newest, sources, .. },
            ) => (*newest, sources.clone()),
            _ => (None, Vec::new()),
        }
    }

    fn put_aside(&self, conflict: Option<&Conflict>) {
        if let Some(conflict) = conflict {
            let (volume, id) = (self.volume.key(), conflict.manifest.id);
            tracing::warn!(
                %volume,
                conflict = %id,
                "this node had written what no snapshot has: it is kept aside for 7 days; see 'vc volume conflicts'"
            );
        }
    }

    /// Reads what the copy is.
    async fn copy(&self) -> Result<VolumeCopy, CopyError> {
        let volume = self.volume.clone();
        let read = move || Ok((volume.copy()?, volume.snapshot_count()?));
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok((copy, snapshots))) => {
                let metrics = self.context.volumes.metrics();
                metrics.set_snapshots(self.volume.key(), snapshots);
                Ok(copy)
            }
            Ok(Err(error)) => Err(CopyError::Store(error)),
            // The node stops.
            Err(_) => std::future::pending().await,
        }
    }

    /// Reports what the copy is, without a problem.
    async fn report(&mut self) -> Result<(), CopyError> {
        let copy = VolumeCopy { unchanged: self.unchanged, ..self.copy().await? };
        if self.problem.take().is_some() {
            tracing::info!(volume = %self.volume.key(), "the copy of the volume is in order again");
        }
        self.send(copy).await;
        Ok(())
    }

    /// Logs a problem once, and reports the copy with it.
    async fn failed(&mut self, error: &CopyError) {
        let text = one_line(&error.to_string());
        if self.problem.as_ref() != Some(&text) {
            tracing::warn!(volume = %self.volume.key(), error = text, "the copy of a volume is not up to date");
            self.problem = Some(text.clone());
        }
        if let Ok(copy) = self.copy().await {
            self.send(VolumeCopy { error: Some(text), ..copy }).await;
        }
    }

    async fn send(&mut self, copy: VolumeCopy) {
        if self.reported.as_ref() != Some(&copy) {
            let input = Input::Volume(self.volume.key().clone(), copy.clone());
            if self.context.driver.send(DriverMessage::Input(input)).await.is_ok() {
                self.reported = Some(copy);
            }
        }
    }
}

/// Returns the snapshot that a copy lacks before it can be written: the newest, unless it was written since that.
fn needed(copy: &VolumeCopy, newest: Option<SnapshotId>) -> Option<SnapshotId> {
    newest.filter(|newest| {
        let is_older = copy.written.is_none_or(|written| written < newest.epoch);
        is_older && copy.snapshot.is_none_or(|have| have < *newest)
    })
}

/// Returns what has failed.
fn operation(part: &Part, error: &CopyError) -> Operation {
    match (part, error) {
        (_, CopyError::Transfer { .. } | CopyError::NoSource(_)) => Operation::Transfer,
        (Part::Replica(_), _) => Operation::Follow,
        _ => Operation::Snapshot,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_gets_the_newest_snapshot_unless_it_has_written_since() {
        let id = |epoch, number| SnapshotId { epoch, number };
        let copy = |written, snapshot| VolumeCopy { written, snapshot, ..VolumeCopy::default() };
        let newest = Some(id(3, 7));
        assert_eq!(needed(&copy(None, None), None), None, "an empty volume");
        assert_eq!(needed(&copy(None, None), newest), newest);
        assert_eq!(needed(&copy(Some(2), Some(id(2, 6))), newest), newest);
        assert_eq!(needed(&copy(Some(2), newest), newest), None, "it has it");
        assert_eq!(needed(&copy(Some(3), Some(id(3, 6))), newest), None, "it wrote it");
        assert_eq!(needed(&copy(Some(4), None), newest), None, "it wrote later");
    }
}
