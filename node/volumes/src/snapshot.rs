//! Snapshots of a working directory.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use vc_protocol::Millis;
use vc_protocol::lease::Epoch;
use vc_protocol::volume::SnapshotId;

use crate::changes::{self, Changes, Remove, Seen};
use crate::child::Hold;
use crate::error::{Context as _, Error};
use crate::layout;
use crate::manifest::Manifest;
use crate::pause::{Pause, Paused};
use crate::rsync::{Copy, Pass};
use crate::state::State;
use crate::volume::Volume;
use crate::{listing, tree};

/// The shortest pause. A write after it has a later time than any before it, whatever the tick of the filesystem's clock (10 ms at
/// most), so the next pass sees it.
const MIN_PAUSE: Duration = Duration::from_millis(20);

/// The most bytes of a list of changed paths. A replica copies a snapshot without one as a whole.
pub(crate) const MAX_LIST: usize = 8 << 20;

/// What became of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing has changed: the newest snapshot is the content as it was when the operation began, or later.
    Unchanged(Manifest),
    /// There is a new snapshot.
    Taken {
        /// What it is.
        manifest: Manifest,
        /// For how long the instances were paused.
        paused: Duration,
    },
}

impl Outcome {
    /// The newest snapshot.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        match self {
            Self::Unchanged(manifest) | Self::Taken { manifest, .. } => manifest,
        }
    }
}

/// Whether the instances run while a snapshot is taken.
enum Instances<'a> {
    Stopped,
    Running(&'a Arc<dyn Pause>),
}

impl Volume {
    /// Takes a snapshot of a working directory that instances write, under the epoch of its lease, at `now`. Copies while they
    /// write, then pauses them and copies what has changed meanwhile. Where nothing has changed since the newest snapshot, they
    /// are not paused.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::NotBegun`], [`Error::NoSpace`], and what else may go wrong; there is no new snapshot then.
    pub async fn snapshot(
        &self,
        working: &Path,
        epoch: Epoch,
        now: Millis,
        pause: &Arc<dyn Pause>,
    ) -> Result<Outcome, Error> {
        let hold = self.lock().await;
        self.check_begun(epoch).await?;
        self.take(working, epoch, now, Instances::Running(pause), hold).await
    }

    /// Takes the last snapshot of a working directory that nothing writes any more, and notes that it has everything.
    ///
    /// # Errors
    /// As [`Volume::snapshot`].
    pub async fn close(&self, working: &Path, epoch: Epoch, now: Millis) -> Result<Outcome, Error> {
        let hold = self.lock().await;
        self.check_begun(epoch).await?;
        let outcome = self.take(working, epoch, now, Instances::Stopped, hold).await?;
        let base = Some(outcome.manifest().id);
        self.update(move |state| {
            if state.written == Some(epoch) && state.base == base {
                state.closed = true;
            }
            Ok(())
        })
        .await?;
        Ok(outcome)
    }

    /// Refuses an epoch that does not write the working directory.
    pub(crate) async fn check_begun(&self, epoch: Epoch) -> Result<State, Error> {
        let state = self.state().await?;
        self.check_fence(&state, epoch)?;
        if state.written != Some(epoch) {
            return Err(Error::NotBegun { volume: self.key().to_string(), epoch });
        }
        Ok(state)
    }

    /// Takes a snapshot of a working directory that nothing writes.
    pub(crate) async fn take_still(
        &self,
        working: &Path,
        epoch: Epoch,
        now: Millis,
        hold: Hold,
    ) -> Result<Outcome, Error> {
        self.take(working, epoch, now, Instances::Stopped, hold).await
    }

    /// Takes a snapshot; if that fails, what it has made is deleted: the disk may be full.
    async fn take(
        &self,
        working: &Path,
        epoch: Epoch,
        now: Millis,
        instances: Instances<'_>,
        hold: Hold,
    ) -> Result<Outcome, Error> {
        let taken = self.try_take(working, epoch, now, instances, Arc::clone(&hold)).await;
        if taken.is_err() {
            self.blocking(hold, Self::clear_staging).await?;
        }
        taken
    }

