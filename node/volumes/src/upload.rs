//! Directories that clients upload: each is staged until it is whole, and one that broke off can go on.
//!
//! What is staged of a volume is in `.uploads/PROJECT/NAME/`: the tree (`data/`), and what it is of (`upload.json`). It is of one
//! directory of one client; another one begins at zero. It is deleted 24 hours after the last upload, and when the host has
//! started again: what the page cache had not written is missing then.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;
use vc_protocol::control::FileRow;
use vc_protocol::lease::Epoch;
use vc_protocol::volume::SnapshotId;
use vc_protocol::{Millis, VolumeKey};

use crate::child::{Command, Hold};
use crate::create::first;
use crate::error::{Context as _, Error};
use crate::file_list::{Wanted, list};
use crate::helper::UNPACK;
use crate::layout;
use crate::listing;
use crate::manifest::Manifest;
use crate::state::State;
use crate::store::{Store, keys_in};
use crate::tree;
use crate::volume::Volume;

/// Where the store keeps what is staged. No project is called so.
const UPLOADS: &str = ".uploads";
/// How long it is kept after the last upload.
const KEPT: Millis = 24 * 3_600_000;

/// What is uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploading {
    /// Identifies the directory on the computer of the client.
    pub directory: String,
    /// When its upload began, by the clock of the client.
    pub begun: Millis,
    /// The size of its files.
    pub bytes: u64,
}

/// What became of a volume that was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The snapshot with what it had before.
    pub before: SnapshotId,
    /// That with the result.
    pub manifest: Manifest,
}

/// What a staged tree is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Staged {
    directory: String,
    begun: Millis,
    /// When it was used last, by the clock of this node.
    used: Millis,
    /// The start of the host under which it was written.
    boot: String,
    /// Whether everything has arrived.
    whole: bool,
}

impl Volume {
    /// Unpacks what a client uploads of a directory. It has what the archive has and nothing else, once this returns; what arrives
    /// until the stream breaks stays for the next upload of the same directory.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Stream`], [`Error::Failed`] and what else may go wrong.
    pub async fn stage<R>(
        &self,
        uploading: Uploading,
        mut reader: R,
        now: Millis,
    ) -> Result<(), Error>
    where
        R: AsyncRead + Unpin + Send,
    {
        let hold = self.lock_upload().await;
        let staged = self
            .blocking(Arc::clone(&hold), move |this| {
                let before = this.staged(&uploading.directory)?;
                if before.as_ref().is_none_or(|it| it.begun != uploading.begun) {
                    tree::remove(&this.staged_dir())?;
                }
                let data = this.staged_data();
                this.make_staged(&data)?;
                let have = tree::allocated_below(&data)?;
                this.require_room(uploading.bytes.saturating_sub(have))?;
                let Uploading { directory, begun, .. } = uploading;
                let staged = Staged { directory, begun, used: now, boot: boot()?, whole: false };
                staged.write(&this.staged_dir())?;
                Ok(staged)
            })
            .await?;
        let data = self.staged_data();
        let arguments = vec![data.clone().into()];
        self.unpack_upload(arguments, &data, &mut reader, &hold).await?;
        self.blocking(hold, move |this| {
            tree::sync(&this.staged_dir())?;
            Staged { whole: true, ..staged }.write(&this.staged_dir())
        })
        .await
    }

    /// Lists what is staged of a directory, in pieces, as long as `each` returns `true`, once no upload changes it any more. Returns
    /// when its upload began; `None`: nothing is staged. What a client cannot skip is left out.
    ///
    /// # Errors
    /// What is staged could not be read.
    pub async fn list_staged(
        &self,
        directory: &str,
        each: impl FnMut(Vec<FileRow>) -> bool + Send + 'static,
    ) -> Result<Option<Millis>, Error> {
        let (hold, directory) = (self.lock_upload().await, directory.to_owned());
        self.blocking(hold, move |this| {
            let Some(staged) = this.staged(&directory)? else { return Ok(None) };
            list(&this.staged_data(), Wanted::Continuable, each)?;
            Ok(Some(staged.begun))
        })
        .await
    }

