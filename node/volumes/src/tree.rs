//! Trees of files: removing, syncing, publishing. All of it blocks.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

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

/// Returns the bytes that are free on the disk of a directory, for this user.
pub(crate) fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |it| it.f_bavail.saturating_mul(it.f_frsize))
}

/// Calls `visit` with each entry below a directory that is not a directory.
fn visit(
    dir: &Path,
    each: &mut dyn FnMut(PathBuf, &fs::Metadata) -> io::Result<()>,
) -> Result<(), Error> {
    for name in names(dir)? {
        let path = dir.join(name);
        let metadata = fs::symlink_metadata(&path).context("read", &path)?;
        if metadata.is_dir() {
            visit(&path, each)?;
        } else {
            each(path.clone(), &metadata).context("change", &path)?;
        }
    }
    Ok(())
}

/// Removes from `copy`, which was made of `source` from `start` on, what another pass could take for unchanged though it is not:
///
/// - files that were written since `start` or shortly before it: they may have been written again, within one tick of the
///   filesystem's clock, after they were read;
/// - names that are links to one file in `copy` and not in `source`: rsync does not separate them.
pub(crate) fn remove_untrusted(copy: &Path, source: &Path, start: SystemTime) -> Result<(), Error> {
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |it| it.as_secs().cast_signed())
    };
    // What is in the future was not written now.
    let recent = seconds(start).saturating_sub(2)..=seconds(SystemTime::now()) + 1;
    let mut first_names = HashMap::new();
    visit(copy, &mut |path, metadata| {
        if metadata.is_file() && recent.contains(&metadata.mtime()) {
            return fs::remove_file(path);
        }
        if metadata.nlink() > 1 {
            let name = path.strip_prefix(copy).unwrap_or(&path).to_owned();
            match first_names.entry((metadata.dev(), metadata.ino())) {
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(name);
                }
                std::collections::hash_map::Entry::Occupied(first) => {
                    let inode = |name: &Path| {
                        let metadata = fs::symlink_metadata(source.join(name)).ok()?;
                        Some((metadata.dev(), metadata.ino()))
                    };
                    if inode(first.get()) != inode(&name) {
                        return fs::remove_file(path);
                    }
                }
            }
        }
        Ok(())
    })
}

/// Returns whether a directory has entries.
pub(crate) fn is_empty(path: &Path) -> Result<bool, Error> {
    Ok(fs::read_dir(path).context("list", path)?.next().is_none())
}
