//! Modes: which slots a service has, and whether its instances run to completion.

use serde::{Deserialize, Serialize};

/// Which slots a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceMode {
    /// Those from 1 to its number of replicas.
    #[default]
    Replicated,
    /// One for each node that it suits.
    Global,
    /// Those from 1 to its number of replicas; each runs to completion once for each deployment.
    ReplicatedJob,
    /// One for each node that it suits; each runs to completion once for each deployment.
    GlobalJob,
}

impl ServiceMode {
    /// All modes.
    pub const ALL: [Self; 4] =
        [Self::Replicated, Self::Global, Self::ReplicatedJob, Self::GlobalJob];

    /// Returns the word of specs, rows and Compose files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replicated => "replicated",
            Self::Global => "global",
            Self::ReplicatedJob => "replicated-job",
            Self::GlobalJob => "global-job",
        }
    }

    /// Returns whether it has a slot for each node, so that the number of replicas has no effect.
    pub fn is_per_node(self) -> bool {
        matches!(self, Self::Global | Self::GlobalJob)
    }

    /// Returns whether its instances run to completion.
    pub fn is_job(self) -> bool {
        matches!(self, Self::ReplicatedJob | Self::GlobalJob)
    }
}
