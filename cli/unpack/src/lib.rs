//! Unpacks an untrusted archive: nothing outside the target is written, whatever the archive contains.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Entry, EntryType};
use vc_client::text::one_line;

/// The most skipped entries that are reported.
const MAX_REPORTED: usize = 20;

/// The most bytes of headers, extended ones included, before an entry.
const MAX_HEADERS: u64 = 256 * 1024;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The target is `..`, `/` or the like.
    #[error("the target path has no file name: write DIR/NAME")]
    NoName,
    /// The target ends in a slash and does not exist.
    #[error("there is no directory {}", .0.display())]
    NoDirectory(PathBuf),
    /// The archive is damaged, or the files could not be written.
    #[error("cannot write {}: {}", .0.display(), .1)]
    Write(PathBuf, io::Error),
}

/// Unpacks an archive with one root. If `target` is a directory, the root goes into it under its own name, or with
/// `contents` only what is in the root; else the root becomes `target`. Returns the skipped entries, each with the reason:
/// links that leave the directory, devices, pipes.
pub fn unpack(
    archive: impl Read,
    target: &Path,
    contents: bool,
) -> Result<Vec<String>, UnpackError> {
    let cannot = |error| UnpackError::Write(target.to_owned(), error);
    if target.is_dir() {
        return entries(archive, target, contents).map_err(cannot);
    }
    let name = target.file_name().ok_or(UnpackError::NoName)?;
    let parent = match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if target.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(UnpackError::NoDirectory(target.to_owned()));
    }
    // Unpacked beside the target and renamed when it is complete.
    let aside = parent.join(format!(".{}.vc-{}", name.to_string_lossy(), std::process::id()));
    std::fs::create_dir(&aside).map_err(cannot)?;
    let placed = entries(archive, &aside, false).and_then(|left_out| {
        let mut roots = std::fs::read_dir(&aside)?;
        let root = roots.next().unwrap_or_else(|| Err(io::Error::other("the archive is empty")))?;
        std::fs::rename(root.path(), target)?;
        Ok(left_out)
    });
    let _ = std::fs::remove_dir_all(&aside);
    placed.map_err(cannot)
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
            return Err(io::Error::other("the archive has headers that are too long"));
        }
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - read as u64);
        Ok(read)
    }
}

fn entries(archive: impl Read, directory: &Path, contents: bool) -> io::Result<Vec<String>> {
    let mut left_out = Vec::new();
    let left = Cell::new(MAX_HEADERS);
    let mut archive = Archive::new(Metered { inner: archive, left: &left });
    let mut all = archive.entries()?;
    // Bytes of the entry before that were not read: they are skipped on the way to the next headers.
    let mut unread = 0;
    loop {
        left.set(MAX_HEADERS.saturating_add(unread));
        let Some(entry) = all.next() else { break };
        left.set(u64::MAX);
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let mut refuse = |why: &str| {
            if left_out.len() < MAX_REPORTED {
                left_out.push(one_line(&format!("{}: {why}", path.display())));
            }
        };
        match reason(&entry, &path)? {
            Some(why) => refuse(&why),
            // It also checks that no link unpacked before leads out of the directory.
            None if !contents => {
                if !entry.unpack_in(directory)? {
                    refuse("its path leaves the directory");
                }
            }
            None => {
                let inner: PathBuf = path.components().skip(1).collect();
                let linked = entry.header().entry_type() == EntryType::Link;
                if inner.as_os_str().is_empty() {
                    // The root itself.
                } else if linked || goes_through_link(directory, &inner)? {
                    refuse("it goes through a link of the archive");
                } else {
                    let to = directory.join(inner);
                    if let Some(parent) = to.parent() {
                        std::fs::create_dir_all(parent)?;
                    }
                    entry.unpack(to)?;
                }
            }
        }
        let is_sparse = entry.header().entry_type() == EntryType::GNUSparse;
        let size = if is_sparse { entry.header().entry_size()? } else { entry.size() };
        unread = size.saturating_sub(u64::MAX - left.get());
    }
    Ok(left_out)
}

/// Returns why an entry is skipped; `None` when it is unpacked.
fn reason<R: Read>(entry: &Entry<'_, R>, path: &Path) -> io::Result<Option<String>> {
    if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Ok(Some("its path leaves the directory".to_owned()));
    }
    Ok(match entry.header().entry_type() {
        EntryType::Regular
        | EntryType::Continuous
        | EntryType::GNUSparse
        | EntryType::Directory
        | EntryType::Link => None,
        EntryType::Symlink => {
            let to = entry.link_name()?.unwrap_or_default();
            let depth = path.components().filter(|it| matches!(it, Component::Normal(_))).count();
            let inside = stays_inside(&to, depth.saturating_sub(1));
            (!inside).then(|| format!("a link that leaves the directory, to {}", to.display()))
        }
        _ => Some("neither a file, a directory nor a link".to_owned()),
    })
}

