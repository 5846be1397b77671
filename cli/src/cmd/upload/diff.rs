//! How directories differ from the volumes that they are to replace.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use vc_client::{Session, SessionError};
use vc_protocol::VolumeKey;
use vc_protocol::control::{FileCount, FileKind, FileList, FileRow, Reply, Request, UploadDiff};

use super::tree::Entry;
use crate::error::Result;

/// The most paths of each kind that are shown.
const SHOWN: usize = 10;

/// Compares what a volume has with a directory.
fn compare(
    volume: &VolumeKey,
    directory: &str,
    mut rows: Vec<FileRow>,
    entries: &[Entry],
) -> UploadDiff {
    let none = FileCount::default;
    let mut diff = UploadDiff {
        volume: volume.clone(),
        directory: directory.to_owned(),
        files: 0,
        bytes: 0,
        only_in_volume: none(),
        newer_in_volume: none(),
        different: none(),
        only_in_directory: none(),
    };
    let mut ours: BTreeMap<String, &Entry> = BTreeMap::new();
    for entry in entries {
        if !entry.metadata.is_dir() {
            diff.files += 1;
            diff.bytes += if entry.metadata.is_file() { entry.metadata.len() } else { 0 };
        }
        ours.insert(entry.path.to_string_lossy().into_owned(), entry);
    }
    rows.sort_by(|one, other| one.path.cmp(&other.path));
    for row in &rows {
        match ours.remove(&row.path) {
            // Its files are counted. Of one whose place is a file in the directory, there may be none.
            Some(entry) if row.kind == FileKind::Directory => {
                if !entry.metadata.is_dir() {
                    add(&mut diff.different, &row.path);
                }
            }
            None if row.kind == FileKind::Directory => {}
            None => add(&mut diff.only_in_volume, &row.path),
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
                    add(&mut diff.newer_in_volume, &row.path);
                } else if !is_same || row.modified_ns != modified {
                    add(&mut diff.different, &row.path);
                }
            }
        }
    }
    for (path, entry) in ours {
        if !entry.metadata.is_dir() {
            add(&mut diff.only_in_directory, &path);
        }
    }
    diff
}

fn add(files: &mut FileCount, path: &str) {
    files.count += 1;
    if files.first.len() < SHOWN {
        files.first.push(path.to_owned());
    }
}

fn counts(diff: &UploadDiff) -> [(&FileCount, &'static str); 4] {
    [
        (&diff.only_in_volume, "only in the volume"),
        (&diff.newer_in_volume, "newer in the volume"),
        (&diff.different, "different"),
        (&diff.only_in_directory, "new"),
    ]
}

/// Returns whether the volume has what the directory has.
pub(super) fn is_equal(diff: &UploadDiff) -> bool {
    counts(diff).iter().all(|(files, _)| files.count == 0)
}

/// Returns lines for people: what is lost, and what else changes.
pub(super) fn lines(diff: &UploadDiff) -> Vec<String> {
    let mut lines = Vec::new();
    for (files, what) in counts(diff).into_iter().filter(|(files, _)| files.count > 0) {
        lines.push(format!("  {} {what}:", files.count));
        lines.extend(files.first.iter().map(|path| format!("    {path}")));
        let left = files.count - files.first.len() as u64;
        if left > 0 {
            lines.push(format!("    and {left} more"));
        }
    }
    lines
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

/// Compares what a volume has now with a directory.
pub(super) async fn with_volume(
    session: &mut Session,
    volume: &VolumeKey,
    directory: &str,
    entries: &[Entry],
) -> Result<UploadDiff> {
    let request = Request::VolumeFiles { volume: volume.clone() };
    let (rows, _) = files(session, &request).await?;
    Ok(compare(volume, directory, rows, entries))
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
        let diff = compare(&key, "./app", rows, &entries);
        assert_eq!(diff.only_in_volume.count, 12);
        assert_eq!(diff.newer_in_volume.first, ["dir/newer"]);
        assert_eq!(diff.different.first, ["older"]);
        assert_eq!(diff.only_in_directory.first, ["added"]);
        assert_eq!((diff.files, diff.bytes, is_equal(&diff)), (4, 16, false));
        let lines = lines(&diff);
        assert_eq!(lines[..2], ["  12 only in the volume:", "    gone00"]);
        assert_eq!(lines[11], "    and 2 more");
    }

    #[test]
    fn an_empty_directory_in_the_place_of_a_file_is_a_difference() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("both")).expect("made");
        std::fs::write(directory.path().join("place"), "").expect("written");
        let entries = list(directory.path(), &[]).expect("listed").expect("it exists");
        let rows = ["both", "place"].map(|path| FileRow {
            path: path.to_owned(),
            kind: FileKind::Directory,
            size: 0,
            modified_ns: 0,
        });
        let key = "shop/app".parse().expect("a volume");
        let diff = compare(&key, "./app", rows.to_vec(), &entries);
        assert_eq!(diff.different.first, ["place"]);
        assert!(!is_equal(&diff));
    }
}
