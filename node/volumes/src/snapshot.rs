//! Snapshots of a working directory.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use vc_protocol::Millis;
use vc_protocol::lease::Epoch;
use vc_protocol::volume::SnapshotId;

use crate::child::Hold;
use crate::error::Error;
use crate::layout;
use crate::manifest::{FORMAT, Manifest};
use crate::pause::{Pause, Paused};
use crate::rsync::{Copy, Pass};
use crate::state::State;
use crate::volume::Volume;
use crate::{listing, tree};

/// The shortest pause. A write after it has a later time than any before it, whatever the tick of the filesystem's clock (10 ms at
/// most), so the next pass sees it.
const MIN_PAUSE: Duration = Duration::from_millis(20);

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
        let begun = Instant::now();
        let newest = self.blocking(Arc::clone(&hold), |this| this.newest()).await?;
        let newest_data = newest.as_ref().map(|it| self.layout().data(it.id));
        if let (Some(newest), Some(data)) = (&newest, &newest_data)
            && !self.differ(working, data, Arc::clone(&hold)).await?
        {
            let id = newest.id;
            self.update(move |state| {
                state.base = Some(id);
                Ok(())
            })
            .await?;
            return Ok(Outcome::Unchanged(newest.clone()));
        }
        let number = newest.as_ref().map_or(0, |it| it.id.number) + 1;
        let (id, parent) = (SnapshotId { epoch, number }, newest.as_ref().map(|it| it.id));
        if let Some(parent) = parent.filter(|parent| *parent >= id) {
            return Err(Error::NotNewer { volume: self.key().to_string(), id, newest: parent });
        }
        self.blocking(Arc::clone(&hold), |this| {
            this.prepare_staging()?;
            tree::create(&layout::data(&this.layout().incoming()))
        })
        .await?;
        self.expect_bytes(newest.as_ref().map_or(0, |it| it.bytes));

        let incoming = layout::data(&self.layout().incoming());
        let (taken_at, paused) = match instances {
            Instances::Stopped => {
                let link = newest_data.as_deref();
                self.pass(working, &incoming, link, Pass::Still, &hold).await?;
                (Duration::ZERO, Duration::ZERO)
            }
            Instances::Running(pause) => {
                let hot = self.layout().hot();
                let start = SystemTime::now();
                self.blocking(Arc::clone(&hold), |this| tree::create(&this.layout().hot())).await?;
                self.pass(working, &hot, newest_data.as_deref(), Pass::Running, &hold).await?;
                let source = working.to_owned();
                self.blocking(Arc::clone(&hold), move |this| {
                    tree::remove_untrusted(&this.layout().hot(), &source, start)
                })
                .await?;
                let taken_at = begun.elapsed();
                let paused = Instant::now();
                let mut pause = Paused::begin(pause)
                    .await
                    .map_err(|source| Error::Pause { volume: self.key().to_string(), source })?;
                let passed = self.pass(working, &incoming, Some(&hot), Pass::Still, &hold).await;
                tokio::time::sleep(MIN_PAUSE.saturating_sub(paused.elapsed())).await;
                pause.end().await;
                let paused = paused.elapsed();
                passed?;
                (taken_at, paused)
            }
        };

        let taken = now.saturating_add(Millis::try_from(taken_at.as_millis()).unwrap_or(0));
        let manifest = self
            .blocking(hold, move |this| {
                let data = layout::data(&this.layout().incoming());
                tree::sync(&data)?;
                let listing::Listing { files, bytes, digest } = listing::read(&data)?;
                let manifest = Manifest { format: FORMAT, id, parent, taken, files, bytes, digest };
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
        Ok(Outcome::Taken { manifest, paused })
    }

    async fn pass(
        &self,
        from: &Path,
        to: &Path,
        link: Option<&Path>,
        pass: Pass,
        hold: &Hold,
    ) -> Result<(), Error> {
        // What instances wait for is not delayed.
        let copy = Copy { from, to, link, delete: false, pass, nice: pass == Pass::Running };
        self.rsync(copy, Arc::clone(hold)).await
    }
}
