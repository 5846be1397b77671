//! What is known of a snapshot.

use serde::{Deserialize, Serialize};
use vc_protocol::Millis;
use vc_protocol::volume::SnapshotId;

/// The format that this version writes. Later ones only add fields.
pub(crate) const FORMAT: u32 = 1;

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
    /// When the content was that of the working directory, by the clock of the node that took it.
    pub taken: Millis,
    /// How many entries it has, with the directory itself.
    pub files: u64,
    /// The size of its regular files, in bytes; a file with several links counts once.
    pub bytes: u64,
    /// The SHA-256 over its names and metadata (see `docs/volumes.md`), in hexadecimal digits.
    pub digest: String,
}
