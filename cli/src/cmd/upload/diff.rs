//! What a volume has that its directory does not.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use serde::Serialize;
use vc_client::{Session, SessionError};
use vc_protocol::VolumeKey;
use vc_protocol::control::{FileKind, FileList, FileRow, Reply, Request};

use super::tree::Entry;
use crate::error::Result;

/// The most paths of each kind that are shown.
const SHOWN: usize = 10;

/// What would be lost if a directory replaced what its volume has. Files are compared by kind, size and time of modification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(in crate::cmd) struct Loss {
    /// The volume.
    pub(in crate::cmd) volume: String,
    /// The directory.
    pub(in crate::cmd) directory: String,
    /// Files of the directory.
    pub(in crate::cmd) files: u64,
    /// Their size, in bytes.
    pub(in crate::cmd) bytes: u64,
    /// Files that only the volume has.
    pub(in crate::cmd) only_in_volume: Paths,
    /// Files that are newer in the volume.
    pub(in crate::cmd) newer_in_volume: Paths,
    /// Other files that differ.
    pub(in crate::cmd) different: Paths,
    /// Files that only the directory has.
    pub(in crate::cmd) only_in_directory: Paths,
}

/// Some paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(in crate::cmd) struct Paths {
    /// How many there are.
    pub(in crate::cmd) count: u64,
    /// The first ones.
    pub(in crate::cmd) first: Vec<String>,
}

impl Paths {
    fn add(&mut self, path: &str) {
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(path.to_owned());
        }
    }
}

impl Loss {
    /// Compares what a volume has with a directory.
    pub(super) fn new(
        volume: &VolumeKey,
        directory: &str,
        mut rows: Vec<FileRow>,
        entries: &[Entry],
    ) -> Self {
        let mut loss =
            Self { volume: volume.to_string(), directory: directory.to_owned(), ..Self::default() };
        let mut ours: BTreeMap<String, &Entry> = BTreeMap::new();
        for entry in entries {
            if !entry.metadata.is_dir() {
                loss.files += 1;
                loss.bytes += if entry.metadata.is_file() { entry.metadata.len() } else { 0 };
            }
            ours.insert(entry.path.to_string_lossy().into_owned(), entry);
        }
        rows.sort_by(|one, other| one.path.cmp(&other.path));
        for row in &rows {
            match ours.remove(&row.path) {
                // What is in it is counted.
                _ if row.kind == FileKind::Directory => {}
                None => loss.only_in_volume.add(&row.path),
                Some(entry) => {
                    let metadata = &entry.metadata;
                    let nanos = metadata.mtime().saturating_mul(1_000_000_000);
                    let modified = nanos.saturating_add(metadata.mtime_nsec());
                    let is_same = match row.kind {
                        FileKind::File => metadata.is_file() && metadata.len() == row.size,
                        FileKind::Link => metadata.is_symlink(),
                        FileKind::Directory | FileKind::Other => false,
                    };
                    if row.modified_ns > modified {
                        loss.newer_in_volume.add(&row.path);
                    } else if !is_same || row.modified_ns != modified {
                        loss.different.add(&row.path);
                    }
                }
            }
        }
        for (path, entry) in ours {
            if !entry.metadata.is_dir() {
                loss.only_in_directory.add(&path);
            }
        }
        loss
    }

    /// Returns whether the volume has what the directory has.
    pub(super) fn is_equal(&self) -> bool {
        let all =
            [&self.only_in_volume, &self.newer_in_volume, &self.different, &self.only_in_directory];
        all.iter().all(|paths| paths.count == 0)
    }

    /// Returns lines for people: what is lost, and what else changes.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (paths, what) in [
            (&self.only_in_volume, "only in the volume"),
            (&self.newer_in_volume, "newer in the volume"),
            (&self.different, "different"),
            (&self.only_in_directory, "new"),
        ] {
            if paths.count == 0 {
                continue;
            }
            lines.push(format!("  {} {what}:", paths.count));
            lines.extend(paths.first.iter().map(|path| format!("    {path}")));
            let left = paths.count - paths.first.len() as u64;
            if left > 0 {
                lines.push(format!("    and {left} more"));
            }
        }
        lines
    }
}

/// Asks for a list of files. Returns it, and when an upload began that it is of.
pub(super) async fn files(
    session: &mut Session,
    request: &Request,
) -> std::result::Result<(Vec<FileRow>, u64), SessionError> {
    session.send(request).await?;
    let mut all = Vec::new();
    loop {
        let Reply::Files(FileList { files, more, begun }) = session.receive_result().await? else {
            return Err(SessionError::Unexpected);
        };
        all.extend(files);
        if !more {
            return Ok((all, begun));
        }
    }
}

/// Returns what would be lost if a directory replaced what a volume has.
pub(super) async fn loss(
    session: &mut Session,
    volume: &VolumeKey,
    directory: &str,
    entries: &[Entry],
) -> Result<Loss> {
    let request = Request::VolumeFiles { volume: volume.clone() };
    let (rows, _) = files(session, &request).await?;
    Ok(Loss::new(volume, directory, rows, entries))
}

#[cfg(test)]
mod tests {
    use super::super::tree::list;
    use super::*;

    #[test]
    fn what_only_the_volume_has_and_what_differs_there_is_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        std::fs::create_dir(root.join("dir")).expect("made");
        for path in ["same", "dir/newer", "older", "added"] {
            std::fs::write(root.join(path), "1234").expect("written");
        }
        let entries = list(root, &[]).expect("listed").expect("it exists");
        let modified = |path: &str| {
            let metadata = std::fs::metadata(root.join(path)).expect("there");
            metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec()
        };
        let row = |path: &str, kind, size, modified_ns| FileRow {
            path: path.to_owned(),
            kind,
            size,
            modified_ns,
        };
        let mut rows = vec![
            row("dir", FileKind::Directory, 0, 0),
            row("same", FileKind::File, 4, modified("same")),
            row("dir/newer", FileKind::File, 4, modified("dir/newer") + 1),
            row("older", FileKind::File, 3, modified("older") - 1),
        ];
        let gone = (0..12).map(|number| row(&format!("gone{number:02}"), FileKind::File, 1, 1));
        rows.extend(gone);
        let key = "shop/app".parse().expect("a volume");
        let loss = Loss::new(&key, "./app", rows, &entries);
        assert_eq!(loss.only_in_volume.count, 12);
        assert_eq!(loss.newer_in_volume.first, ["dir/newer"]);
        assert_eq!(loss.different.first, ["older"]);
        assert_eq!(loss.only_in_directory.first, ["added"]);
        assert_eq!((loss.files, loss.bytes, loss.is_equal()), (4, 16, false));
        let lines = loss.lines();
        assert_eq!(lines[..2], ["  12 only in the volume:", "    gone00"]);
        assert_eq!(lines[11], "    and 2 more");
    }
}