/// Returns whether a link at this depth below the top stays inside.
fn stays_inside(to: &Path, mut depth: usize) -> bool {
    for part in to.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 1 => depth -= 1,
            _ => return false,
        }
    }
    true
}

/// Returns whether a parent of the path is a link.
fn goes_through_link(directory: &Path, inner: &Path) -> io::Result<bool> {
    let mut at = directory.to_owned();
    for part in inner.parent().into_iter().flat_map(Path::components) {
        at.push(part);
        match std::fs::symlink_metadata(&at) {
            Ok(found) if found.is_symlink() => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive of entries: path, link target, content. Written raw: the crate would refuse some paths.
    fn archive(entries: &[(&str, Option<&str>, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, link, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_mode(0o644);
            match link {
                Some(link) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
                }
                None if path.ends_with('/') => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(0o755);
                }
                None => header.set_entry_type(EntryType::Regular),
            }
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).expect("written");
        }
        builder.into_inner().expect("written")
    }

    const SITE: [(&str, Option<&str>, &str); 4] = [
        ("site/", None, ""),
        ("site/index", None, "hello"),
        ("site/sub/", None, ""),
        ("site/sub/up", Some("../index"), ""),
    ];

    #[test]
    fn an_existing_directory_receives_the_root_and_else_the_root_becomes_the_target() {
        let home = tempfile::tempdir().expect("a directory");
        let read = |path: &str| std::fs::read_to_string(home.path().join(path)).expect(path);
        let bytes = archive(&SITE);
        assert_eq!(unpack(&bytes[..], home.path(), false).expect("done"), [] as [String; 0]);
        assert_eq!(read("site/sub/up"), "hello");
        unpack(&bytes[..], &home.path().join("other"), false).expect("done");
        assert_eq!(read("other/index"), "hello");
        std::fs::create_dir(home.path().join("flat")).expect("made");
        unpack(&bytes[..], &home.path().join("flat"), true).expect("done");
        assert_eq!(read("flat/sub/up"), "hello");

        // A complete file replaces a file; a truncated one does not.
        let file = archive(&[("index", None, "new")]);
        std::fs::write(home.path().join("mine"), "old").expect("written");
        assert!(unpack(&file[..600], &home.path().join("mine"), false).is_err());
        assert_eq!(read("mine"), "old");
        unpack(&file[..], &home.path().join("mine"), false).expect("done");
        assert_eq!(read("mine"), "new");
        let mut left: Vec<_> = std::fs::read_dir(home.path())
            .expect("listed")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["flat", "mine", "other", "site"]);
    }

    #[test]
    fn nothing_is_written_outside_the_target() {
        for contents in [false, true] {
            let home = tempfile::tempdir().expect("a directory");
            let (inside, outside) = (home.path().join("in"), home.path().join("out"));
            for path in [&inside, &outside] {
                std::fs::create_dir(path).expect("made");
            }
            let bytes = archive(&[
                ("site/", None, ""),
                ("../out/a", None, "bad"),
                ("site/../../out/b", None, "bad"),
                ("site/abs", Some(outside.to_str().expect("text")), ""),
                ("site/abs/c", None, "bad"),
                ("site/rel", Some("../../out"), ""),
                ("site/rel/d", None, "bad"),
                ("site/good", None, "good"),
            ]);
            let left_out = unpack(&bytes[..], &inside, contents).expect("the rest is unpacked");
            assert_eq!(left_out.len(), 4, "{left_out:?}");
            let there = std::fs::read_dir(&outside).expect("listed").count();
            assert_eq!(there, 0, "{contents}");
            let good = if contents { inside.join("good") } else { inside.join("site/good") };
            assert_eq!(std::fs::read_to_string(good).expect("there"), "good");
        }
    }

    #[test]
    fn extended_headers_are_not_read_without_bound() {
        let unpacked = |length: usize| {
            let home = tempfile::tempdir().expect("a directory");
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            header.set_size(length as u64);
            header.set_cksum();
            let padded = vec![b'x'; length.next_multiple_of(512)];
            let bytes = [&header.as_bytes()[..], &padded, &archive(&SITE)].concat();
            unpack(&bytes[..], home.path(), false).map_err(|error| error.to_string())
        };
        let refused = unpacked(1 << 20).expect_err("too long");
        assert!(refused.contains("headers that are too long"), "{refused}");
    }

    #[test]
    fn a_large_entry_that_is_skipped_is_no_header() {
        let home = tempfile::tempdir().expect("a directory");
        let large = "x".repeat(1 << 20);
        let bytes = archive(&[("../a", None, &large), ("site", None, "good")]);
        assert_eq!(unpack(&bytes[..], home.path(), false).expect("the rest").len(), 1);
        assert_eq!(std::fs::read_to_string(home.path().join("site")).expect("there"), "good");
    }
}
