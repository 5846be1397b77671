//! A volume of the store.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vc_protocol::lease::Epoch;
use vc_protocol::volume::{Keep, SnapshotId, VolumeCopy};
use vc_protocol::{Millis, VolumeKey};

use crate::child::Hold;
use crate::error::{Context as _, Error};
use crate::keep::prunable;
use crate::layout::{self, Layout};
use crate::manifest::Manifest;
use crate::state::State;
use crate::store::Shared;
use crate::{changes, conflict, tree};

/// A volume of the store, on this node. Clones are the same volume.
///
/// All operations may be dropped at any point, and wait for each other, except those that only read, [`Volume::send`] and
/// [`Volume::raise_fence`].
#[derive(Clone)]
pub struct Volume(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) key: VolumeKey,
    pub(crate) layout: Layout,
    pub(crate) shared: Arc<Shared>,
    /// Held by the operation that changes the copy, and by its processes.
    pub(crate) exclusive: Arc<tokio::sync::Mutex<()>>,
    /// Held by what changes the staged upload, and by its processes.
    pub(crate) upload: Arc<tokio::sync::Mutex<()>>,
    /// Held while the state is read and written.
    pub(crate) state: Mutex<()>,
    /// How often each snapshot is being sent.
    pub(crate) sending: Mutex<BTreeMap<SnapshotId, usize>>,
    /// The snapshot to which the standby tree has links, if it is whole.
    pub(crate) standby: Mutex<Option<SnapshotId>>,
    /// The most bytes that the present operation may write.
    pub(crate) expected: AtomicU64,
    /// The last transfer did not match its manifest: the next one trusts less of what is here.
    pub(crate) distrust: AtomicBool,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Volume").field(&self.0.key).finish()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volume {
    /// The name of the volume.
    #[must_use]
    pub fn key(&self) -> &VolumeKey {
        &self.0.key
    }

    /// Returns what the node says of its copy. Blocks for a few reads of small files. `unchanged`, `received` and
    /// `error` are for the caller to fill in.
    ///
    /// # Errors
    /// The directory could not be read.
    pub fn copy(&self) -> Result<VolumeCopy, Error> {
        let state = State::read(&self.layout().state())?;
        let newest = self.newest()?;
        let conflicts = conflict::list(self.layout())?.len();
        Ok(VolumeCopy {
            snapshot: newest.as_ref().map(|it| it.id),
            taken: newest.as_ref().map_or(0, |it| it.taken),
            bytes: newest.as_ref().map_or(0, |it| it.bytes),
            disk_bytes: newest.as_ref().map_or(0, Manifest::room),
            written: state.written,
            closed: state.closed,
            unchanged: false,
            conflicts: u32::try_from(conflicts).unwrap_or(u32::MAX),
            received: 0,
            error: None,
        })
    }

    /// Returns how many snapshots there are. Blocks for the read of a directory.
    ///
    /// # Errors
    /// The directory could not be read.
    pub fn snapshot_count(&self) -> Result<usize, Error> {
        Ok(self.ids()?.len())
    }

    /// Returns the manifests of the snapshots, the oldest first. Blocks for a read of a small file each.
    ///
    /// # Errors
    /// The directory could not be read.
    pub fn snapshots(&self) -> Result<Vec<Manifest>, Error> {
        let ids = self.ids()?;
        let manifests = ids.into_iter().map(|id| read_manifest(&self.layout().snapshot(id)));
        Ok(manifests.collect::<Result<Vec<_>, Error>>()?.into_iter().flatten().collect())
    }

    /// Refuses everything of lower epochs from now on, durably. Waits for no other operation: what runs under a lower epoch
    /// commits nothing more.
    ///
    /// # Errors
    /// The state could not be written.
    pub async fn raise_fence(&self, epoch: Epoch) -> Result<(), Error> {
        self.update(move |state| {
            state.fence = state.fence.max(epoch);
            Ok(())
        })
        .await
    }

    /// Deletes the snapshots that the rule does not keep (see [`prunable`]) and conflicts that were put aside seven days ago.
    /// What is being sent stays, and so does what the working directory was last made of. Returns what was deleted.
    ///
    /// # Errors
    /// The directory could not be read or changed.
    pub async fn prune(&self, keep: Keep, now: Millis) -> Result<Vec<SnapshotId>, Error> {
        let hold = self.lock().await;
        self.blocking(hold, move |this| {
            let all: Vec<_> = this.snapshots()?.iter().map(|it| (it.id, it.taken)).collect();
            let base = State::read(&this.layout().state())?.base;
            let mut gone = prunable(&all, &keep, now);
            {
                let sending = lock(&this.0.sending);
                gone.retain(|id| !sending.contains_key(id) && base != Some(*id));
                for id in &gone {
                    this.discard(&this.layout().snapshot(*id))?;
                }
            }
            for old in conflict::expired(this.layout(), now)? {
                this.discard(&old)?;
            }
            tree::remove(&this.layout().garbage())?;
            Ok(gone)
        })
        .await
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.0.layout
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0.layout.0
    }

    pub(crate) fn program(&self) -> &Path {
        &self.0.shared.program
    }

    pub(crate) fn expected_bytes(&self) -> u64 {
        self.0.expected.load(Ordering::Relaxed)
    }

    /// Notes how much an operation may write, for its error when the disk is full.
    pub(crate) fn expect_bytes(&self, bytes: u64) {
        self.0.expected.store(bytes, Ordering::Relaxed);
    }

    /// Refuses to begin what the disk has no room for: it is not filled for nothing.
    pub(crate) fn require_room(&self, needed: u64) -> Result<(), Error> {
        self.expect_bytes(needed);
        match tree::spare_bytes(self.dir()) >= needed {
            true => Ok(()),
            false => Err(self.no_space(self.dir())),
        }
    }

    /// Checks that a program is there and new enough.
    pub(crate) async fn require(&self, program: &'static str) -> Result<(), Error> {
        let volume = self.0.key.to_string();
        self.0.shared.require(program).await.map_err(|(problem, needed)| Error::Program {
            volume,
            program,
            problem,
            needed,
        })
    }

    /// Waits until no other operation changes the copy, and keeps them from it until all clones of the result are dropped.
    pub(crate) async fn lock(&self) -> Hold {
        Arc::new(Arc::clone(&self.0.exclusive).lock_owned().await)
    }

    /// Runs what blocks. It goes on to its end when the future is dropped, and holds what it holds until then.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        hold: Hold,
        f: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let this = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let result = f(&this);
            drop(hold);
            result
        });
        match task.await {
            Ok(Err(Error::Io { path, source, .. })) if is_full(source.kind()) => {
                Err(self.no_space(&path))
            }
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(std::io::Error::other(error)).context("change", self.dir()),
            },
        }
    }

    /// Reads the state.
    pub(crate) async fn state(&self) -> Result<State, Error> {
        self.blocking(Arc::new(()), |this| State::read(&this.layout().state())).await
    }

    /// Changes the state durably.
    pub(crate) async fn update<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.blocking(Arc::new(()), move |this| {
            let _guard = lock(&this.0.state);
            this.update_locked(change)
        })
        .await
    }

    fn update_locked<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let path = self.layout().state();
        let before = State::read(&path)?;
        let mut state = before;
        let result = change(&mut state)?;
        if state != before {
            tree::create(self.dir())?;
            state.write(&path)?;
        }
        Ok(result)
    }

    /// Refuses an epoch that has ended.
    pub(crate) fn check_fence(&self, state: &State, epoch: Epoch) -> Result<(), Error> {
        if epoch < state.fence {
            let volume = self.0.key.to_string();
            return Err(Error::Fenced { volume, epoch, fence: state.fence });
        }
        Ok(())
    }

    /// Returns the ids of the snapshots in their order.
    pub(crate) fn ids(&self) -> Result<Vec<SnapshotId>, Error> {
        let names = tree::names(&self.layout().snapshots())?;
        let ids = names.iter().filter_map(|name| name.to_str()?.parse().ok());
        let mut ids: Vec<SnapshotId> = ids.collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Returns the manifest of the newest snapshot.
    pub(crate) fn newest(&self) -> Result<Option<Manifest>, Error> {
        match self.ids()?.last() {
            Some(&id) => read_manifest(&self.layout().snapshot(id)),
            None => Ok(None),
        }
    }

    /// Publishes the staged snapshot, whose content is synced already, and changes the state. Blocks.
    pub(crate) fn commit(
        &self,
        manifest: &Manifest,
        change: impl FnOnce(&mut State) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let staged = self.layout().incoming();
        write_manifest(&staged, manifest)?;
        tree::create(&self.layout().snapshots())?;
        let _guard = lock(&self.0.state);
        let state = State::read(&self.layout().state())?;
        self.check_fence(&state, manifest.id.epoch)?;
        tree::publish(&staged, &self.layout().snapshot(manifest.id))?;
        self.update_locked(change)
    }

    /// Makes a tree invisible in one step; it is deleted later.
    pub(crate) fn discard(&self, path: &Path) -> Result<(), Error> {
        let garbage = self.layout().garbage();
        tree::create(&garbage)?;
        let to = (0_u64..).map(|number| garbage.join(number.to_string())).find(|it| !it.exists());
        match to.map(|to| fs::rename(path, &to)) {
            Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("remove", path)
            }
            _ => Ok(()),
        }
    }

    /// Removes what another operation has left where snapshots are made, and makes the directory anew.
    pub(crate) fn prepare_staging(&self) -> Result<(), Error> {
        self.clear_staging()?;
        tree::create(&self.layout().staging())
    }

    /// Removes everything where snapshots are made.
    pub(crate) fn clear_staging(&self) -> Result<(), Error> {
        self.discard(&self.layout().staging())?;
        tree::remove(&self.layout().garbage())
    }

    /// Makes the staged snapshot begin as links to the files of a snapshot. Blocks.
    pub(crate) fn stage_links(&self, id: SnapshotId) -> Result<(), Error> {
        tree::create(&self.layout().incoming())?;
        let (standby, data) = (self.layout().standby(), layout::data(&self.layout().incoming()));
        if lock(&self.0.standby).take() == Some(id) {
            return fs::rename(&standby, &data).context("rename", &standby);
        }
        tree::remove(&standby)?;
        changes::link(&self.layout().data(id), &data)
    }

    /// Prepares links to the files of the newest snapshot for the next one, in the background: it takes a while, and nothing waits
    /// for it but the next operation.
    pub(crate) fn prepare_standby(&self, id: SnapshotId, hold: Hold) {
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            *lock(&this.0.standby) = None;
            let standby = this.layout().standby();
            let linked = tree::remove(&standby)
                .and_then(|()| changes::link(&this.layout().data(id), &standby));
            match linked {
                Ok(()) => *lock(&this.0.standby) = Some(id),
                Err(error) => tracing::debug!(%error, "the next snapshot begins without links"),
            }
            drop(hold);
        });
    }

    /// The error for what is not there.
    pub(crate) fn missing(&self, what: impl Into<String>) -> Error {
        Error::Missing { volume: self.0.key.to_string(), what: what.into() }
    }
}

fn is_full(kind: std::io::ErrorKind) -> bool {
    matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Reads the manifest of a snapshot or conflict; `None` if it was deleted meanwhile.
pub(crate) fn read_manifest(snapshot: &Path) -> Result<Option<Manifest>, Error> {
    let path = layout::manifest(snapshot);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).context("read", &path)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("read", &path),
    }
}

/// Writes the manifest of a staged snapshot or conflict.
pub(crate) fn write_manifest(staged: &Path, manifest: &Manifest) -> Result<(), Error> {
    let path = layout::manifest(staged);
    let bytes = serde_json::to_vec(manifest).context("write", &path)?;
    vc_atomic_file::write(&path, &bytes, 0o600).context("write", &path)
}
