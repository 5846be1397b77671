//! Working directories: whose content they have, and how they get another one.

use std::path::Path;
use std::sync::Arc;

use vc_protocol::Millis;
use vc_protocol::lease::Epoch;
use vc_protocol::volume::SnapshotId;

use crate::changes;
use crate::child::Hold;
use crate::conflict::{self, Conflict};
use crate::error::Error;
use crate::layout;
use crate::listing;
use crate::manifest::{FORMAT, Manifest};
use crate::rsync::{Copy, Pass};
use crate::snapshot::Outcome;
use crate::state::State;
use crate::tree;
use crate::volume::{Volume, write_manifest};

/// How a primary began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Whether the working directory stayed as it was, as it has what the newest snapshot has, or more.
    pub kept: bool,
    /// What was put aside.
    pub conflict: Option<Conflict>,
}

/// What a working directory is restored from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A snapshot.
    Snapshot(SnapshotId),
    /// Something that was put aside: the id in its manifest.
    Conflict(SnapshotId),
}

impl Volume {
    /// Makes this node the primary under an epoch: `working` becomes the directory that instances write, which is noted durably
    /// before this returns. `newest` is the newest snapshot of the cluster, which must be here; `None` if there is none.
    ///
    /// The directory stays as it is if it was written under the epoch of `newest` or later. Otherwise it becomes equal to `newest`,
    /// after what it has that is in no snapshot was put aside.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::Missing`] and what else may go wrong. No instance may write then.
    pub async fn begin(
        &self,
        working: &Path,
        epoch: Epoch,
        newest: Option<SnapshotId>,
        now: Millis,
    ) -> Result<Begun, Error> {
        let hold = self.lock().await;
        let this = self.clone();
        let state = self
            .update(move |state| {
                this.check_fence(state, epoch)?;
                state.fence = epoch;
                Ok(*state)
            })
            .await?;
        let (mut kept, mut conflict) = (true, None);
        if let Some(newest) = newest
            && (state.replacing || state.written.is_none_or(|it| it < newest.epoch))
        {
            (kept, conflict) = self.replace(working, newest, state, now, &hold).await?;
        }
        let this = self.clone();
        self.update(move |state| {
            // It may have been raised since.
            this.check_fence(state, epoch)?;
            state.written = Some(epoch);
            state.closed = false;
            Ok(())
        })
        .await?;
        Ok(Begun { kept, conflict })
    }

    /// Makes the working directory of a replica equal to the newest snapshot that is here. What it has that is in no snapshot is
    /// put aside and returned, unless the newest snapshot is of the epoch under which it was written, or before: it is newer then
    /// and stays.
    ///
    /// # Errors
    /// What may go wrong. The directory is not used then until this or [`Volume::begin`] succeeds.
    pub async fn follow(&self, working: &Path, now: Millis) -> Result<Option<Conflict>, Error> {
        let hold = self.lock().await;
        let newest = self.blocking(Arc::clone(&hold), |this| this.ids()).await?.last().copied();
        let state = self.state().await?;
        match newest {
            Some(newest) if state.replacing || state.written.is_none_or(|it| it < newest.epoch) => {
                Ok(self.replace(working, newest, state, now, &hold).await?.1)
            }
            _ => Ok(None),
        }
    }

    /// Returns what is put aside, in the order of the ids. Blocks for a read of a small file each.
    ///
    /// # Errors
    /// The directory could not be read.
    pub fn conflicts(&self) -> Result<Vec<Conflict>, Error> {
        conflict::list(self.layout())
    }

    /// Makes the working directory of the primary equal to a snapshot or to what was put aside, after a snapshot of what it has,
    /// and takes a snapshot of the result, which is returned. No instance may run meanwhile.
    ///
    /// # Errors
    /// [`Error::NotBegun`], [`Error::Missing`] and what else may go wrong. The directory may have some of each then; what it had
    /// is in the newest snapshot.
    pub async fn restore(
        &self,
        source: Source,
        working: &Path,
        epoch: Epoch,
        now: Millis,
    ) -> Result<Manifest, Error> {
        let hold = self.lock().await;
        self.check_begun(epoch).await?;
        let (from, what) = match source {
            Source::Snapshot(id) => (self.layout().snapshot(id), format!("snapshot {id}")),
            Source::Conflict(id) => (conflict::path(self.layout(), id), format!("conflict {id}")),
        };
        let from = layout::data(&from);
        if !tokio::fs::try_exists(&from).await.unwrap_or(false) {
            return Err(self.missing(what));
        }
        self.take_still(working, epoch, now, Arc::clone(&hold)).await?;
        self.equalize(&from, working, &hold).await?;
        let outcome: Outcome = self.take_still(working, epoch, now, hold).await?;
        Ok(outcome.manifest().clone())
    }

