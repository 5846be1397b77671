//! The disks that a node depends on: that of its data directory, and that of Docker's data.
//!
//! A file in the data directory keeps some space back. When the disk is full it is removed, so that the node can go on to write
//! its own document, which says that it starts nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Name of the file that keeps space back.
const RESERVE: &str = "reserve";
/// The most bytes that are kept back.
const MAX_RESERVE: u64 = 16 << 20;
/// A disk with less free space than this, or than a 50th of it, is full.
const MAX_FULL: u64 = 256 << 20;

/// The space of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Space {
    pub(crate) total: u64,
    /// What this process can still write.
    pub(crate) free: u64,
}

impl Space {
    /// Returns the space of the file system that a path is on.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let disk = statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        // Without the blocks that only root may use.
        let used = bytes(disk.f_blocks).saturating_sub(bytes(disk.f_bfree));
        let free = bytes(disk.f_bavail);
        Ok(Self { total: used.saturating_add(free), free })
    }

    /// Below this it is full.
    fn full(self) -> u64 {
        MAX_FULL.min(self.total / 50)
    }
}

/// The space that the data directory keeps back.
#[derive(Debug, Clone)]
pub(crate) struct Reserve {
    dir: PathBuf,
}

impl Reserve {
    /// The reserve of a data directory.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn file(&self) -> PathBuf {
        self.dir.join(RESERVE)
    }

    fn size(space: Space) -> u64 {
        MAX_RESERVE.min(space.total / 50)
    }

    /// Gives the space back to the disk. Returns whether there was any.
    pub(crate) fn release(&self) -> bool {
        fs::remove_file(self.file()).is_ok()
    }

    /// Keeps the space back, unless it is. A file system that cannot do that gives an error.
    fn take(&self, space: Space) -> io::Result<()> {
        let path = self.file();
        if path.exists() {
            return Ok(());
        }
        let file = fs::File::create(&path)?;
        let taken = fallocate(&file, FallocateFlags::empty(), 0, Self::size(space));
        taken.inspect_err(|_| drop(fs::remove_file(&path)))?;
        Ok(())
    }

    /// Returns whether the disk is full, after it has kept space back or released it. A disk stays full until there is twice the
    /// space again that it lacked, and room for the reserve.
    pub(crate) fn is_full(&self, space: Space) -> bool {
        let is_kept = self.file().exists();
        if is_kept {
            if space.free >= space.full() {
                return false;
            }
            self.release();
            return true;
        }
        if space.free < space.full() * 2 + Self::size(space) {
            return true;
        }
        if let Err(error) = self.take(space) {
            tracing::debug!(%error, "cannot keep disk space back");
        }
        false
    }

    /// Returns the free space, and how much of it a write needs at least after one has failed with `failed` bytes free: what
    /// failed once would fail again.
    pub(crate) fn needed(&self, failed: u64) -> (u64, u64) {
        let space = Space::of(&self.dir).unwrap_or_default();
        (space.free, (failed.saturating_mul(2)).max(Self::size(space) / 2))
    }
}

/// A disk that is watched beside that of the data directory.
#[derive(Debug)]
pub(crate) struct WatchedDisk {
    path: PathBuf,
    is_full: bool,
}

impl WatchedDisk {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, is_full: false }
    }

    /// Returns its space, and whether it is full. It stays full until there is twice the space again that it lacked.
    pub(crate) fn check(&mut self) -> io::Result<(Space, bool)> {
        let space = Space::of(&self.path)?;
        self.is_full = space.free < space.full() * if self.is_full { 2 } else { 1 };
        Ok((space, self.is_full))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Says that the disk of a directory is full.
pub(crate) fn full(path: &Path) -> String {
    format!("the disk of {} is full: free some space", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_full_disk_gets_the_reserve_and_stays_full_until_there_is_room() {
        let dir = tempfile::tempdir().expect("a directory");
        let reserve = Reserve::new(dir.path());
        let space = |free| Space { total: 1000 * MIB, free };
        assert!(!reserve.is_full(space(600 * MIB)));
        let kept = fs::metadata(dir.path().join(RESERVE)).expect("kept").len();
        assert_eq!(kept, MAX_RESERVE);
        assert!(!reserve.is_full(space(20 * MIB)));
        assert!(reserve.is_full(space(20 * MIB - 1)));
        assert!(!dir.path().join(RESERVE).exists(), "released");
        assert!(reserve.is_full(space(36 * MIB)), "that is the reserve");
        assert!(reserve.is_full(space(55 * MIB)));
        assert!(!reserve.is_full(space(56 * MIB)));
        assert!(reserve.release(), "kept again");
        assert!(reserve.is_full(space(40 * MIB)), "a write has failed");
    }

    #[test]
    fn the_space_of_a_directory_is_known() {
        let dir = tempfile::tempdir().expect("a directory");
        let space = Space::of(dir.path()).expect("known");
        assert!(space.total >= space.free && space.total > MIB, "{space:?}");
        let mut disk = WatchedDisk::new(dir.path().to_owned());
        assert_eq!(disk.check().expect("known").1, space.free < space.full());
        assert!(WatchedDisk::new("/nonexistent".into()).check().is_err());
    }
}
