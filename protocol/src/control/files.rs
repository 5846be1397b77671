//! Uploads of directories, and lists of files.

use serde::{Deserialize, Serialize};

use super::ServiceDiff;
use crate::{Millis, NodeId, VolumeKey};

/// The longest [`UploadTarget::directory`], in bytes.
pub const MAX_DIRECTORY_ID: usize = 128;

/// Where an upload goes to that a later one may continue.
///
/// Its archive has everything that the volume is to have: an entry `.`, directories before what is in them, and at the end an entry
/// with the extended header `VC.end`. A file with `VC.offset` begins at that byte: the node has what is before it, from an upload that
/// broke off, with the same time of modification. `VC.xattr.NAME`, the name and the value in hexadecimal digits, is an extended
/// attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadTarget {
    /// The node that gets it.
    pub node: NodeId,
    /// Identifies the directory on the client's computer; what is there of another one is dropped. At most [`MAX_DIRECTORY_ID`] bytes.
    pub directory: String,
    /// When the first upload of this directory began that the node has something of, by the clock of the client.
    pub begun: Millis,
    /// The size of its files, in bytes: what the node has to have room for.
    pub bytes: u64,
    /// Whether it stays staged, for [`Request::ReplaceVolume`](super::Request::ReplaceVolume), and is not what the volume begins with.
    #[serde(default)]
    pub replace: bool,
}

/// Some of the files of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileList {
    /// The files, and whatever else there is.
    pub files: Vec<FileRow>,
    /// Whether another list follows.
    pub more: bool,
    /// Of an upload that broke off: [`UploadTarget::begun`]; 0 if there is none.
    #[serde(default)]
    pub begun: Millis,
}

/// A file or directory of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRow {
    /// Relative to the volume. What is no text is replaced, or left out where an upload is to be continued.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Of a regular file, in bytes.
    pub size: u64,
    /// When it was modified, in nanoseconds since 1970.
    pub modified_ns: i64,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// Anything else, such as a pipe.
    #[serde(other)]
    Other,
}

/// What `vc deploy --upload --dry-run` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadPlan {
    /// The services that change.
    pub services: Vec<ServiceDiff>,
    /// The volumes that would be replaced.
    pub uploads: Vec<UploadDiff>,
}

/// How a directory differs from the volume that it would replace. Files are compared by kind, size and time of modification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadDiff {
    /// The volume as `project/volume`.
    pub volume: VolumeKey,
    /// The directory.
    pub directory: String,
    /// Files that it has.
    pub files: u64,
    /// Their size, in bytes.
    pub bytes: u64,
    /// Files that only the volume has.
    pub only_in_volume: FileCount,
    /// Files that are newer in the volume.
    pub newer_in_volume: FileCount,
    /// Other files that differ.
    pub different: FileCount,
    /// Files that only the directory has.
    pub only_in_directory: FileCount,
}

/// A number of files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCount {
    /// How many there are.
    pub count: u64,
    /// The paths of the first ones.
    pub first: Vec<String>,
}
