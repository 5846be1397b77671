//! Directories by descriptor: no path is resolved that another process may have replaced by a link.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, ResolveFlags, openat, openat2, unlinkat};
use rustix::io::Errno;

/// Returns the names in a directory.
pub(crate) fn names(dir: &impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(dir, ".", flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = RawDir::new(fd, buffer.spare_capacity_mut());
    let mut found = Vec::new();
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            found.push(name);
        }
    }
    Ok(found)
}

/// Removes an entry of a directory with all below, if it is there.
pub(crate) fn remove(dir: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {
            let entry = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
            match std::fs::remove_dir_all(entry.join(OsStr::from_bytes(name))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
                }
                _ => Ok(()),
            }
        }
        Err(error) => Err(error),
    }
}

/// Opens a directory beneath another one; no component of the path may be a link.
pub(crate) fn beneath(root: &impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// Returns the directory and the name of a path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Returns a path below a directory, which is empty for the root.
pub(crate) fn join(base: &[u8], path: &[u8]) -> Vec<u8> {
    match base.is_empty() {
        true => path.to_vec(),
        false => [base, b"/", path].concat(),
    }
}
