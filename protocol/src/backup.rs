//! What a backup has of a cluster, beside the data of its volumes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ClusterId, Millis};

/// The largest [`ClusterContent`] as JSON, in bytes.
pub const MAX_CLUSTER_CONTENT: usize = 256 << 20;

/// The cluster document with its secrets and configs in the clear. A server gives it to an admin who makes a backup, and it is in the
/// encrypted part of the file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterContent {
    /// The cluster.
    pub cluster: ClusterId,
    /// Display name of the node that gave the content.
    pub node: String,
    /// When it did, by its clock.
    pub taken: Millis,
    /// Version of vc-node.
    pub version: String,
    /// The entries of the cluster document but `files`: map, key, JSON.
    pub entries: BTreeMap<String, BTreeMap<String, String>>,
    /// Contents of secrets and configs in base64, by their keys in the map `files`.
    pub files: BTreeMap<String, String>,
}

impl fmt::Debug for ClusterContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never what is in it.
        write!(f, "ClusterContent({} of {})", self.taken, self.cluster)
    }
}

impl ClusterContent {
    /// Returns how many entries a map has.
    pub fn count(&self, map: &str) -> usize {
        self.entries.get(map).map_or(0, BTreeMap::len)
    }
}
