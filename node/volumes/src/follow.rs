//! Working directories: whose content they have, and how they get another one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vc_protocol::Millis;
use vc_protocol::lease::Epoch;
use vc_protocol::volume::SnapshotId;

use crate::changes::{self, Remove};
use crate::child::Hold;
use crate::conflict::{self, Conflict};
use crate::error::{Context as _, Error};
use crate::layout;
use crate::listing;
use crate::manifest::Manifest;
use crate::rsync::{Copy, Pass};
use crate::state::State;
use crate::tree;
use crate::volume::{Volume, read_manifest, write_manifest};

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
        // It may have arrived without the caller knowing.
        let here = self.blocking(Arc::clone(&hold), |this| this.ids()).await?.last().copied();
        if let Some(newest) = newest.map(|newest| here.map_or(newest, |here| here.max(newest)))
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
        Ok(self.restore_from(&from, working, epoch, now, hold).await?.1)
    }

    /// Makes the working directory equal to a tree on the disk of the store, or leaves it as it is; after a crash the next
    /// [`Volume::begin`] makes it what it was. Returns the snapshots before and after.
    pub(crate) async fn restore_from(
        &self,
        from: &Path,
        working: &Path,
        epoch: Epoch,
        now: Millis,
        hold: Hold,
    ) -> Result<(SnapshotId, Manifest), Error> {
        let before = self.take_still(working, epoch, now, Arc::clone(&hold)).await?;
        let before = before.manifest().id;
        self.set_replacing(true).await?;
        let replaced = match self.equalize(from, working, &hold).await {
            Ok(()) => self.take_still(working, epoch, now, Arc::clone(&hold)).await,
            Err(error) => Err(error),
        };
        if replaced.is_err() {
            self.equalize(&self.layout().data(before), working, &hold).await?;
        }
        self.set_replacing(false).await?;
        Ok((before, replaced?.manifest().clone()))
    }

    async fn set_replacing(&self, replacing: bool) -> Result<(), Error> {
        self.update(move |state| {
            state.replacing = replacing;
            Ok(())
        })
        .await
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
            false => self.put_aside(working, id, state, now, hold).await?,
        };
        self.set_replacing(true).await?;
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
        let (source, copy) = (from.to_owned(), working.to_owned());
        let (changes, newest) = self
            .blocking(Arc::clone(hold), move |this| {
                let changes = changes::diff(&source, &copy)?;
                changes.remove_from(&copy, Remove::Linked)?;
                this.prepare_staging()?;
                let list = this.layout().list();
                std::fs::write(&list, changes.files_from()).context("write", &list)?;
                Ok((changes, this.newest()?))
            })
            .await?;
        if changes.is_empty() {
            return Ok(());
        }
        self.expect_bytes(newest.map_or(0, |it| it.bytes));
        let list = self.layout().list();
        let copy = Copy {
            from,
            to: working,
            list: Some(&list),
            link: None,
            pass: Pass::Still,
            nice: false,
        };
        self.rsync(copy, Arc::clone(hold)).await?;
        let working = working.to_owned();
        self.blocking(Arc::clone(hold), move |this| {
            tree::sync(&working)?;
            this.clear_staging()
        })
        .await
    }

    /// Puts the content of a working directory aside, if it is neither in a snapshot that `next` was built on, nor in `next` itself,
    /// which will replace it.
    async fn put_aside(
        &self,
        working: &Path,
        next: SnapshotId,
        state: State,
        now: Millis,
        hold: &Hold,
    ) -> Result<Option<Conflict>, Error> {
        let source = working.to_owned();
        let content = self
            .blocking(Arc::clone(hold), move |this| this.unsaved(&source, next, &state))
            .await?;
        let Some(content) = content else { return Ok(None) };
        self.blocking(Arc::clone(hold), |this| {
            this.prepare_staging()?;
            tree::create(&layout::data(&this.layout().incoming()))
        })
        .await?;
        let to = layout::data(&self.layout().incoming());
        let base = state.base.map(|it| self.layout().data(it)).filter(|it| it.exists());
        // What is as in the snapshot that follows costs nothing either, where the other one is gone.
        let link = base.unwrap_or_else(|| self.layout().data(next));
        let copy = Copy {
            from: &content,
            to: &to,
            list: None,
            link: Some(&link),
            pass: Pass::Still,
            nice: false,
        };
        self.rsync(copy, Arc::clone(hold)).await?;
        self.blocking(Arc::clone(hold), move |this| {
            let staged = this.layout().incoming();
            tree::sync(&staged)?;
            let listing = listing::read(&layout::data(&staged))?;
            let written = state.written.or(state.base.map(|it| it.epoch)).unwrap_or(0);
            let id = conflict::next_id(this.layout(), written, state.base);
            let manifest = Manifest::new(id, state.base, Vec::new(), now, listing);
            write_manifest(&staged, &manifest)?;
            tree::create(&this.layout().conflicts())?;
            tree::publish(&staged, &conflict::path(this.layout(), id))?;
            Ok(conflict::list(this.layout())?.into_iter().find(|it| it.manifest.id == id))
        })
        .await
    }

    /// Returns the tree that has what would be lost if `next` replaced the working directory. Blocks.
    fn unsaved(
        &self,
        working: &Path,
        next: SnapshotId,
        state: &State,
    ) -> Result<Option<PathBuf>, Error> {
        let next_data = self.layout().data(next);
        let base = state.base.filter(|base| self.layout().data(*base).is_dir());
        let differs = |from: &Path, to: &Path| Ok::<_, Error>(!changes::diff(from, to)?.is_empty());
        let written = !state.closed && !tree::is_empty(working)?;
        if written {
            let base = base.map(|base| self.layout().data(base));
            let since_base = base.map_or(Ok(true), |base| differs(working, &base))?;
            if since_base {
                return Ok(differs(working, &next_data)?.then(|| working.to_owned()));
            }
        }
        // The last snapshots of a lost primary may have reached no node that went on.
        let manifest = read_manifest(&self.layout().snapshot(next))?;
        let lost = base.filter(|base| manifest.is_some_and(|it| !it.is_built_on(*base)));
        match lost.map(|base| self.layout().data(base)) {
            Some(base) if differs(&base, &next_data)? => Ok(Some(base)),
            _ => Ok(None),
        }
    }
}
