//! What is known of a snapshot.

use serde::{Deserialize, Serialize};
use vc_protocol::Millis;
use vc_protocol::lease::Epoch;
use vc_protocol::volume::SnapshotId;

use crate::listing::Listing;

/// The format that this version writes. Later ones only add fields.
pub(crate) const FORMAT: u32 = 1;

/// The most snapshots in a history.
pub const MAX_HISTORY: usize = 16;

/// What is known of a snapshot: on disk beside its content, and between nodes. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// 1.
    pub format: u32,
    /// Which snapshot it is.
    pub id: SnapshotId,
    /// The newest snapshot of the node that took it, at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotId>,
    /// The last snapshot of each earlier epoch that it was built on, the oldest first, at most [`MAX_HISTORY`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<SnapshotId>,
    /// When the content was that of the working directory, by the clock of the node that took it.
    pub taken: Millis,
    /// How many entries it has, with the directory itself.
    pub files: u64,
    /// The size of its regular files, in bytes; a file with several links counts once.
    pub bytes: u64,
    /// What it takes on the disk of the node that took it, in bytes; 0 from a version that does not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub allocated: u64,
    /// The SHA-256 over its names and metadata (see `docs/volumes.md`), in hexadecimal digits.
    pub digest: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

impl Manifest {
    /// Returns the manifest of a snapshot whose content was listed.
    pub(crate) fn new(
        id: SnapshotId,
        parent: Option<SnapshotId>,
        history: Vec<SnapshotId>,
        taken: Millis,
        listing: Listing,
    ) -> Self {
        let Listing { files, bytes, allocated, digest } = listing;
        Self { format: FORMAT, id, parent, history, taken, files, bytes, allocated, digest }
    }

    /// Returns about how many bytes of disk a copy of it needs.
    pub(crate) fn room(&self) -> u64 {
        if self.allocated > 0 { self.allocated } else { self.bytes }
    }

    /// Returns the history of the snapshot that follows this one under an epoch.
    pub(crate) fn next_history(&self, epoch: Epoch) -> Vec<SnapshotId> {
        let mut history = self.history.clone();
        if self.id.epoch != epoch {
            history.push(self.id);
        }
        let surplus = history.len().saturating_sub(MAX_HISTORY);
        history.drain(..surplus);
        history
    }

    /// Returns whether the snapshot was built on another one, as far as it knows.
    pub(crate) fn is_built_on(&self, earlier: SnapshotId) -> bool {
        let last = self.history.iter().chain([&self.id]).find(|it| it.epoch == earlier.epoch);
        last.is_some_and(|last| earlier.number <= last.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(id: &str, history: Vec<SnapshotId>) -> Manifest {
        let id = id.parse().expect("an id");
        let digest = String::new();
        Manifest {
            format: 1,
            id,
            parent: None,
            history,
            taken: 0,
            files: 0,
            bytes: 0,
            allocated: 0,
            digest,
        }
    }

    #[test]
    fn a_history_has_the_last_snapshot_of_each_epoch() {
        let id = |text: &str| text.parse::<SnapshotId>().expect("an id");
        let first = manifest("1-5", Vec::new());
        assert!(first.next_history(1).is_empty());
        let second = manifest("3-6", first.next_history(3));
        let third = manifest("3-7", second.next_history(3));
        let fourth = manifest("4-8", third.next_history(4));
        assert_eq!(fourth.history, [id("1-5"), id("3-7")]);
        for (earlier, built_on) in [
            ("1-4", true),
            ("1-5", true),
            ("1-6", false),
            ("2-6", false),
            ("3-7", true),
            ("4-8", true),
        ] {
            assert_eq!(fourth.is_built_on(id(earlier)), built_on, "{earlier}");
        }
        let mut long = fourth;
        for epoch in 5..50 {
            let next = long.next_history(epoch);
            long = manifest(&format!("{epoch}-9"), next);
        }
        assert_eq!(long.history.len(), MAX_HISTORY);
    }
}
