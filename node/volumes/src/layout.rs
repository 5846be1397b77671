//! The directories of a volume in the store.

use std::path::{Path, PathBuf};

use vc_protocol::volume::SnapshotId;

/// The directory of a volume.
#[derive(Debug, Clone)]
pub(crate) struct Layout(pub(crate) PathBuf);

impl Layout {
    /// State of the copy.
    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// In the trash: it was only forgotten, and does not expire.
    pub(crate) fn forgotten(&self) -> PathBuf {
        self.0.join("forgotten")
    }

    /// In the trash: when the volume was removed from the cluster, in milliseconds.
    pub(crate) fn decided(&self) -> PathBuf {
        self.0.join("decided")
    }

    /// Committed snapshots.
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }

    /// A committed snapshot.
    pub(crate) fn snapshot(&self, id: SnapshotId) -> PathBuf {
        self.snapshots().join(id.to_string())
    }

    /// The content of a committed snapshot.
    pub(crate) fn data(&self, id: SnapshotId) -> PathBuf {
        data(&self.snapshot(id))
    }

    /// What is put aside.
    pub(crate) fn conflicts(&self) -> PathBuf {
        self.0.join("conflicts")
    }

    /// Where snapshots are made. Never read.
    pub(crate) fn staging(&self) -> PathBuf {
        self.0.join("staging")
    }

    /// A snapshot that is made.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.staging().join("incoming")
    }

    /// Says that what is staged is a first snapshot, of no use to any other operation.
    pub(crate) fn first(&self) -> PathBuf {
        self.staging().join("first")
    }

    /// The paths that rsync is to copy.
    pub(crate) fn list(&self) -> PathBuf {
        self.staging().join("list")
    }

    /// Links to the files of the newest snapshot, from which the next one begins.
    pub(crate) fn standby(&self) -> PathBuf {
        self.0.join("standby")
    }

    /// The paths that the rsyncs of senders are to copy.
    pub(crate) fn sending(&self) -> PathBuf {
        self.0.join("sending")
    }

    /// What a transfer that broke off has left.
    pub(crate) fn partial(&self) -> PathBuf {
        self.staging().join("partial")
    }

    /// What is being deleted.
    pub(crate) fn garbage(&self) -> PathBuf {
        self.0.join("garbage")
    }
}

/// The content of a snapshot, conflict or staged snapshot.
pub(crate) fn data(snapshot: &Path) -> PathBuf {
    snapshot.join("data")
}

/// The paths that differ from the parent of a snapshot: those that changed, and those that were removed. Missing where they are too
/// many, or there is no parent.
pub(crate) fn lists(snapshot: &Path) -> [PathBuf; 2] {
    [snapshot.join("changed"), snapshot.join("removed")]
}

/// The manifest of a snapshot or conflict.
pub(crate) fn manifest(snapshot: &Path) -> PathBuf {
    snapshot.join("manifest.json")
}
