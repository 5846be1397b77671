//! The parts of a backup.

use serde::{Deserialize, Serialize};
use vc_protocol::backup::ClusterContent;
use vc_protocol::{ClusterId, Millis, VolumeKey};

/// The format that this version writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;
/// How the file begins; the number of the format and a line feed follow.
pub(crate) const MAGIC: &str = "vc-backup ";
/// The longest line of the header, in bytes.
pub(crate) const MAX_LINE: usize = 4096;
/// The checksum at the end: SHA-256 over everything before it.
pub(crate) const CHECKSUM: usize = 32;
/// Names in the archive.
pub(crate) const MANIFEST: &str = "backup.json";
pub(crate) const CLUSTER: &str = "cluster.json";
pub(crate) const VOLUMES: &str = "volumes";
/// What follows a volume's name: the parts of it, one after another, are what `vc volume backup` writes.
pub(crate) const ARCHIVE: &str = ".tar.zst";
/// What follows it for its [`VolumeSnapshot`], which is before the parts.
pub(crate) const SNAPSHOT: &str = ".json";
/// What follows it for its [`VolumeFailure`], which ends the parts of one that could not be read to its end.
pub(crate) const FAILED: &str = ".failed";
/// The largest of these, in bytes.
pub(crate) const MAX_SNAPSHOT: u64 = 4096;
/// The most characters of why a volume failed.
pub(crate) const MAX_PROBLEM: usize = 500;
/// The largest manifest, in bytes.
pub(crate) const MAX_MANIFEST: u64 = 16 << 20;
/// Bytes of one part of a volume: how much of it is in memory, as an entry of tar begins with its size.
pub(crate) const PART: usize = 1 << 20;

/// What can be read without the passphrase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The cluster.
    pub cluster: ClusterId,
    /// When it was backed up, by the clock of the node that gave the content.
    pub taken: Millis,
    /// Display name of that node.
    pub node: String,
    /// Version of vc-node on it.
    pub version: String,
}

/// The first entry of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The same as in the clear.
    #[serde(flatten)]
    pub header: Header,
    /// The volumes that the cluster had.
    pub volumes: Vec<VolumeEntry>,
}

/// A volume of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeEntry {
    /// The volume as `project/volume`.
    pub volume: VolumeKey,
    /// Display name of the node that wrote it.
    pub primary: String,
    /// The size of its files in bytes, as of that snapshot.
    pub bytes: u64,
    /// Its newest snapshot, `EPOCH-NUMBER`, or the one that is in the backup; `None` if it has none.
    pub snapshot: Option<String>,
    /// When that was taken; 0 if there is none.
    pub snapshot_taken: Millis,
    /// Whether the data of the snapshot is in the backup.
    pub included: bool,
    /// Why it is not, although it was asked for; empty if there is no reason.
    pub problem: String,
    /// Whether it was to be, and is on no node that is up, or could not be read to its end.
    #[serde(default)]
    pub failed: bool,
}

impl VolumeEntry {
    /// Marks its data as missing, as it could not be had.
    pub(crate) fn fail(&mut self, problem: String) {
        (self.included, self.failed, self.problem) = (false, true, problem);
    }
}

/// The snapshot of a volume whose data follows: it is chosen when its turn comes, as newer ones replace it within seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSnapshot {
    /// `EPOCH-NUMBER`.
    pub snapshot: String,
    /// When it was taken.
    pub taken: Millis,
    /// The size of its files in bytes.
    pub bytes: u64,
}

/// Why a volume has no data, although the manifest, which is written before, says that it is included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeFailure {
    pub(crate) problem: String,
}

/// What a backup has, for people and scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupSummary {
    /// The file.
    pub file: String,
    /// Its size in bytes.
    pub size: u64,
    /// What the header says.
    #[serde(flatten)]
    pub header: Header,
    /// How many services it has.
    pub services: usize,
    /// How many secrets and configs, with earlier versions of them.
    pub files: usize,
    /// The volumes that the cluster had.
    pub volumes: Vec<VolumeEntry>,
}

impl Header {
    /// Returns the header of a content.
    pub(crate) fn of(content: &ClusterContent) -> Self {
        Self {
            cluster: content.cluster,
            taken: content.taken,
            node: content.node.clone(),
            version: content.version.clone(),
        }
    }
}

impl BackupSummary {
    /// Returns the volumes whose data was to be in it and could not be had.
    pub fn failed(&self) -> impl Iterator<Item = &VolumeEntry> {
        self.volumes.iter().filter(|it| it.failed)
    }

    pub(crate) fn new(
        file: String,
        size: u64,
        manifest: &Manifest,
        content: &ClusterContent,
    ) -> Self {
        Self {
            file,
            size,
            header: manifest.header.clone(),
            services: content.count("services"),
            files: content.files.len(),
            volumes: manifest.volumes.clone(),
        }
    }
}
