//! Lists the files of a tree that other processes may write meanwhile.
//!
//! Directories are opened beneath the root, by descriptor: a container that replaces one by a link shows nothing of the host.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, open, statat};
use rustix::io::Errno;
use vc_protocol::control::{FileKind, FileRow};

use crate::descriptor::{beneath, join, names};
use crate::error::{Context as _, Error};

/// Files that are listed at once: at most this many, or with paths of about this many bytes.
const LISTED: usize = 1000;
const LISTED_BYTES: usize = 256 * 1024;

/// Which files are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    All,
    /// Regular files with one name, whose path is text.
    Continuable,
}

/// Lists what is below a directory, in pieces, as long as `each` returns `true`; nothing if it does not exist. Blocks.
pub(crate) fn list(
    path: &Path,
    wanted: Wanted,
    mut each: impl FnMut(Vec<FileRow>) -> bool,
) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        root => root.context("list", path)?,
    };
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let mut queued = vec![Vec::new()];
    while let Some(dir) = queued.pop() {
        let opened = unless_gone(open_with_names(&root, &dir)).context("list", path)?;
        let Some((fd, names)) = opened else { continue };
        for name in names {
            let stat = unless_gone(statat(&fd, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW));
            let Some(stat) = stat.context("list", path)? else { continue };
            let path = join(&dir, &name);
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => FileKind::File,
                FileType::Directory => FileKind::Directory,
                FileType::Symlink => FileKind::Link,
                _ => FileKind::Other,
            };
            if kind == FileKind::Directory {
                queued.push(path.clone());
            }
            let is_plain = kind == FileKind::File && stat.st_nlink == 1;
            if wanted == Wanted::Continuable && !(is_plain && str::from_utf8(&path).is_ok()) {
                continue;
            }
            bytes += path.len();
            let nanos = stat.st_mtime.saturating_mul(1_000_000_000);
            let fraction = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
            let is_file = kind == FileKind::File;
            rows.push(FileRow {
                path: String::from_utf8_lossy(&path).into_owned(),
                kind,
                size: u64::try_from(stat.st_size).ok().filter(|_| is_file).unwrap_or_default(),
                modified_ns: nanos.saturating_add(fraction),
            });
            if rows.len() >= LISTED || bytes >= LISTED_BYTES {
                if !each(std::mem::take(&mut rows)) {
                    return Ok(());
                }
                bytes = 0;
            }
        }
    }
    if !rows.is_empty() {
        each(rows);
    }
    Ok(())
}

fn open_with_names(root: &OwnedFd, dir: &[u8]) -> Result<(OwnedFd, Vec<Vec<u8>>), Errno> {
    let fd = beneath(root, dir)?;
    let names = names(&fd)?;
    Ok((fd, names))
}

/// Returns `None` where an entry was removed since its name was read, or replaced by another kind.
fn unless_gone<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error),
    }
}