    /// Lists what the volume has, in pieces, as long as `each` returns `true`: its working directory, which instances may write, or its
    /// newest snapshot where none has begun. What is removed or replaced meanwhile is left out, and links are not followed. Blocks.
    ///
    /// # Errors
    /// It could not be read.
    pub fn list_files(
        &self,
        working: &Path,
        each: impl FnMut(Vec<FileRow>) -> bool,
    ) -> Result<(), Error> {
        let first = match State::read(&self.layout().state())?.written {
            Some(_) => None,
            None => self.newest()?.map(|it| self.layout().data(it.id)),
        };
        list(first.as_deref().unwrap_or(working), Wanted::All, each)
    }

    /// Makes what was uploaded the first snapshot of this volume, which has none.
    ///
    /// # Errors
    /// As [`Volume::import`]; [`Error::Missing`] if it is not whole.
    pub async fn begin_with_upload(
        &self,
        directory: &str,
        epoch: Epoch,
        now: Millis,
    ) -> Result<Manifest, Error> {
        let upload = self.lock_upload().await;
        self.check_whole(directory).await?;
        let hold = self.begin_first(epoch).await?;
        let moved = self.blocking(Arc::clone(&hold), Self::take_staged).await;
        let manifest = self.end_first(moved, first(epoch, now), now, hold).await?;
        self.blocking(upload, |this| tree::remove(&this.staged_dir())).await?;
        Ok(manifest)
    }

    /// Makes the working directory of the primary equal to what was uploaded, as [`Volume::restore`] does. Where no instance has
    /// ever written the volume, that becomes its newest snapshot instead, with which they begin.
    ///
    /// # Errors
    /// As [`Volume::restore`]; [`Error::Missing`] if it is not whole.
    pub async fn replace_with_upload(
        &self,
        directory: &str,
        working: &Path,
        now: Millis,
    ) -> Result<Replaced, Error> {
        let upload = self.lock_upload().await;
        self.check_whole(directory).await?;
        let hold = self.lock().await;
        let replaced = match self.state().await?.written {
            Some(epoch) => {
                self.check_begun(epoch).await?;
                let from = self.staged_data();
                let (before, manifest) =
                    self.restore_from(&from, working, epoch, now, hold).await?;
                Replaced { before, manifest }
            }
            None => self.blocking(hold, move |this| this.follow_first(now)).await?,
        };
        self.blocking(upload, |this| tree::remove(&this.staged_dir())).await?;
        Ok(replaced)
    }

    /// Copies a file or directory into the working directory of the primary, while instances may write it. `path` and `name` are those
    /// of a copy into an instance. Where a snapshot has all that was written, one with the copy is taken.
    ///
    /// # Errors
    /// [`Error::NotBegun`], [`Error::Fenced`], [`Error::Stream`], [`Error::Failed`] and what else may go wrong; a part may be there then.
    pub async fn copy_in<R>(
        &self,
        working: &Path,
        (path, name): (&str, &str),
        mut reader: R,
        epoch: Epoch,
        now: Millis,
    ) -> Result<(), Error>
    where
        R: AsyncRead + Unpin + Send,
    {
        let hold = self.lock().await;
        let closed = self.check_begun(epoch).await?.closed;
        if closed {
            // From now on no snapshot has all.
            self.update(|state| {
                state.closed = false;
                Ok(())
            })
            .await?;
        }
        let arguments = vec![working.into(), path.into(), name.into()];
        let copied = self.unpack_upload(arguments, working, &mut reader, &hold).await;
        drop(hold);
        if closed {
            self.close(working, epoch, now).await?;
        }
        copied
    }

    async fn unpack_upload<R>(
        &self,
        arguments: Vec<OsString>,
        to: &Path,
        reader: &mut R,
        hold: &Hold,
    ) -> Result<(), Error>
    where
        R: AsyncRead + Unpin + Send,
    {
        let command = Command {
            program: UNPACK,
            arguments,
            read: Vec::new(),
            write: vec![to.to_owned()],
            dir: to.to_owned(),
            nice: true,
            connect: false,
        };
        self.feed(command, reader, to, hold).await
    }

    /// Waits until no other operation changes what is staged.
    async fn lock_upload(&self) -> Hold {
        Arc::new(Arc::clone(&self.0.upload).lock_owned().await)
    }

