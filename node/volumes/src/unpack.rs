//! Unpacks what clients upload, in a process that is confined to the directory ([`crate::helper`]).
//!
//! The archive is that of [`UploadTarget`](vc_protocol::control::UploadTarget). Nothing outside of the directory is reached, whatever the
//! archive says and whatever links are there: paths have no `..`, and links are not followed.
//!
//! A file has its time of modification from the first byte on, so that a file of which a part arrived says by its size how much, and by
//! its time of which version.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, chownat, fstat, ftruncate, futimens, linkat,
    mkdirat, open, openat, openat2, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use crate::attributes::{Attributes, owned};
use crate::descriptor::{beneath, join, names, remove, split};

/// Bytes that are read and written at once.
const CHUNK: usize = 128 * 1024;
/// The most bytes of headers before an entry: attributes have 64 KiB at most.
const MAX_HEADERS: u64 = 1 << 20;
/// The most entries of an archive.
const MAX_ENTRIES: usize = 5_000_000;
/// The most bytes of paths and extended attributes that are kept in memory until the end of an archive.
const MAX_KEPT: usize = 512 << 20;
/// The name of a file while it is written beside that which it is to replace.
const TEMPORARY: &[u8] = b".vc-copy";

/// Where an archive goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination<'a> {
    /// The directory is to have what the archive has, and nothing else.
    Mirror,
    /// A directory in it gets the copy under its name, or the path is that of the copy. What else is there stays.
    Path { path: &'a [u8], name: &'a [u8] },
}

/// An archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("the archive cannot be read: {0}")]
    Archive(io::Error),
    #[error("the archive ends too early")]
    CutOff,
    #[error("the archive has more than {MAX_ENTRIES} entries")]
    TooMany,
    #[error("the paths and attributes of the archive take more than {} MiB", MAX_KEPT >> 20)]
    TooLarge,
    #[error(
        "'{path}' has the extended attribute '{name}': only user.*, ACLs and capabilities are copied"
    )]
    Attribute { path: String, name: String },
    #[error("'{0}' is no path in the volume, or leads outside")]
    Path(String),
    #[error("the volume has no directory '{0}'")]
    NoDirectory(String),
    #[error("'{0}' is a directory of the volume")]
    IsDirectory(String),
    #[error("'{path}' cannot go on at byte {offset}: what is there of it has changed")]
    Offset { path: String, offset: u64 },
    #[error("'{0}' is neither a file, a directory nor a link")]
    Kind(String),
    #[error("cannot write '{path}': {source}")]
    Write { path: String, source: io::Error },
}

/// Unpacks an archive into a directory.
pub(crate) fn unpack(
    input: impl Read,
    dir: &Path,
    destination: Destination<'_>,
) -> Result<(), UnpackError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(dir, flags, Mode::empty()).map_err(|error| written(b".", error))?;
    let mut unpacker = Unpacker::new(root, destination)?;
    let left = Cell::new(MAX_HEADERS);
    let mut archive = Archive::new(Metered { inner: input, left: &left });
    let mut entries = archive.entries().map_err(UnpackError::Archive)?;
    let mut ended = false;
    // Bytes of the entry before that were not read: they are skipped on the way to the next headers.
    let mut unread = 0;
    for number in 0.. {
        left.set(MAX_HEADERS.saturating_add(unread));
        let Some(entry) = entries.next() else { break };
        left.set(u64::MAX);
        let mut entry = entry.map_err(UnpackError::Archive)?;
        if number == MAX_ENTRIES {
            return Err(UnpackError::TooMany);
        }
        let size = entry.size();
        ended = unpacker.entry(&mut entry)?;
        unread = size.saturating_sub(u64::MAX - left.get());
    }
    match ended {
        true => unpacker.finish(),
        false => Err(UnpackError::CutOff),
    }
}

/// A reader that fails after a number of bytes: `tar` reads extended headers of any length into memory.
struct Metered<'a, R> {
    inner: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left.get()).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::other("its headers are too long"));
        }
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - read as u64);
        Ok(read)
    }
}

struct Unpacker {
    root: OwnedFd,
    mirror: bool,
    /// What the paths of the archive are below, relative to the root.
    base: Vec<u8>,
    /// The directory that was used last.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// Directories, which get their attributes when all is in them.
    directories: Vec<(Vec<u8>, Attributes)>,
    /// Of a mirror that had something before: what stays.
    seen: Option<HashSet<Vec<u8>>>,
    /// How many more bytes `directories` and `seen` may take.
    left: usize,
}

