//! What of the world outside its image an instance sees: file systems, secrets and configs.

use serde::{Deserialize, Serialize};

use crate::Name;
/// The largest secret or config, in bytes; as in Swarm.
pub const MAX_FILE_BYTES: usize = 500 * 1024;

/// A file system of an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A named volume of the project. Its data is on one node, and instances that use it run there.
    Volume {
        /// Its name in the project.
        name: Name,
        /// Where it is mounted.
        target: String,
        /// It cannot be written.
        read_only: bool,
    },
    /// A volume without a name, that goes with the instance.
    Anonymous {
        /// Where it is mounted.
        target: String,
    },
    /// A directory or file of the node; only for services that are pinned to one node.
    Bind {
        /// Absolute path on the node.
        source: String,
        /// Where it is mounted.
        target: String,
        /// It cannot be written.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Where it is mounted.
        target: String,
        /// At most so many bytes; zero: no limit.
        bytes: u64,
    },
}

impl Mount {
    /// Whether two instances that run at once would write to the same place.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Volume { read_only: false, .. } | Self::Bind { read_only: false, .. })
    }
}

/// A secret or a config that an instance reads as a file, from memory and never from its node's disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileMount {
    /// Which file of the project.
    pub file: FileId,
    /// Which content: a keyed hash of it that the node fills in when it is deployed, so that another content is another
    /// instance. Empty in what a user sends.
    #[serde(default)]
    pub version: String,
    /// Absolute path inside.
    pub target: String,
    /// Its owner inside.
    #[serde(default)]
    pub uid: u32,
    /// Its group inside.
    #[serde(default)]
    pub gid: u32,
    /// Its mode.
    pub mode: u32,
}

/// A file of a project, with a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileId {
    /// Secret or config.
    pub kind: FileKind,
    /// Its name in the project, as the file of the project has it: for a shipped bind mount, the path.
    pub name: String,
}

impl std::fmt::Display for FileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            FileKind::Secret => "secret",
            FileKind::Config => "config",
        };
        write!(f, "{kind} '{}'", self.name)
    }
}

/// Whether anybody may see what is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// Nobody but the instances.
    Secret,
    /// Not secret.
    Config,
}

/// The content of a file that a deployment brings along.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileContent {
    /// Of which project.
    pub project: Name,
    /// Which file.
    pub file: FileId,
    /// What is in it: base64, for JSON's sake.
    pub base64: String,
}

impl std::fmt::Debug for FileContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the content.
        write!(f, "FileContent({}, {:?})", self.project, self.file)
    }
}
