//! Mounts: volumes, bind mounts, tmpfs, secrets and configs.

use serde::{Deserialize, Serialize};

use super::is_default;
use crate::Name;

/// The largest secret or config, in bytes; as in Docker Swarm.
pub const MAX_FILE_BYTES: usize = 500 * 1024;

/// A mount of an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A named volume of the project. Its data is on one node, and instances that mount it run there.
    Volume {
        /// Name in the project.
        name: Name,
        /// Path in the container.
        target: String,
        /// Whether it is read-only.
        read_only: bool,
        /// Whether it does not get what the image has at the target while it is empty.
        #[serde(default, skip_serializing_if = "is_default")]
        nocopy: bool,
        /// Mounts only this directory of it, relative to its root.
        #[serde(default, skip_serializing_if = "is_default")]
        subpath: Option<String>,
    },
    /// A volume without a name, deleted with the instance.
    Anonymous {
        /// Path in the container.
        target: String,
    },
    /// A directory or file of the host that runs the instance.
    Bind {
        /// Absolute path on the host.
        source: String,
        /// Path in the container.
        target: String,
        /// Whether it is read-only.
        read_only: bool,
    },
    /// A file system in memory.
    Tmpfs {
        /// Path in the container.
        target: String,
        /// Size limit in bytes; zero for none.
        bytes: u64,
    },
}

impl Mount {
    /// Returns a mount of a whole volume, as `NAME:TARGET` in a Compose file.
    pub fn volume(name: Name, target: impl Into<String>, read_only: bool) -> Self {
        Self::Volume { name, target: target.into(), read_only, nocopy: false, subpath: None }
    }

    /// Returns the path of the host that it is.
    pub fn host_path(&self) -> Option<&str> {
        match self {
            Self::Bind { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Returns its path in the container.
    pub fn target(&self) -> &str {
        let (Self::Volume { target, .. }
        | Self::Anonymous { target }
        | Self::Bind { target, .. }
        | Self::Tmpfs { target, .. }) = self;
        target
    }

    /// Returns whether two instances running at once would write to the same place.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Volume { read_only: false, .. } | Self::Bind { read_only: false, .. })
    }
}

/// A secret or config that is mounted as a file, in memory and never on the host's disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileMount {
    /// Kind and name of the file.
    pub file: FileId,
    /// Keyed hash of the content, set by the node at deployment, so that a changed content makes a new instance. Empty in
    /// requests of clients.
    #[serde(default, skip_serializing_if = "is_default")]
    pub version: String,
    /// Absolute path in the container.
    pub target: String,
    /// User id of the owner.
    #[serde(default, skip_serializing_if = "is_default")]
    pub uid: u32,
    /// Group id of the owner.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gid: u32,
    /// Permission bits of the file.
    pub mode: u32,
}

/// Identifies a secret or config of a project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId {
    /// Whether it is a secret or a config.
    pub kind: FileKind,
    /// Name in the Compose file; for a bind mount that is shipped as a config, its path.
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

/// Whether a file is confidential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// Confidential: only instances read it.
    Secret,
    /// Not confidential, but stored encrypted too.
    Config,
}

/// The content of a secret or config in a deployment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileContent {
    /// The Compose project of the file.
    pub project: Name,
    /// Kind and name of the file.
    pub file: FileId,
    /// The content in base64.
    pub base64: String,
}

impl std::fmt::Debug for FileContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The content may be secret.
        write!(f, "FileContent({}, {:?})", self.project, self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests of containers, which decide what is replaced, are taken over this.
    #[test]
    fn a_volume_without_options_is_encoded_as_before_there_were_options() {
        let plain = r#"{"volume":{"name":"data","target":"/data","read_only":true}}"#;
        let mount = Mount::volume("data".parse().expect("a name"), "/data", true);
        assert_eq!(serde_json::to_string(&mount).expect("JSON"), plain);
        assert_eq!(serde_json::from_str::<Mount>(plain).expect("a mount"), mount);
    }
}