    async fn check_whole(&self, directory: &str) -> Result<(), Error> {
        let wanted = directory.to_owned();
        let staged = self.blocking(Arc::new(()), move |this| this.staged(&wanted)).await?;
        match staged.is_some_and(|it| it.whole) {
            true => Ok(()),
            false => Err(self.missing("whole upload of this directory")),
        }
    }

    /// Adds what is staged as a snapshot to those of a volume that no instance has written. Blocks.
    fn follow_first(&self, now: Millis) -> Result<Replaced, Error> {
        let before = self.newest()?.ok_or_else(|| self.missing("snapshot"))?;
        self.prepare_staging()?;
        let data = layout::data(&self.layout().incoming());
        tree::create(&data)?;
        self.take_staged()?;
        tree::sync(&data)?;
        let listing = listing::read(&data)?;
        let number = first(0, now).number.max(before.id.number + 1);
        let id = SnapshotId { epoch: before.id.epoch, number };
        let history = before.next_history(id.epoch);
        let manifest = Manifest::new(id, Some(before.id), history, now, listing);
        self.commit(&manifest, |_| Ok(()))?;
        self.clear_staging()?;
        Ok(Replaced { before: before.id, manifest })
    }

    /// Moves what is staged to where snapshots are made. Blocks.
    fn take_staged(&self) -> Result<(), Error> {
        let data = layout::data(&self.layout().incoming());
        let from = self.staged_data();
        fs::rename(&from, &data).context("rename", &from)
    }

    /// Returns what is staged of a directory. Blocks.
    fn staged(&self, directory: &str) -> Result<Option<Staged>, Error> {
        let staged = Staged::read(&self.staged_dir())?;
        Ok(staged.filter(|it| it.directory == directory))
    }

    fn staged_dir(&self) -> PathBuf {
        staged_dir(&self.0.shared.dir, self.key())
    }

    fn staged_data(&self) -> PathBuf {
        layout::data(&self.staged_dir())
    }

    /// Makes the directory of what is staged, which instances may enter. Blocks.
    fn make_staged(&self, data: &Path) -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt as _;
        if data.exists() {
            return Ok(());
        }
        tree::create(data)?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(data, mode).context("set the permissions of", data)
    }
}

impl Store {
    /// Deletes uploads that were not continued for 24 hours. Blocks.
    pub(crate) fn expire_uploads(&self, now: Millis) -> Result<(), Error> {
        // A clock that was set back keeps none for ever.
        let is_kept = |it: Staged| it.used <= now && now - it.used < KEPT;
        for key in keys_in(&self.0.dir.join(UPLOADS))? {
            let volume = self.volume(&key);
            let Ok(_guard) = Arc::clone(&volume.0.upload).try_lock_owned() else { continue };
            drop_unless(&volume.staged_dir(), is_kept);
        }
        Ok(())
    }

    /// Deletes what was staged before the host started. Blocks.
    pub(crate) fn drop_old_uploads(&self) -> Result<(), Error> {
        for key in keys_in(&self.0.dir.join(UPLOADS))? {
            drop_unless(&staged_dir(&self.0.dir, &key), |_| true);
        }
        Ok(())
    }
}

/// Deletes what is staged in a directory, unless it is of use and `is_kept`. A failure is logged: other uploads do not depend on it.
fn drop_unless(dir: &Path, is_kept: impl Fn(Staged) -> bool) {
    let dropped = Staged::read(dir).and_then(|staged| match staged.is_some_and(is_kept) {
        true => Ok(()),
        false => tree::remove(dir),
    });
    if let Err(error) = dropped {
        tracing::warn!("cannot delete the upload in {}: {error}", dir.display());
    }
}

impl Staged {
    /// Reads what is staged; `None` if that is of no use.
    fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join("upload.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("read", &path),
        };
        let boot = boot()?;
        Ok(serde_json::from_slice(&bytes).ok().filter(|it: &Self| it.boot == boot))
    }

    fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join("upload.json");
        let bytes = serde_json::to_vec(self).context("write", &path)?;
        vc_atomic_file::write(&path, &bytes, 0o600).context("write", &path)
    }
}

/// Identifies the start of the host.
fn boot() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    fs::read_to_string(path).context("read", path)
}

fn staged_dir(store: &Path, key: &VolumeKey) -> PathBuf {
    store.join(UPLOADS).join(key.project.as_str()).join(key.volume.as_str())
}
