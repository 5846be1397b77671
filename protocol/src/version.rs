//! Versions: of the protocol between clients and nodes, and of what a node supports of the documents.

use serde::{Deserialize, Serialize};

/// The versions of the handshake and of the control protocol that a program speaks. Two programs use the highest that both
/// speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolVersions {
    /// The newest.
    pub version: u32,
    /// The oldest.
    #[serde(default = "first")]
    pub oldest: u32,
}

impl ProtocolVersions {
    /// The versions that this crate defines.
    pub const OURS: Self = Self { version: 1, oldest: 1 };

    /// Returns the version that two programs use; `None` if they have none in common.
    pub fn common(self, other: Self) -> Option<u32> {
        let newest = self.version.min(other.version);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl Default for ProtocolVersions {
    /// Returns the versions of a program that does not state them: the first only.
    fn default() -> Self {
        Self { version: first(), oldest: first() }
    }
}

fn first() -> u32 {
    1
}

impl std::fmt::Display for ProtocolVersions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self { version, oldest } if version == oldest => write!(f, "version {version}"),
            Self { version, oldest } => write!(f, "versions {oldest} to {version}"),
        }
    }
}

/// What a node supports. Of versions, in effect is the lowest that any node which is up supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Supports {
    /// Newest version of the documents' schemas.
    pub schema: u32,
    /// Newest version of placement.
    pub plan: u32,
    /// Whether it prepares an instance before another node stops the one that it replaces, and says so in its
    /// [claim](crate::instance::Claim::prepared).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub prepares: bool,
    /// Whether it reads how volumes are kept, and uses directories of its host as volumes:
    /// [`ServiceSpec::volumes`](crate::spec::ServiceSpec::volumes).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub volumes: bool,
    /// Whether it keeps the data of a volume that the cluster forgets, and does not delete it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forgets: bool,
}

impl Default for Supports {
    /// Returns the versions of a node that does not state them: the first of each.
    fn default() -> Self {
        Self { schema: first(), plan: first(), prepares: false, volumes: false, forgets: false }
    }
}

impl Supports {
    /// Returns what two nodes have in common.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            schema: self.schema.min(other.schema),
            plan: self.plan.min(other.plan),
            prepares: self.prepares && other.prepares,
            volumes: self.volumes && other.volumes,
            forgets: self.forgets && other.forgets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_programs_use_the_newest_common_version() {
        let speaks = |oldest, version| ProtocolVersions { version, oldest };
        assert_eq!(speaks(1, 3).common(speaks(2, 5)), Some(3));
        assert_eq!(speaks(2, 2).common(speaks(1, 9)), Some(2));
        assert_eq!(speaks(1, 2).common(speaks(3, 4)), None);
        assert_eq!(speaks(3, 4).common(speaks(1, 2)), None);
        let old: ProtocolVersions = serde_json::from_str(r#"{"version": 1}"#).expect("readable");
        assert_eq!(old, ProtocolVersions::default());
        assert_eq!(speaks(1, 3).to_string(), "versions 1 to 3");
    }
}