    async fn try_take(
        &self,
        working: &Path,
        epoch: Epoch,
        now: Millis,
        instances: Instances<'_>,
        hold: Hold,
    ) -> Result<Outcome, Error> {
        let (begun, start) = (Instant::now(), SystemTime::now());
        let source = working.to_owned();
        let found = self.blocking(Arc::clone(&hold), move |this| this.compare(&source)).await?;
        let newest = found.as_ref().map(|(newest, ..)| newest.clone());
        let (newest, mut changes, seen) = match found {
            Some((newest, changes, _)) if changes.is_empty() => {
                let id = newest.id;
                self.update(move |state| {
                    state.base = Some(id);
                    Ok(())
                })
                .await?;
                return Ok(Outcome::Unchanged(newest));
            }
            Some((_, changes, seen)) => (newest, Some(changes), Some(seen)),
            None => (None, None, None),
        };
        let number = newest.as_ref().map_or(0, |it| it.id.number) + 1;
        let (id, parent) = (SnapshotId { epoch, number }, newest.as_ref().map(|it| it.id));
        let history = newest.as_ref().map_or_else(Vec::new, |it| it.next_history(epoch));
        if let Some(parent) = parent.filter(|parent| *parent >= id) {
            return Err(Error::NotNewer { volume: self.key().to_string(), id, newest: parent });
        }
        let (source, changed) = (working.to_owned(), changes.clone());
        self.blocking(Arc::clone(&hold), move |this| {
            this.require_room(match &changed {
                Some(changes) => changes.allocated(&source),
                None => tree::allocated_below(&source)?,
            })?;
            this.prepare_staging()?;
            match parent {
                Some(parent) => this.stage_links(parent),
                None => tree::create(&layout::data(&this.layout().incoming())),
            }
        })
        .await?;

        let pass =
            if matches!(instances, Instances::Stopped) { Pass::Still } else { Pass::Running };
        self.copy_changes(working, changes.as_ref(), pass, &hold).await?;
        let (mut taken_at, mut paused) = (Duration::ZERO, Duration::ZERO);
        if let Instances::Running(pause) = instances {
            taken_at = begun.elapsed();
            let mut pause = Paused::begin(pause)
                .await
                .map_err(|source| Error::Pause { volume: self.key().to_string(), source })?;
            let passed = self.last_pass(working, start, seen, &hold).await;
            tokio::time::sleep(MIN_PAUSE.saturating_sub(pause.since.elapsed())).await;
            paused = pause.end().await;
            let later = passed?;
            if let Some(changes) = &mut changes {
                changes.extend(later);
            }
        }

        let taken = now.saturating_add(Millis::try_from(taken_at.as_millis()).unwrap_or(0));
        let manifest = self
            .blocking(Arc::clone(&hold), move |this| {
                let data = layout::data(&this.layout().incoming());
                if let Some(mut changes) = changes {
                    changes.settle(&data);
                    write_lists(&this.layout().incoming(), &changes)?;
                }
                tree::sync(&data)?;
                let manifest = Manifest::new(id, parent, history, taken, listing::read(&data)?);
                this.commit(&manifest, |state| {
                    state.base = Some(id);
                    Ok(())
                })?;
                // The snapshot is committed: what is left over is removed by the next operation otherwise.
                if let Err(error) = this.clear_staging() {
                    tracing::warn!(%error, "cannot remove what a snapshot has left over");
                }
                Ok(manifest)
            })
            .await?;
        self.prepare_standby(id, hold);
        Ok(Outcome::Taken { manifest, paused })
    }

    /// Returns the newest snapshot, and how a working directory differs from it. Blocks.
    fn compare(&self, working: &Path) -> Result<Option<(Manifest, Changes, Seen)>, Error> {
        let Some(newest) = self.newest()? else { return Ok(None) };
        let (changes, seen) = changes::diff_first(working, &self.layout().data(newest.id))?;
        Ok(Some((newest, changes, seen)))
    }

    /// Copies what has changed since `start`, or shortly before it, while nothing writes. Returns it.
    async fn last_pass(
        &self,
        working: &Path,
        start: SystemTime,
        seen: Option<Seen>,
        hold: &Hold,
    ) -> Result<Changes, Error> {
        let recent = seconds(start).saturating_sub(2)..=seconds(SystemTime::now()) + 1;
        let source = working.to_owned();
        let changes = self
            .blocking(Arc::clone(hold), move |this| {
                let copy = layout::data(&this.layout().incoming());
                changes::diff_again(&source, &copy, recent, seen.as_ref())
            })
            .await?;
        if !changes.is_empty() {
            self.copy_changes(working, Some(&changes), Pass::Still, hold).await?;
        }
        Ok(changes)
    }

    /// Copies what has changed from the working directory to the staged snapshot; everything if that is not known.
    async fn copy_changes(
        &self,
        working: &Path,
        changes: Option<&Changes>,
        pass: Pass,
        hold: &Hold,
    ) -> Result<(), Error> {
        let data = layout::data(&self.layout().incoming());
        let list = self.layout().list();
        if let Some(changes) = changes {
            let changes = changes.clone();
            self.blocking(Arc::clone(hold), move |this| {
                changes.remove_from(&layout::data(&this.layout().incoming()), Remove::All)?;
                let list = this.layout().list();
                std::fs::write(&list, changes.files_from()).context("write", &list)
            })
            .await?;
        }
        // What instances wait for is not delayed.
        let (list, nice) = (changes.map(|_| list.as_path()), pass == Pass::Running);
        let copy = Copy { from: working, to: &data, list, link: None, pass, nice };
        self.rsync(copy, Arc::clone(hold)).await
    }
}

/// Writes what has changed since the parent of a staged snapshot beside it, unless that is too much to be of use.
pub(crate) fn write_lists(staged: &Path, changes: &Changes) -> Result<(), Error> {
    let lists = changes.lists();
    if lists.iter().any(|list| list.len() > MAX_LIST) {
        return Ok(());
    }
    for (path, list) in layout::lists(staged).iter().zip(lists) {
        std::fs::write(path, list).context("write", path)?;
    }
    Ok(())
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |it| it.as_secs().cast_signed())
}
