//! Trees of files: removing, syncing, publishing. All of it blocks.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use crate::error::{Context as _, Error};

/// Makes a directory and those above it, which only this user may read.
pub(crate) fn create(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.context("create", path)
}

/// Removes a tree, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            // A process that was killed may have been about to make a file.
            match fs::remove_dir_all(path) {
                Err(again) if again.kind() != io::ErrorKind::NotFound => {
                    Err(again).context("remove", path)
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Removes a file, if it is there.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("remove", path),
        _ => Ok(()),
    }
}

/// Makes what was written to the filesystem of `path` durable.
pub(crate) fn sync(path: &Path) -> Result<(), Error> {
    let file = File::open(path).context("open", path)?;
    rustix::fs::syncfs(&file).context("sync", path)
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|dir| dir.sync_all()).context("sync", path)
}

/// Renames a directory durably.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).context("rename", from)?;
    let parent = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
    sync_dir(&parent(to))?;
    if parent(from) != parent(to) {
        sync_dir(&parent(from))?;
    }
    Ok(())
}

/// Returns the names of the entries of a directory; none if it is not there.
pub(crate) fn names(path: &Path) -> Result<Vec<std::ffi::OsString>, Error> {
    match fs::read_dir(path) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<_>>()
            .context("list", path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).context("list", path),
    }
}

/// Returns the bytes that are free on the disk of a path, for this user.
pub(crate) fn free_bytes(path: &Path) -> u64 {
    // What could not be made is on the disk of what is above.
    let there = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
    there.map_or(0, |it| it.f_bavail.saturating_mul(it.f_frsize))
}

/// Returns the bytes that are free on the disk of a path beyond what is left to others: 256 MiB, of small disks a fiftieth.
pub(crate) fn spare_bytes(path: &Path) -> u64 {
    let there = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
    let left = there.map_or(0, |it| it.f_blocks.saturating_mul(it.f_frsize) / 50);
    free_bytes(path).saturating_sub(left.min(256 << 20))
}

/// Returns what a file takes on its disk, in bytes.
pub(crate) fn allocated(metadata: &Metadata) -> u64 {
    // The unit is the same on every filesystem.
    metadata.blocks().saturating_mul(512)
}

/// Returns what a tree takes on its disk, in bytes, each file once; nothing if it is not there.
pub(crate) fn allocated_below(dir: &Path) -> Result<u64, Error> {
    let (mut sum, mut seen, mut open) = (0_u64, HashSet::new(), vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for name in names(&dir)? {
            let path = dir.join(name);
            // It may be written, and be gone by now.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if metadata.nlink() < 2 || seen.insert((metadata.dev(), metadata.ino())) {
                sum = sum.saturating_add(allocated(&metadata));
            }
            if metadata.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(sum)
}

/// Returns whether a directory has entries.
pub(crate) fn is_empty(path: &Path) -> Result<bool, Error> {
    Ok(fs::read_dir(path).context("list", path)?.next().is_none())
}
