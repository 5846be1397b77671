//! What a node says of itself in its own document.

use std::collections::BTreeMap;

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::{Name, Resources};

/// The stable facts of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Name for people; not unique by force.
    pub name: Name,
    /// Version of the program.
    pub version: String,
    /// Operating system, as Docker names it.
    pub os: String,
    /// Architecture, as Docker names it.
    pub arch: String,
    /// What runs its instances.
    pub runtime: RuntimeKind,
    /// What it has to give.
    pub capacity: Resources,
    /// `--label`s.
    pub labels: BTreeMap<String, String>,
    /// Where it is dialled.
    pub addresses: Vec<Multiaddr>,
}

/// What runs instances on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// A Docker engine.
    Docker,
    /// Child processes of the node: no image, no isolation.
    Process,
}

impl RuntimeKind {
    /// As the command line writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Process => "process",
        }
    }
}

/// What a node uses at the moment. Ephemeral: it travels in heartbeats, never in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU in use, thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in use, bytes.
    pub memory_bytes: u64,
}
