//! What was written to a working directory, is in no snapshot, and was replaced by what another node wrote.

use std::path::PathBuf;

use vc_protocol::Millis;
use vc_protocol::volume::SnapshotId;

use crate::error::Error;
use crate::layout::Layout;
use crate::manifest::Manifest;
use crate::tree;
use crate::volume::read_manifest;

/// How long a conflict is kept: seven days.
const KEPT: Millis = 7 * 24 * 3_600_000;

/// A content that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// What it is. `id` has the epoch under which it was written, `parent` is the snapshot that it began with, and `taken` is when
    /// it was put aside.
    pub manifest: Manifest,
    /// When it may be deleted.
    pub expires: Millis,
}

/// Returns the directory of a conflict.
pub(crate) fn path(layout: &Layout, id: SnapshotId) -> PathBuf {
    layout.conflicts().join(id.to_string())
}

/// Returns the conflicts of a volume, in the order of their ids.
pub(crate) fn list(layout: &Layout) -> Result<Vec<Conflict>, Error> {
    let mut found = Vec::new();
    for name in tree::names(&layout.conflicts())? {
        let Some(id) = name.to_str().and_then(|it| it.parse().ok()) else { continue };
        if let Some(manifest) = read_manifest(&path(layout, id))? {
            let expires = manifest.taken.saturating_add(KEPT);
            found.push(Conflict { manifest, expires });
        }
    }
    found.sort_unstable_by_key(|it| it.manifest.id);
    Ok(found)
}

/// Returns the directories of the conflicts that may be deleted.
pub(crate) fn expired(layout: &Layout, now: Millis) -> Result<Vec<PathBuf>, Error> {
    let old = list(layout)?.into_iter().filter(|it| it.expires <= now);
    Ok(old.map(|it| path(layout, it.manifest.id)).collect())
}

/// Returns an id that no conflict has, for what was written after `base` under an epoch.
pub(crate) fn next_id(layout: &Layout, written: u64, base: Option<SnapshotId>) -> SnapshotId {
    let first = base.map_or(0, |it| it.number) + 1;
    let ids = (first..).map(|number| SnapshotId { epoch: written, number });
    let mut free = ids.filter(|id| !path(layout, *id).exists());
    free.next().unwrap_or(SnapshotId { epoch: written, number: first })
}