    /// Makes a working directory equal to a snapshot, after its own content was put aside where it is in no snapshot. Returns
    /// whether it was equal already, and what was put aside.
    async fn replace(
        &self,
        working: &Path,
        id: SnapshotId,
        state: State,
        now: Millis,
        hold: &Hold,
    ) -> Result<(bool, Option<Conflict>), Error> {
        if state.base == Some(id) && state.closed && !state.replacing {
            return Ok((true, None));
        }
        let data = self.layout().data(id);
        if !tokio::fs::try_exists(&data).await.unwrap_or(false) {
            return Err(self.missing(format!("snapshot {id}")));
        }
        let conflict = match state.replacing {
            // Its content was put aside when that began.
            true => None,
            false => self.put_aside(working, &data, state, now, hold).await?,
        };
        self.update(|state| {
            state.replacing = true;
            Ok(())
        })
        .await?;
        self.equalize(&data, working, hold).await?;
        self.update(move |state| {
            state.base = Some(id);
            state.replacing = false;
            state.closed = true;
            Ok(())
        })
        .await?;
        Ok((false, conflict))
    }

    /// Makes a directory equal to a tree of the store, durably.
    async fn equalize(&self, from: &Path, working: &Path, hold: &Hold) -> Result<(), Error> {
        let newest = self.blocking(Arc::clone(hold), |this| this.newest()).await?;
        self.expect_bytes(newest.map_or(0, |it| it.bytes));
        let copy = Copy {
            from,
            to: working,
            list: None,
            link: None,
            delete: true,
            pass: Pass::Still,
            nice: false,
        };
        self.rsync(copy, Arc::clone(hold)).await?;
        let working = working.to_owned();
        self.blocking(Arc::clone(hold), move |_| tree::sync(&working)).await
    }

    /// Puts the content of a working directory aside, if it is neither in the snapshot with which it began nor `next`, which will
    /// replace it.
    async fn put_aside(
        &self,
        working: &Path,
        next: &Path,
        state: State,
        now: Millis,
        hold: &Hold,
    ) -> Result<Option<Conflict>, Error> {
        if state.closed || tree::is_empty(working)? {
            return Ok(None);
        }
        let base = state.base.map(|it| self.layout().data(it)).filter(|it| it.exists());
        for known in base.iter().map(|it| &**it).chain([next]) {
            let (one, other) = (working.to_owned(), known.to_owned());
            let differ = move |_: &Self| changes::diff(&one, &other, None);
            if self.blocking(Arc::clone(hold), differ).await?.is_empty() {
                return Ok(None);
            }
        }
        self.blocking(Arc::clone(hold), |this| {
            this.prepare_staging()?;
            tree::create(&layout::data(&this.layout().incoming()))
        })
        .await?;
        let to = layout::data(&self.layout().incoming());
        // What is as in the snapshot that follows costs nothing either, where the other one is gone.
        let link = Some(base.as_deref().unwrap_or(next));
        let copy = Copy {
            from: working,
            to: &to,
            list: None,
            link,
            delete: false,
            pass: Pass::Still,
            nice: false,
        };
        self.rsync(copy, Arc::clone(hold)).await?;
        let id_base = state.base;
        let written = state.written.unwrap_or(0);
        self.blocking(Arc::clone(hold), move |this| {
            let staged = this.layout().incoming();
            tree::sync(&staged)?;
            let listing::Listing { files, bytes, digest } = listing::read(&layout::data(&staged))?;
            let id = conflict::next_id(this.layout(), written, id_base);
            let manifest =
                Manifest { format: FORMAT, id, parent: id_base, taken: now, files, bytes, digest };
            write_manifest(&staged, &manifest)?;
            tree::create(&this.layout().conflicts())?;
            tree::publish(&staged, &conflict::path(this.layout(), id))?;
            Ok(conflict::list(this.layout())?.into_iter().find(|it| it.manifest.id == id))
        })
        .await
    }
}
