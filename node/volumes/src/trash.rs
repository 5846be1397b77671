//! What was removed, for 24 hours.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vc_protocol::{Millis, VolumeKey};

use crate::error::{Context as _, Error};
use crate::layout::Layout;
use crate::manifest::Manifest;
use crate::state::State;
use crate::store::{Store, TRASH, keys_in};
use crate::tree;
use crate::volume::{Volume, lock, read_manifest};

/// How long what was removed is kept.
const KEPT: Millis = 24 * 3_600_000;

/// A copy that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// The volume.
    pub key: VolumeKey,
    /// When this node removed it; identifies it, with the name.
    pub removed: Millis,
    /// When it was removed from the cluster, which is the same for all copies; without such a time, [`Trashed::removed`].
    pub decided: Millis,
    /// When it may be deleted; [`Millis::MAX`]: never, it was only forgotten.
    pub expires: Millis,
    /// The newest of its snapshots.
    pub newest: Option<Manifest>,
}

impl Volume {
    /// Moves the whole copy to the trash. What `working` has that is in no snapshot becomes the last one first, whatever the
    /// fence; nothing may write it. `decided` is when the volume was removed from the cluster, if it was. The directory itself is the
    /// caller's to remove. `None`: there was nothing.
    ///
    /// # Errors
    /// What may go wrong; the copy is where it was then.
    pub async fn trash(
        &self,
        working: Option<&Path>,
        decided: Option<Millis>,
        now: Millis,
    ) -> Result<Option<Trashed>, Error> {
        self.put_away(working, decided, now, false).await
    }

    /// As [`Volume::trash`], for good: what is there does not expire.
    ///
    /// # Errors
    /// As [`Volume::trash`].
    pub async fn forget(
        &self,
        working: Option<&Path>,
        decided: Option<Millis>,
        now: Millis,
    ) -> Result<Option<Trashed>, Error> {
        self.put_away(working, decided, now, true).await
    }

    async fn put_away(
        &self,
        working: Option<&Path>,
        decided: Option<Millis>,
        now: Millis,
        for_good: bool,
    ) -> Result<Option<Trashed>, Error> {
        let hold = self.lock().await;
        let state = self.state().await?;
        // Equal to a snapshot, or half of two that are both here.
        let saved = state.replacing || (state.closed && state.base.is_some());
        if let Some(working) = working
            && !saved
            && working.is_dir()
            && !tree::is_empty(working)?
        {
            let newest = self.blocking(Arc::clone(&hold), |this| this.newest()).await?;
            let newest = newest.map_or(0, |it| it.id.epoch);
            let epoch = state.fence.max(newest).max(state.written.unwrap_or(0));
            self.take_still(working, epoch, now, Arc::clone(&hold)).await?;
        }
        let store = Store(Arc::clone(&self.0.shared));
        self.blocking(hold, move |this| {
            let _guard = lock(&this.0.state);
            if this.ids()?.is_empty() && this.conflicts()?.is_empty() {
                tree::remove(this.dir())?;
                store.0.forget(this.key());
                return Ok(None);
            }
            this.clear_staging()?;
            // The working directory is gone when it returns.
            let state = State::read(&this.layout().state())?;
            State { fence: state.fence, ..State::default() }.write(&this.layout().state())?;
            if for_good {
                let mark = this.layout().forgotten();
                vc_atomic_file::write(&mark, b"", 0o600).context("write", &mark)?;
            }
            if let Some(decided) = decided {
                let file = this.layout().decided();
                let text = decided.to_string();
                vc_atomic_file::write(&file, text.as_bytes(), 0o600).context("write", &file)?;
            }
            let removed = store.free_time(this.key(), now);
            let to = store.trash_dir(this.key(), removed);
            tree::create(to.parent().unwrap_or(&to))?;
            tree::publish(this.dir(), &to)?;
            store.0.forget(this.key());
            Ok(Some(store.trashed_at(this.key(), removed)?))
        })
        .await
    }
}