impl Unpacker {
    fn new(root: OwnedFd, destination: Destination<'_>) -> Result<Self, UnpackError> {
        let (mirror, root, base) = match destination {
            Destination::Mirror => (true, root, Vec::new()),
            Destination::Path { path, name } => {
                let (root, base) = target(&root, path, name)?;
                (false, root, base)
            }
        };
        let has_entries = mirror && !names(&root).map_err(|it| written(b".", it))?.is_empty();
        let seen = has_entries.then(HashSet::new);
        Ok(Self { root, mirror, base, last: None, directories: Vec::new(), seen, left: MAX_KEPT })
    }

    /// Unpacks an entry; returns whether it is the end.
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<bool, UnpackError> {
        let attributes = Attributes::of(entry).map_err(UnpackError::Archive)?;
        if attributes.end {
            return Ok(true);
        }
        let path = self.below(&entry.path_bytes())?;
        if let Some(name) = attributes.unknown() {
            return Err(UnpackError::Attribute { path: text(&path), name: text(name) });
        }
        if let Some(seen) = &mut self.seen
            && seen.insert(path.clone())
        {
            self.charge(path.len())?;
        }
        let kind = entry.header().entry_type();
        if path.is_empty() {
            // The root itself.
            if self.mirror && kind == EntryType::Directory {
                self.keep(path, attributes)?;
            }
            return Ok(false);
        }
        let cannot = |error| written(&path, error);
        let (parent, name) = split(&path);
        self.enter(parent)?;
        match kind {
            EntryType::Directory => {
                if self.directory(&path, name)? {
                    self.keep(path, attributes)?;
                }
            }
            EntryType::Regular => self.file(&path, name, entry, &attributes)?,
            EntryType::Symlink => {
                let to = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.clear(&path, name)?;
                let dir = self.dir();
                symlinkat(to, dir, name).map_err(cannot)?;
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                owned(chownat(dir, name, Some(attributes.uid), Some(attributes.gid), flags))
                    .map_err(cannot)?;
                utimensat(dir, name, &attributes.times(), flags).map_err(cannot)?;
            }
            EntryType::Link => {
                let to = self.below(&entry.link_name_bytes().unwrap_or_default())?;
                self.clear(&path, name)?;
                let (to_parent, to_name) = split(&to);
                let from = beneath(&self.root, to_parent).map_err(cannot)?;
                linkat(from, to_name, self.dir(), name, AtFlags::empty()).map_err(cannot)?;
            }
            _ => return Err(UnpackError::Kind(text(&path))),
        }
        Ok(false)
    }

    /// Keeps the attributes of a directory for the end: a default ACL would be that of all that is made in it.
    fn keep(&mut self, path: Vec<u8>, attributes: Attributes) -> Result<(), UnpackError> {
        let size = size_of::<(Vec<u8>, Attributes)>();
        self.charge(size + path.len() + attributes.extended_bytes())?;
        self.directories.push((path, attributes));
        Ok(())
    }

    /// Counts bytes that are kept until the end.
    fn charge(&mut self, bytes: usize) -> Result<(), UnpackError> {
        self.left = self.left.checked_sub(bytes).ok_or(UnpackError::TooLarge)?;
        Ok(())
    }

    /// Removes what the archive does not have, and gives directories their attributes.
    fn finish(self) -> Result<(), UnpackError> {
        if let Some(seen) = &self.seen {
            sweep(&self.root, b"", seen)?;
        }
        for (path, attributes) in self.directories.iter().rev() {
            let fd = beneath(&self.root, path).and_then(|fd| attributes.apply(&fd));
            fd.map_err(|error| written(path, error))?;
        }
        Ok(())
    }

