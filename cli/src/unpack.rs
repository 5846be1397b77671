//! Unpacks an archive from elsewhere: whatever is in it, nothing outside of the place that the user named is touched.

use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use tar::{Archive, Entry, EntryType};

use vc_client::text::one_line;

/// At most so many of the entries that were left out are told.
const TOLD: usize = 20;

/// Unpacks an archive with one root: into `target`, where that is a directory, under the root's own name (or without
/// it: `contents`); else as `target`. Says what it left out: links that lead out, devices, pipes.
pub(crate) fn unpack(
    archive: impl Read,
    target: &Path,
    contents: bool,
) -> anyhow::Result<Vec<String>> {
    let cannot = || format!("cannot write {}", target.display());
    if target.is_dir() {
        return entries(archive, target, contents).with_context(cannot);
    }
    let name = target.file_name().context("the path here has no name: write DIR/NAME")?;
    let parent = match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    anyhow::ensure!(
        !target.as_os_str().as_encoded_bytes().ends_with(b"/"),
        "there is no directory {} here: make it first",
        target.display()
    );
    // Beside its place until it is whole, and under the root's own name until it gets that of the target.
    let aside = parent.join(format!(".{}.vc-{}", name.to_string_lossy(), std::process::id()));
    std::fs::create_dir(&aside).with_context(cannot)?;
    let placed = entries(archive, &aside, false).and_then(|left_out| {
        let mut roots = std::fs::read_dir(&aside)?;
        let root = roots.next().unwrap_or_else(|| Err(io::Error::other("nothing came")))?;
        std::fs::rename(root.path(), target)?;
        Ok(left_out)
    });
    let _ = std::fs::remove_dir_all(&aside); // What is left is not what was asked for.
    placed.with_context(cannot)
}

fn entries(archive: impl Read, directory: &Path, contents: bool) -> io::Result<Vec<String>> {
    let mut left_out = Vec::new();
    let mut archive = Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let mut refuse = |why: &str| {
            if left_out.len() < TOLD {
                left_out.push(one_line(&format!("{}: {why}", path.display())));
            }
        };
        match reason(&entry, &path)? {
            Some(why) => refuse(&why),
            // It checks, too, that no link that it made before leads out of the directory.
            None if !contents => {
                if !entry.unpack_in(directory)? {
                    refuse("its path leads out");
                }
            }
            None => {
                let inner: PathBuf = path.components().skip(1).collect();
                if inner.as_os_str().is_empty() {
                    continue;
                }
                let linked = entry.header().entry_type() == EntryType::Link;
                if linked || leads_out(directory, &inner)? {
                    refuse("a link into the archive itself");
                    continue;
                }
                let to = directory.join(inner);
                if let Some(parent) = to.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                entry.unpack(to)?;
            }
        }
    }
    Ok(left_out)
}

/// Why an entry is left out.
fn reason<R: Read>(entry: &Entry<'_, R>, path: &Path) -> io::Result<Option<String>> {
    if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Ok(Some("its path leads out".to_owned()));
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
            let led = leads(&to, depth.saturating_sub(1));
            (!led).then(|| format!("a link that leads out, to {}", to.display()))
        }
        _ => Some("neither a file nor a directory nor a link".to_owned()),
    })
}

/// Whether a link stays inside, that is so deep below the top.
fn leads(to: &Path, mut depth: usize) -> bool {
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

/// Whether something on the way to a path is a link.
fn leads_out(directory: &Path, inner: &Path) -> io::Result<bool> {
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
    fn it_goes_into_a_directory_that_is_there_and_else_becomes_it() {
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

        // A file takes the place of a file; one that broke off does not.
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
    fn nothing_leads_out() {
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
}