impl Store {
    /// Returns what is in the trash. Blocks.
    ///
    /// # Errors
    /// The directory could not be read.
    pub fn trashed(&self) -> Result<Vec<Trashed>, Error> {
        let mut found = Vec::new();
        for key in keys_in(&self.0.dir.join(TRASH))? {
            for removed in tree::names(&self.trash_of(&key))? {
                if let Some(removed) = removed.to_str().and_then(|it| it.parse().ok()) {
                    found.push(self.trashed_at(&key, removed)?);
                }
            }
        }
        found.sort_unstable_by_key(|it| (it.key.clone(), it.removed));
        Ok(found)
    }

    /// Takes a copy that was removed at a time back from the trash. Blocks.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Exists`] if the volume has snapshots again, and what else may go wrong.
    pub fn undelete(&self, key: &VolumeKey, removed: Millis) -> Result<(), Error> {
        let volume = self.volume(key);
        let from = self.trash_dir(key, removed);
        if !from.is_dir() {
            return Err(volume.missing(format!("copy in the trash that was removed at {removed}")));
        }
        if !volume.ids()?.is_empty() || !volume.conflicts()?.is_empty() {
            return Err(Error::Exists { volume: key.to_string() });
        }
        let _guard = lock(&volume.0.state);
        // Only its fence is of use.
        let fence = State::read(&volume.layout().state())?.fence;
        let layout = Layout(from.clone());
        let mut state = State::read(&layout.state())?;
        state.fence = state.fence.max(fence);
        state.write(&layout.state())?;
        tree::remove(volume.dir())?;
        tree::create(volume.dir().parent().unwrap_or(&self.0.dir))?;
        // Before: the next removal may be another one. After a crash it expires, as what was removed does.
        tree::remove_file(&layout.forgotten())?;
        tree::remove_file(&layout.decided())?;
        tree::publish(&from, volume.dir())
    }

    /// Deletes what was removed 24 hours ago, and uploads that broke off then. Blocks.
    ///
    /// # Errors
    /// The directory could not be read or changed.
    pub fn expire(&self, now: Millis) -> Result<(), Error> {
        for old in self.trashed()?.into_iter().filter(|it| it.expires <= now) {
            tree::remove(&self.trash_dir(&old.key, old.removed))?;
            // The directory of the volume, if nothing else of it is in the trash.
            let _ = std::fs::remove_dir(self.trash_of(&old.key));
        }
        self.expire_uploads(now)
    }

    fn trash_of(&self, key: &VolumeKey) -> PathBuf {
        self.0.dir.join(TRASH).join(key.project.as_str()).join(key.volume.as_str())
    }

    fn trash_dir(&self, key: &VolumeKey, removed: Millis) -> PathBuf {
        self.trash_of(key).join(removed.to_string())
    }

    /// Returns the first time from `now` on at which nothing of this name was removed.
    fn free_time(&self, key: &VolumeKey, now: Millis) -> Millis {
        (now..).find(|time| !self.trash_dir(key, *time).exists()).unwrap_or(now)
    }

    fn trashed_at(&self, key: &VolumeKey, removed: Millis) -> Result<Trashed, Error> {
        let layout = Layout(self.trash_dir(key, removed));
        let ids = tree::names(&layout.snapshots())?;
        let newest = ids.iter().filter_map(|it| it.to_str()?.parse().ok()).max();
        let newest = match newest {
            Some(id) => read_manifest(&layout.snapshot(id))?,
            None => None,
        };
        let expires = match layout.forgotten().exists() {
            true => Millis::MAX,
            false => removed.saturating_add(KEPT),
        };
        let decided = std::fs::read_to_string(layout.decided()).ok();
        let decided = decided.and_then(|text| text.parse().ok()).unwrap_or(removed);
        Ok(Trashed { key: key.clone(), removed, decided, expires, newest })
    }
}