    /// Returns a path of the archive, relative to the root.
    fn below(&self, path: &[u8]) -> Result<Vec<u8>, UnpackError> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let path = path.strip_prefix(b"./").unwrap_or(path);
        if path == b"." {
            return Ok(self.base.clone());
        }
        let mut names = path.split(|&byte| byte == b'/');
        if !names.all(|name| !matches!(name, b"" | b"." | b"..") && !name.contains(&0)) {
            return Err(UnpackError::Path(text(path)));
        }
        Ok(join(&self.base, path))
    }

    /// Opens the directory of an entry.
    fn enter(&mut self, parent: &[u8]) -> Result<(), UnpackError> {
        if self.last.as_ref().is_none_or(|(known, _)| known != parent) {
            let fd = beneath(&self.root, parent).map_err(|error| written(parent, error))?;
            self.last = Some((parent.to_vec(), fd));
        }
        Ok(())
    }

    fn dir(&self) -> &OwnedFd {
        self.last.as_ref().map_or(&self.root, |(_, fd)| fd)
    }

    /// Makes a directory; returns whether it gets the attributes of the archive.
    fn directory(&mut self, path: &[u8], name: &[u8]) -> Result<bool, UnpackError> {
        if self.kind(name) == Some(FileType::Directory) {
            return Ok(self.mirror);
        }
        self.clear(path, name)?;
        // Until it has its attributes, no other user may enter it.
        mkdirat(self.dir(), name, Mode::RWXU).map_err(|error| written(path, error))?;
        Ok(true)
    }

    fn kind(&self, name: &[u8]) -> Option<FileType> {
        let found = statat(self.dir(), name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileType::from_raw_mode(found.st_mode))
    }

    /// Removes what is in the place of an entry.
    fn clear(&self, path: &[u8], name: &[u8]) -> Result<(), UnpackError> {
        if !self.mirror && self.kind(name) == Some(FileType::Directory) {
            return Err(UnpackError::IsDirectory(text(path)));
        }
        remove(self.dir(), name).map_err(|error| written(path, error))
    }

    fn file(
        &self,
        path: &[u8],
        name: &[u8],
        entry: &mut Entry<'_, impl Read>,
        attributes: &Attributes,
    ) -> Result<(), UnpackError> {
        let cannot = |error| written(path, error);
        let size = entry.size();
        if let Some(offset) = attributes.offset.filter(|_| self.mirror) {
            let file = self.continued(name, offset, attributes).map_err(cannot)?;
            let file = file.ok_or_else(|| UnpackError::Offset { path: text(path), offset })?;
            write(entry, &file, offset, size, Some(attributes), path)?;
            // Also of a file that was whole: the upload may have broken off before it had them.
            return attributes.apply(&file).map_err(cannot);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let create = |name: &[u8]| openat(self.dir(), name, flags, Mode::RUSR | Mode::WUSR);
        if self.mirror {
            self.clear(path, name)?;
            let file = File::from(create(name).map_err(cannot)?);
            write(entry, &file, 0, size, Some(attributes), path)?;
            return attributes.apply(&file).map_err(cannot);
        }
        if self.kind(name) == Some(FileType::Directory) {
            return Err(UnpackError::IsDirectory(text(path)));
        }
        // Instances never see a part of it.
        let temporary = [TEMPORARY, std::process::id().to_string().as_bytes()].concat();
        remove(self.dir(), &temporary).map_err(cannot)?;
        let file = File::from(create(&temporary).map_err(cannot)?);
        let done = write(entry, &file, 0, size, None, path)
            .and_then(|()| attributes.apply(&file).map_err(cannot))
            .and_then(|()| {
                renameat(self.dir(), temporary.as_slice(), self.dir(), name).map_err(cannot)
            });
        if done.is_err() {
            let _ = unlinkat(self.dir(), temporary.as_slice(), AtFlags::empty());
        }
        done
    }

    /// Opens a file that goes on; `None` if its size, time, kind or number of names is another one than the client was told.
    fn continued(
        &self,
        name: &[u8],
        offset: u64,
        attributes: &Attributes,
    ) -> Result<Option<File>, Errno> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match openat(self.dir(), name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = fstat(&fd)?;
        let is_it = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            // Another name may be of another file by now.
            && stat.st_nlink == 1
            && u64::try_from(stat.st_size) == Ok(offset)
            && stat.st_mtime == attributes.modified.tv_sec
            && i64::try_from(stat.st_mtime_nsec) == Ok(attributes.modified.tv_nsec);
        Ok(is_it.then(|| File::from(fd)))
    }
}

