//! The listing of a tree, by which both sides of a copy know that it is whole.
//!
//! The digest is SHA-256 over the entries, depth first, those of a directory in the order of the bytes of their names. An entry is a
//! sequence of fields; a field is its length (8 bytes, big endian) and its bytes; numbers are fields of 8 bytes, big endian:
//!
//! 1. the path relative to the tree, empty for the tree itself
//! 2. kind and permissions, `st_mode`; of a symbolic link the kind alone
//! 3. uid, gid
//! 4. size, of regular files; zero of all others
//! 5. modification time: seconds, nanoseconds
//! 6. the target of a symbolic link; empty of all others
//! 7. major and minor number of a device; zero of all others
//! 8. the number, from 1 on in this order, of the first entry that is a link to the same file; zero if that is this entry
//! 9. the number of extended attributes, then name and value of each, in the order of the bytes of the names. ACLs are among them
//!    (`system.posix_acl_access`, `system.posix_acl_default`).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::error::{Context as _, Error};
use crate::tree;

/// What a tree has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The entries, with the tree itself.
    pub(crate) files: u64,
    /// The size of its regular files, each counted once.
    pub(crate) bytes: u64,
    /// What they take on this disk, in bytes.
    pub(crate) allocated: u64,
    /// In hexadecimal digits.
    pub(crate) digest: String,
}

/// Returns the prefixes of extended attributes that are not copied: ACLs are copied as such, labels belong to the host, and without
/// privileges only those of users can be set.
pub(crate) fn excluded_attributes() -> &'static [&'static str] {
    if rustix::process::geteuid().is_root() {
        &["system.", "security.selinux"]
    } else {
        &["system.", "security.", "trusted."]
    }
}

/// The extended attributes that are ACLs.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Reads a tree that does not change. Blocks.
pub(crate) fn read(tree: &Path) -> Result<Listing, Error> {
    let mut reader = Reader::default();
    let metadata = fs::symlink_metadata(tree).context("read", tree)?;
    reader.entry(b"", tree, &metadata)?;
    reader.directory(&mut Vec::new(), tree)?;
    let digest = reader.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let Reader { files, bytes, allocated, .. } = reader;
    Ok(Listing { files, bytes, allocated, digest })
}

#[derive(Default)]
struct Reader {
    hash: Sha256,
    files: u64,
    bytes: u64,
    allocated: u64,
    /// The number of the first entry of each file, by device and inode.
    first: HashMap<(u64, u64), u64>,
}

impl Reader {
    fn directory(&mut self, path: &mut Vec<u8>, dir: &Path) -> Result<(), Error> {
        let entries = fs::read_dir(dir).context("list", dir)?;
        let names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
        let mut names: Vec<OsString> = names.context("list", dir)?;
        names.sort_unstable_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
        for name in names {
            let full = dir.join(&name);
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            let metadata = fs::symlink_metadata(&full).context("read", &full)?;
            self.entry(path, &full, &metadata)?;
            if metadata.is_dir() {
                self.directory(path, &full)?;
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8], full: &Path, metadata: &Metadata) -> Result<(), Error> {
        let kind = metadata.file_type();
        self.files += 1;
        let mut first = 0;
        if !kind.is_dir() && metadata.nlink() > 1 {
            let number = self.files;
            let known = *self.first.entry((metadata.dev(), metadata.ino())).or_insert(number);
            first = if known == number { 0 } else { known };
        }
        let size = if kind.is_file() { metadata.size() } else { 0 };
        if first == 0 {
            self.bytes += size;
            self.allocated += tree::allocated(metadata);
        }
        let mode = metadata.mode();
        // Linux shows those of a symbolic link, other systems do not keep them.
        let mode = if kind.is_symlink() { mode & !0o7777 } else { mode };
        let target = if kind.is_symlink() {
            fs::read_link(full).context("read", full)?.into_os_string().into_vec()
        } else {
            Vec::new()
        };
        let device =
            if kind.is_block_device() || kind.is_char_device() { metadata.rdev() } else { 0 };
        self.bytes_field(path);
        for number in [mode, metadata.uid(), metadata.gid()] {
            self.number(number.into());
        }
        self.number(size);
        self.number(metadata.mtime().cast_unsigned());
        self.number(metadata.mtime_nsec().cast_unsigned());
        self.bytes_field(&target);
        self.number(rustix::fs::major(device).into());
        self.number(rustix::fs::minor(device).into());
        self.number(first);
        let Attributes(attributes) =
            attributes(full).context("read the extended attributes of", full)?;
        self.number(attributes.len() as u64);
        for (name, value) in attributes {
            self.bytes_field(&name);
            self.bytes_field(&value);
        }
        Ok(())
    }

    fn bytes_field(&mut self, bytes: &[u8]) {
        self.hash.update((bytes.len() as u64).to_be_bytes());
        self.hash.update(bytes);
    }

    fn number(&mut self, number: u64) {
        self.bytes_field(&number.to_be_bytes());
    }
}

/// Extended attributes, with ACLs: names and values, in the order of the names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Attributes(pub(crate) Vec<(Vec<u8>, Vec<u8>)>);

/// Returns whether two entries of the same kind are equal in everything that is copied, as far as metadata tell.
pub(crate) fn metadata_equal(
    one_path: &Path,
    one: &Metadata,
    other_path: &Path,
    other: &Metadata,
) -> io::Result<bool> {
    let kind = one.file_type();
    let facts = |it: &Metadata| {
        let mode = if kind.is_symlink() { 0 } else { it.mode() };
        let size = if kind.is_file() { it.size() } else { 0 };
        let device = if kind.is_block_device() || kind.is_char_device() { it.rdev() } else { 0 };
        (mode, it.uid(), it.gid(), size, it.mtime(), it.mtime_nsec(), device)
    };
    Ok(facts(one) == facts(other)
        && (!kind.is_symlink() || fs::read_link(one_path)? == fs::read_link(other_path)?)
        // A file has the attributes that it has.
        && ((one.dev(), one.ino()) == (other.dev(), other.ino())
            || attributes(one_path)? == attributes(other_path)?))
}

/// Returns the extended attributes of a file that are copied.
pub(crate) fn attributes(path: &Path) -> Result<Attributes, Errno> {
    let names = match sized(|buffer| rustix::fs::llistxattr(path, buffer)) {
        Ok(names) => names,
        // The filesystem has none.
        Err(Errno::OPNOTSUPP) => return Ok(Attributes(Vec::new())),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let excluded = || excluded_attributes().iter().any(|it| name.starts_with(it.as_bytes()));
        if !ACLS.contains(&name) && excluded() {
            continue;
        }
        match sized(|buffer| rustix::fs::lgetxattr(path, name, buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    Ok(Attributes(found))
}

/// Calls `read` with a buffer that is large enough.
fn sized(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            // An attribute has at most 64 KiB, their names together as well.
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
}
