//! What a version of vc-node knows.

use vc_placement::{RULES, Rules};
use vc_protocol::Supports;

use crate::document::Schema;
use crate::schema::{CLUSTER, NODE};

/// What a version of vc-node knows of the documents and of placement. A value, so that tests can run two versions in one
/// process.
#[derive(Debug, Clone, Copy)]
pub struct KnownVersions {
    /// The schema of the cluster document.
    pub cluster: Schema,
    /// The schema of the node documents.
    pub node: Schema,
    /// The rules of placement, oldest first.
    pub rules: &'static [Rules],
}

impl Default for KnownVersions {
    /// What this version knows.
    fn default() -> Self {
        Self { cluster: CLUSTER, node: NODE, rules: RULES }
    }
}

impl KnownVersions {
    /// Returns the newest versions.
    pub fn supports(&self) -> Supports {
        let plan = self.rules.last().map_or(1, |rules| rules.version);
        let schema = self.cluster.version().max(self.node.version());
        Supports { schema, plan, prepares: true, volumes: true, forgets: true }
    }

    /// Returns the rules of a version of placement, or the next older ones that are known.
    pub fn rules(&self, version: u32) -> Rules {
        let known = self.rules.iter().rev().find(|rules| rules.version <= version);
        known.copied().unwrap_or_default()
    }
}