/// Writes the bytes of an entry from an offset on. With `attributes` the file has its time after each piece.
fn write(
    entry: &mut Entry<'_, impl Read>,
    file: &File,
    offset: u64,
    size: u64,
    attributes: Option<&Attributes>,
    path: &[u8],
) -> Result<(), UnpackError> {
    let mut buffer = vec![0; CHUNK];
    let (mut at, end) = (offset, offset.saturating_add(size));
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        let length = match entry.read(&mut buffer[..most]) {
            Ok(0) => return Err(UnpackError::CutOff),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(UnpackError::Archive(error)),
        };
        let piece = &buffer[..length];
        // Zeros become a hole.
        if piece.iter().any(|byte| *byte != 0) {
            file.write_all_at(piece, at).map_err(|error| cannot(path, error))?;
            if let Some(attributes) = attributes {
                futimens(file, &attributes.times()).map_err(|error| written(path, error))?;
            }
        }
        at += length as u64;
    }
    ftruncate(file, end).map_err(|error| written(path, error))
}

/// Finds where a copy goes to: a directory, and the path of the copy in it, which is empty if it is the directory itself.
fn target(root: &OwnedFd, path: &[u8], name: &[u8]) -> Result<(OwnedFd, Vec<u8>), UnpackError> {
    let inner: Vec<&[u8]> =
        path.split(|&byte| byte == b'/').filter(|it| !matches!(*it, b"" | b".")).collect();
    let (inner, is_directory) = (inner.join(&b'/'), path.ends_with(b"/"));
    let is_name = name == b"." || (!name.is_empty() && !name.contains(&b'/') && name != b"..");
    if !is_name || inner.contains(&0) {
        return Err(UnpackError::Path(text(name)));
    }
    // Links are followed as far as they stay in the volume.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let within = |path: &[u8]| {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH)
    };
    match within(&inner) {
        Ok(fd) if name == b"." => return Ok((fd, Vec::new())),
        Ok(fd) => return Ok((fd, name.to_vec())),
        Err(Errno::NOENT | Errno::NOTDIR) if !is_directory => {}
        Err(Errno::XDEV | Errno::LOOP) => return Err(UnpackError::Path(text(path))),
        Err(_) => return Err(UnpackError::NoDirectory(text(path))),
    }
    let (parent, last) = split(&inner);
    if last == b".." {
        return Err(UnpackError::Path(text(path)));
    }
    match within(parent) {
        Ok(fd) => Ok((fd, last.to_vec())),
        Err(Errno::XDEV | Errno::LOOP) => Err(UnpackError::Path(text(path))),
        Err(_) => Err(UnpackError::NoDirectory(text(parent))),
    }
}

/// Removes what is below a directory and not in the list.
fn sweep(dir: &OwnedFd, path: &[u8], kept: &HashSet<Vec<u8>>) -> Result<(), UnpackError> {
    for name in names(dir).map_err(|error| written(path, error))? {
        let inner = join(path, &name);
        if !kept.contains(&inner) {
            remove(dir, &name).map_err(|error| written(&inner, error))?;
            continue;
        }
        if let Ok(fd) = beneath(dir, &name) {
            sweep(&fd, &inner, kept)?;
        }
    }
    Ok(())
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn cannot(path: &[u8], source: io::Error) -> UnpackError {
    UnpackError::Write { path: text(path), source }
}

fn written(path: &[u8], error: Errno) -> UnpackError {
    cannot(path, error.into())
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_memory_that_an_archive_takes_is_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = File::open(directory.path()).expect("opened");
        let mut unpacker = Unpacker::new(root.into(), Destination::Mirror).expect("opened");
        unpacker.left = 1000;
        let mut archive = tar::Builder::new(Vec::new());
        for _ in 0..2 {
            let value = "00".repeat(450);
            let attribute = ("VC.xattr.757365722e6e6f7465", value.as_bytes());
            archive.append_pax_extensions([attribute]).expect("appended");
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            archive.append_data(&mut header, "same", io::empty()).expect("appended");
        }
        let archive = archive.into_inner().expect("finished");
        let mut archive = Archive::new(&archive[..]);
        let mut entries = archive.entries().expect("an archive").map(|it| it.expect("an entry"));
        unpacker.entry(&mut entries.next().expect("the first")).expect("it fits");
        let refused = unpacker.entry(&mut entries.next().expect("the second"));
        assert!(matches!(refused, Err(UnpackError::TooLarge)), "{refused:?}");
    }
}
