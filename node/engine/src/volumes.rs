//! What a node does with its copies of volumes.
//!
//! A volume has one *primary*, the node that has its lease and whose instances write to the *working directory*, and *replicas*
//! on other nodes. The primary takes *snapshots*; a replica gets the newest from any node that has it, and keeps a working
//! directory that is equal to it. So a replica that becomes the primary starts at once.

use std::collections::BTreeSet;

use vc_protocol::lease::Epoch;
use vc_protocol::volume::{SnapshotId, VolumeSpec};
use vc_protocol::{InstanceId, NodeId};

/// What to do with the copy of a volume on this node, until told otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeTask {
    /// The part of this node.
    pub role: VolumeRole,
    /// How the volume is kept.
    pub spec: VolumeSpec,
}

/// The part of a node in keeping a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeRole {
    /// It has the lease. It makes the working directory ready and reports [`written`](vc_protocol::volume::VolumeCopy::written)
    /// as the epoch: only then instances start. While they run it takes snapshots with this epoch.
    Primary {
        /// The epoch of the lease.
        epoch: Epoch,
        /// The newest snapshot that any node has: what to begin with, unless the working directory was written to under its
        /// epoch or a later one. `None`: what is there counts, or nothing is.
        newest: Option<SnapshotId>,
        /// Nodes that are up and have `newest`, for a copy that has not.
        sources: Vec<NodeId>,
        /// Whether to take snapshots: another node is to have a copy, or the volume says which snapshots to keep.
        snapshots: bool,
        /// The instances of this node that write to it, to be paused for a snapshot.
        writers: BTreeSet<InstanceId>,
    },
    /// It has the lease, and no instance writes any more: it takes the last snapshot with this epoch and reports the copy as
    /// [`closed`](vc_protocol::volume::VolumeCopy::closed).
    Closing {
        /// The epoch of the lease.
        epoch: Epoch,
    },
    /// It gets what others have written. If the working directory was written to under an earlier epoch and has what no snapshot
    /// has, that is kept aside first.
    Replica {
        /// The highest epoch of the volume that is known: snapshots of lower ones are refused from now on, durably.
        fence: Epoch,
        /// The newest snapshot that any node has.
        newest: Option<SnapshotId>,
        /// Nodes that are up and have it.
        sources: Vec<NodeId>,
    },
}
