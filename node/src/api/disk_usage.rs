//! What the data of a node takes on its disk.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tokio::sync::Semaphore;
use vc_protocol::control::{DiskUsageRow, Reply};
use vc_protocol::{ApiError, ErrorCode};

use super::ControlService;

/// Walks of the data directory at a time: it may have millions of files.
static WALKS: Semaphore = Semaphore::const_new(1);

/// Bytes of a block, as `stat` counts them.
const BLOCK: u64 = 512;

/// Parts of the data directory, each with what it has and what frees that.
const PARTS: [(&str, &str, &str); 6] = [
    (
        "volumes/.trash",
        "trash",
        "deleted 24 hours after its volume was removed; 'vc volume undelete' brings it back",
    ),
    ("volumes", "snapshots", "x-vc: {keep: …} of the volume says how many are kept"),
    ("instances", "instances", ""),
    ("audit", "logs", ""),
    ("events.jsonl", "logs", ""),
    ("state.redb", "documents", ""),
];

impl ControlService {
    /// Measures what this node has.
    pub(super) async fn disk_usage(&self) -> Result<Reply, ApiError> {
        let (membership, view) = (self.cluster.membership(), self.cluster.latest().view);
        let node = membership.node;
        let row = |kind: &str, bytes, reclaimable, hint: &str| DiskUsageRow {
            node,
            node_name: view.name(node),
            kind: kind.to_owned(),
            bytes,
            reclaimable,
            hint: hint.to_owned(),
        };
        let failed = |error: io::Error| {
            ApiError::new(
                ErrorCode::Internal,
                format!("cannot measure the data directory: {error}"),
            )
        };
        // Also while the store of images is walked.
        let walk = WALKS.acquire().await.map_err(|error| failed(io::Error::other(error)))?;
        let (images, unneeded) = self.images.store_usage(&view).await.map_err(failed)?;
        let hint = match unneeded {
            0 => "",
            _ => "'vc image prune', then within an hour",
        };
        let mut rows = vec![row("images", images, unneeded, hint)];
        let copies = view.nodes.get(&node).into_iter().flat_map(|state| state.volumes.values());
        let working = copies.filter_map(|record| Some(record.copy.as_ref()?.disk_bytes));
        rows.push(row("volumes", working.fold(0, u64::saturating_add), 0, ""));
        let dir = membership.dir.clone();
        let measured = tokio::task::spawn_blocking(move || {
            // The walk goes on when the client has gone.
            let _walk = walk;
            // What is counted once is not counted again: links of snapshots, and the trash below the volumes.
            let mut seen = HashSet::new();
            PARTS.map(|(path, ..)| size(&dir.join(path), &mut seen))
        });
        let measured = measured.await.map_err(|error| failed(io::Error::other(error)))?;
        for ((_, kind, hint), bytes) in PARTS.into_iter().zip(measured) {
            let bytes = bytes.map_err(failed)?;
            match rows.iter_mut().find(|row| row.kind == kind) {
                Some(row) => row.bytes = row.bytes.saturating_add(bytes),
                None => rows.push(row(kind, bytes, 0, if bytes > 0 { hint } else { "" })),
            }
        }
        Ok(Reply::DiskUsage(rows))
    }
}

/// Returns what a file or directory takes on the disk without what is in `seen`; what does not exist, or is removed meanwhile, takes
/// nothing. Blocks.
fn size(path: &Path, seen: &mut HashSet<(u64, u64)>) -> io::Result<u64> {
    let mut bytes = 0_u64;
    let mut count = |found: &fs::Metadata| {
        let is_new = seen.insert((found.dev(), found.ino()));
        if is_new {
            bytes = bytes.saturating_add(found.blocks().saturating_mul(BLOCK));
        }
        is_new && found.is_dir()
    };
    let mut directories = Vec::new();
    if existing(fs::symlink_metadata(path))?.is_some_and(|found| count(&found)) {
        directories.push(path.to_owned());
    }
    while let Some(directory) = directories.pop() {
        for entry in existing(fs::read_dir(&directory))?.into_iter().flatten() {
            let Some(entry) = existing(entry)? else { continue };
            if existing(entry.metadata())?.is_some_and(|found| count(&found)) {
                directories.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

/// Turns the error that something does not exist into `None`.
fn existing<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_several_names_are_counted_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let sub = |name: &str| dir.path().join(name);
        fs::create_dir(sub("a")).expect("made");
        fs::create_dir(sub("b")).expect("made");
        fs::write(sub("a/file"), vec![1; 1 << 20]).expect("written");
        fs::hard_link(sub("a/file"), sub("b/file")).expect("linked");
        let mut seen = HashSet::new();
        let first = size(&sub("a"), &mut seen).expect("measured");
        let second = size(&sub("b"), &mut seen).expect("measured");
        assert!(first >= 1 << 20 && second < 1 << 16, "{first} {second}");
        assert_eq!(size(&sub("missing"), &mut seen).expect("measured"), 0);
    }

    #[test]
    fn deep_directories_are_measured_and_what_is_removed_meanwhile_counts_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut deepest = dir.path().to_owned();
        for _ in 0..500 {
            deepest.push("d");
        }
        fs::create_dir_all(&deepest).expect("made");
        fs::write(deepest.join("file"), vec![1; 1 << 20]).expect("written");
        let bytes = size(dir.path(), &mut HashSet::new()).expect("measured");
        assert!(bytes >= 1 << 20, "{bytes}");
        assert!(existing(fs::read_dir(dir.path().join("missing"))).expect("no error").is_none());
        assert!(existing(fs::read_dir(deepest.join("file"))).is_err(), "other errors are kept");
    }
}
