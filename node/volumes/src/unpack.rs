//! Unpacks what clients upload, in a process that is confined to the directory ([`crate::helper`]).
//!
//! The archive is that of [`UploadTarget`](vc_protocol::control::UploadTarget). Nothing outside of the directory is reached, whatever the
//! archive says and whatever links are there: paths have no `..`, and links are not followed.
//!
//! A file has its time of modification from the first byte on, so that a file of which a part arrived says by its size how much, and by
//! its time of which version.

use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, ResolveFlags, Timespec, Timestamps, UTIME_OMIT,
    Uid, XattrFlags, chownat, fchmod, fchown, fsetxattr, fstat, ftruncate, futimens, linkat,
    mkdirat, open, openat, openat2, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

/// Bytes that are read and written at once.
const CHUNK: usize = 128 * 1024;
/// The most bytes of headers before an entry: attributes have 64 KiB at most.
const MAX_HEADERS: u64 = 1 << 20;
/// The most entries of an archive.
const MAX_ENTRIES: usize = 5_000_000;
/// The name of a file while it is written beside that which it is to replace.
const TEMPORARY: &[u8] = b".vc-copy";

/// Where an archive goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Into<'a> {
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
pub(crate) fn unpack(input: impl Read, dir: &Path, into: Into<'_>) -> Result<(), UnpackError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(dir, flags, Mode::empty()).map_err(|error| written(b".", error))?;
    let mut unpacker = Unpacker::new(root, into)?;
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

/// What the headers of an entry say beside its path and kind.
#[derive(Debug, Clone)]
struct Attributes {
    mode: Mode,
    uid: Uid,
    gid: Gid,
    modified: Timespec,
    extended: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the bytes of a file begin, if it goes on.
    offset: Option<u64>,
    /// It is no entry, but the end.
    end: bool,
}

impl Attributes {
    fn of(entry: &mut Entry<'_, impl Read>) -> io::Result<Self> {
        let header = entry.header();
        let id = |id: u64| u32::try_from(id).map_err(io::Error::other);
        let mut found = Self {
            mode: Mode::from_raw_mode(header.mode()? & 0o7777),
            uid: Uid::from_raw(id(header.uid()?)?),
            gid: Gid::from_raw(id(header.gid()?)?),
            modified: Timespec {
                tv_sec: i64::try_from(header.mtime()?).map_err(io::Error::other)?,
                tv_nsec: 0,
            },
            extended: Vec::new(),
            offset: None,
            end: false,
        };
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed extended header");
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            let (key, value) = (extension.key().map_err(|_| malformed())?, extension.value_bytes());
            let text = || std::str::from_utf8(value).map_err(|_| malformed());
            match key {
                "mtime" => found.modified = parse_time(text()?).ok_or_else(malformed)?,
                "VC.offset" => found.offset = Some(text()?.parse().map_err(|_| malformed())?),
                "VC.end" => found.end = true,
                _ => {
                    if let Some(name) = key.strip_prefix("VC.xattr.") {
                        let name = from_hex(name.as_bytes()).ok_or_else(malformed)?;
                        found.extended.push((name, from_hex(value).ok_or_else(malformed)?));
                    }
                }
            }
        }
        Ok(found)
    }

    fn times(&self) -> Timestamps {
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        Timestamps { last_access, last_modification: self.modified }
    }

    /// Gives them to a file or directory.
    fn apply(&self, file: &impl AsFd) -> Result<(), Errno> {
        owned(fchown(file, Some(self.uid), Some(self.gid)))?;
        fchmod(file, self.mode)?;
        for (name, value) in &self.extended {
            match fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
                // The filesystem has none.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        futimens(file, &self.times())
    }
}

/// Without root, files belong to whoever runs this.
fn owned(changed: Result<(), Errno>) -> Result<(), Errno> {
    match changed {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => Ok(()),
        changed => changed,
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
}

impl Unpacker {
    fn new(root: OwnedFd, into: Into<'_>) -> Result<Self, UnpackError> {
        let (mirror, root, base) = match into {
            Into::Mirror => (true, root, Vec::new()),
            Into::Path { path, name } => {
                let (root, base) = target(&root, path, name)?;
                (false, root, base)
            }
        };
        let has_entries = mirror && !names(&root).map_err(|it| written(b".", it))?.is_empty();
        let seen = has_entries.then(HashSet::new);
        Ok(Self { root, mirror, base, last: None, directories: Vec::new(), seen })
    }

    /// Unpacks an entry; returns whether it is the end.
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<bool, UnpackError> {
        let attributes = Attributes::of(entry).map_err(UnpackError::Archive)?;
        if attributes.end {
            return Ok(true);
        }
        let path = self.below(&entry.path_bytes())?;
        if let Some(seen) = &mut self.seen {
            seen.insert(path.clone());
        }
        let kind = entry.header().entry_type();
        if path.is_empty() {
            // The root itself.
            if self.mirror && kind == EntryType::Directory {
                self.directories.push((path, attributes));
            }
            return Ok(false);
        }
        let cannot = |error| written(&path, error);
        let (parent, name) = split(&path);
        self.enter(parent)?;
        match kind {
            EntryType::Directory => {
                if self.directory(&path, name)? {
                    self.directories.push((path, attributes));
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
        // Until it has all, nobody else looks.
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
            if size > 0 {
                write(entry, &file, offset, size, Some(attributes), path)?;
                attributes.apply(&file).map_err(cannot)?;
            }
            return Ok(());
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

    /// Opens a file that goes on; `None` if it is not what the client takes it for.
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

/// Returns the names in a directory.
fn names(dir: &impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
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
fn remove(dir: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
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
fn beneath(root: &impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn join(base: &[u8], path: &[u8]) -> Vec<u8> {
    match base.is_empty() {
        true => path.to_vec(),
        false => [base, b"/", path].concat(),
    }
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

/// Reads seconds since 1970 with a fraction, perhaps before.
fn parse_time(text: &str) -> Option<Timespec> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(match (negative, nanos) {
        (false, _) => Timespec { tv_sec: seconds, tv_nsec: nanos },
        (true, 0) => Timespec { tv_sec: -seconds, tv_nsec: 0 },
        (true, _) => Timespec { tv_sec: -seconds - 1, tv_nsec: 1_000_000_000 - nanos },
    })
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn times_have_nanoseconds_and_may_be_before_1970() {
        let time = |text| parse_time(text).map(|it| (it.tv_sec, it.tv_nsec));
        assert_eq!(time("12.000000034"), Some((12, 34)));
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time("-3"), Some((-3, 0)));
        for bad in ["", "1.x", "x", "--1"] {
            assert_eq!(time(bad), None, "{bad}");
        }
        assert_eq!(from_hex(b"00ffA1"), Some(vec![0, 255, 0xa1]));
        assert_eq!((from_hex(b"0"), from_hex(b"0g")), (None, None));
    }
}
