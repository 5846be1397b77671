//! The file of a new program, beside the present one: on its file system, so that it can take its place by a rename.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::OwnedSemaphorePermit;
use vc_protocol::Supports;
use vc_protocol::control::{MAX_PROGRAM, ProgramId};
use vc_protocol::image::Digest;

use super::check::{self, Build};
use super::program;
use super::{Switch, UpgradeError, Upgrades};
use crate::data_dir::FORMAT;
use crate::disk::Space;

/// What stays free on the disk of the program, in bytes.
const SPARE: u64 = 64 << 20;
/// Bytes that are received and hashed at once.
const CHUNK: usize = 256 * 1024;

/// Returns the path of the program before the one at `path`.
pub(super) fn previous(path: &Path) -> PathBuf {
    beside(path, ".previous")
}

/// Returns the path with something after its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// A program in a file beside the present one, which is removed unless the node switches to it.
pub(crate) struct Staged {
    path: PathBuf,
    id: ProgramId,
    /// `None` once the node is to switch to it.
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.permit.is_some() {
            // It failed, or was never made.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Staged {
    /// Returns the digest of the program.
    pub(crate) fn digest(&self) -> &str {
        &self.id.digest
    }

    /// Makes the file.
    ///
    /// # Errors
    /// The node takes none, there is no room, or the directory cannot be written.
    pub(crate) fn create(upgrades: &Upgrades, id: ProgramId) -> Result<(Self, File), UpgradeError> {
        let permit = upgrades.permit()?;
        if id.size > MAX_PROGRAM {
            return Err(UpgradeError::TooLarge(id.size));
        }
        let path = upgrades.own_file(".upgrade");
        let failed = |source| UpgradeError::Write { path: path.clone(), source };
        let directory = path.parent().unwrap_or(Path::new("/"));
        let (free, needed) =
            (Space::of(directory).map_err(failed)?.free, id.size.saturating_add(SPARE));
        if free < needed {
            let (free, needed) = (free >> 20, needed >> 20);
            return Err(UpgradeError::NoRoom { path: directory.to_owned(), free, needed });
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path);
        let file = file.map_err(failed)?;
        Ok((Self { path, id, permit: Some(permit) }, file))
    }

    /// Writes what arrives into the file.
    ///
    /// # Errors
    /// It ends early, is longer than announced or is something else, or cannot be written.
    pub(crate) async fn receive(
        &self,
        file: File,
        from: impl AsyncRead + Unpin,
    ) -> Result<(), UpgradeError> {
        let failed = |source| UpgradeError::Write { path: self.path.clone(), source };
        // One byte more would show that it is longer.
        let mut from = from.take(self.id.size + 1);
        let (mut hash, mut bytes) = (Sha256::new(), vec![0; CHUNK]);
        // A slow disk must not hold up the other tasks of the node.
        let mut file = tokio::fs::File::from_std(file);
        loop {
            let count = from.read(&mut bytes).await.map_err(UpgradeError::Stream)?;
            if count == 0 {
                break;
            }
            hash.update(&bytes[..count]);
            file.write_all(&bytes[..count]).await.map_err(failed)?;
        }
        self.compare(Digest::from_sha256(hash.finalize().into()).to_string())?;
        // Unlike this, syncing does not return the error of the last write.
        file.flush().await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        // The program is run next: its file is not to be open for writing.
        drop(file.into_std().await);
        Ok(())
    }

    /// Takes the previous program of this node, if it is this one.
    ///
    /// # Errors
    /// It is not, or cannot be used.
    pub(crate) async fn of_previous(
        upgrades: &Upgrades,
        id: ProgramId,
    ) -> Result<Self, UpgradeError> {
        let (staged, file) = Self::create(upgrades, id)?;
        drop(file);
        let failed = |source| UpgradeError::Write { path: staged.path.clone(), source };
        fs::remove_file(&staged.path).map_err(failed)?;
        fs::hard_link(previous(upgrades.path()), &staged.path).map_err(failed)?;
        let found = program::identify(staged.path.clone()).await?;
        staged.compare(found.digest)?;
        Ok(staged)
    }

    fn compare(&self, found: String) -> Result<(), UpgradeError> {
        match found == self.id.digest {
            true => Ok(()),
            false => Err(UpgradeError::Digest { wanted: self.id.digest.clone(), found }),
        }
    }

    /// Runs the program to check that it can run this node. `common` is what all members support, which the cluster may use. Returns what
    /// is to be done to switch to it.
    ///
    /// # Errors
    /// It cannot.
    pub(crate) async fn check(
        mut self,
        upgrades: &Upgrades,
        common: Supports,
    ) -> Result<Switch, UpgradeError> {
        let Build { version, supports, format, .. } =
            check::run(&self.path, upgrades.dir()).await?;
        if format != FORMAT {
            return Err(UpgradeError::Format { version, format });
        }
        if supports.and(common) != common {
            return Err(UpgradeError::TooOld { version, supports, needed: common });
        }
        let failed = |source| UpgradeError::Write { path: self.path.clone(), source };
        // As the one that it replaces has it.
        let present = fs::metadata(upgrades.path());
        let (mode, owner) =
            present.map_or((0o755, (0, 0)), |it| (it.mode() & 0o7777, (it.uid(), it.gid())));
        fs::set_permissions(&self.path, Permissions::from_mode(mode)).map_err(failed)?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&self.path, Some(owner.0), Some(owner.1)).map_err(failed)?;
        }
        let permit = self.permit.take().ok_or(UpgradeError::Stopping)?;
        Ok(Switch {
            dir: upgrades.dir().to_owned(),
            path: upgrades.path().to_owned(),
            staged: self.path.clone(),
            kept: upgrades.own_file(".kept"),
            version,
            digest: self.id.digest.clone(),
            _permit: permit,
        })
    }
}
