//! Named volumes: how a Compose file declares them, and the snapshots by which nodes copy them to each other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::lease::Epoch;
use crate::{Millis, NodeId};

/// How many copies a volume has that says nothing, in a cluster with so many nodes.
pub const DEFAULT_REPLICAS: u32 = 2;
/// The most copies of a volume.
pub const MAX_REPLICAS: u32 = 7;

/// How a volume is kept, as its declaration says (`x-vc`). Not part of a container: a change restarts nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// How many nodes have a copy, with the one that writes it; `None` for [`DEFAULT_REPLICAS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Room to reserve on each of these nodes, in bytes; zero for none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub size_bytes: u64,
    /// What happens when the node is lost that writes it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_loss: OnLoss,
    /// How long a node with a copy may be down before another one gets a copy, in milliseconds; 0 for the default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lost_after_ms: Millis,
    /// The snapshots that stay.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep: Keep,
    /// Commands around each snapshot.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hooks: Hooks,
    /// A network file system that every node mounts; it is not copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverOptions>,
    /// Where its first content is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// What happens when the node is lost that writes a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLoss {
    /// Another node goes on from its newest snapshot: what was written since is missing, until the lost node returns.
    #[default]
    Latest,
    /// The services wait for the node.
    Wait,
}

/// How many snapshots of a volume stay; the newest always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Keep {
    /// The last ones.
    pub last: u32,
    /// The last one of each of so many hours.
    pub hourly: u32,
    /// The last one of each of so many days.
    pub daily: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self { last: 3, hourly: 24, daily: 7 }
    }
}

/// Commands that run inside an instance around each snapshot, as `docker exec` runs them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// Before the instances are paused; if it fails, no snapshot is taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
    /// After they go on, whatever became of the snapshot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
}

/// The options of Docker's `local` driver for a file system that is mounted, such as NFS and CIFS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DriverOptions {
    /// File system, `nfs` or `cifs`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What to mount, `:/export` or `//server/share`.
    pub device: String,
    /// Mount options, `addr=10.0.0.5,rw`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub options: String,
}

/// Where the first content of a volume is from that a Compose file names as a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A directory of the computer on which the file was deployed, by its path in the file: uploaded once.
    Uploaded {
        /// `./data`
        path: String,
        /// The node that received it at the deployment; `None` if there was nothing to upload.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<NodeId>,
    },
    /// A directory of the nodes. Where it was found it is used in place.
    Directory {
        /// `/srv/app`
        path: String,
        /// The node that has it, as found at the deployment; `None` while none has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<NodeId>,
        /// Whether a deployment is refused when no node has it (`create_host_path: false`), and it is not made.
        #[serde(default, skip_serializing_if = "is_default")]
        must_exist: bool,
    },
}

/// Identifies a snapshot of a volume; later ones compare greater. Displayed as `EPOCH-NUMBER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotId {
    /// The epoch of the lease under which it was taken; zero before the first lease.
    pub epoch: Epoch,
    /// Counts the snapshots of the volume, on from that which its writer began with.
    pub number: u64,
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

/// A text is no id of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no snapshot: write EPOCH-NUMBER, as 'vc volume snapshots' shows it")]
pub struct ParseSnapshotIdError(String);

impl FromStr for SnapshotId {
    type Err = ParseSnapshotIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('-').and_then(|(epoch, number)| {
            Some(Self { epoch: epoch.parse().ok()?, number: number.parse().ok()? })
        });
        // Names of directories are read with this: one text for each id.
        let parsed = parsed.filter(|id: &Self| id.to_string() == text);
        parsed.ok_or_else(|| ParseSnapshotIdError(text.to_owned()))
    }
}

/// The copy of a volume on one node, as that node says in its document.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeCopy {
    /// The newest whole snapshot that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// When that was taken, by the clock of the node that wrote the volume; for display.
    #[serde(skip_serializing_if = "is_default")]
    pub taken: Millis,
    /// The size of its files, in bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub bytes: u64,
    /// What they take on a disk, in bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub disk_bytes: u64,
    /// The epoch under which instances on this node wrote, or may have written, to the working directory last; `None` if none
    /// ever did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<Epoch>,
    /// Whether `snapshot` has all that was ever written there.
    #[serde(skip_serializing_if = "is_default")]
    pub closed: bool,
    /// Of the copy that is written: whether nothing was written since `snapshot` when the node looked last.
    #[serde(skip_serializing_if = "is_default")]
    pub unchanged: bool,
    /// How many contents are kept aside that another node's writes have replaced.
    #[serde(skip_serializing_if = "is_default")]
    pub conflicts: u32,
    /// Of its first snapshot, which it is getting: how many bytes have arrived, in steps; 0 otherwise. For display.
    #[serde(skip_serializing_if = "is_default")]
    pub received: u64,
    /// Why it is not up to date, in one line; `None` if nothing is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_ordered_by_epoch_and_have_one_text_each() {
        let id = |text: &str| text.parse::<SnapshotId>();
        let ids = ["0-1", "0-12", "1000001-13", "1000002-3"].map(|it| id(it).expect("an id"));
        assert!(ids.is_sorted());
        assert_eq!(ids[3].to_string(), "1000002-3");
        for text in ["", "1", "1-", "-1", "01-2", "1-2-3", "1-+2", "1- 2"] {
            assert!(id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_said_is_not_written() {
        assert_eq!(serde_json::to_string(&VolumeSpec::default()).expect("JSON"), "{}");
        assert_eq!(serde_json::to_string(&VolumeCopy::default()).expect("JSON"), "{}");
        let keep: VolumeSpec = serde_json::from_str(r#"{"keep": {"last": 1}}"#).expect("a spec");
        assert_eq!(keep.keep, Keep { last: 1, ..Keep::default() });
    }
}
