//! Instances: what a machine runs for a slot, and how that is going.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Waits: for a machine, or for a service it depends on.
    Pending,
    /// The image is on its way.
    Pulling,
    /// The runtime was asked to start it.
    Starting,
    /// Runs (and, with a healthcheck, has not been judged yet).
    Running,
    /// Runs, and its healthcheck passes.
    Healthy,
    /// Runs, and its healthcheck fails.
    Unhealthy,
    /// Was asked to stop.
    Stopping,
    /// Exited or could not be started; the reason says whether and when it is tried again.
    Failed,
}

impl InstanceState {
    /// Whether a process is up for it.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Healthy | Self::Unhealthy)
    }

    /// As JSON writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Pulling => "pulling",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
        }
    }
}

/// A machine's claim on a slot: that it runs an instance there, and how that is going. Written by that machine alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Digest of the container spec that runs.
    pub digest: String,
    /// How far it is.
    pub state: InstanceState,
    /// Why it is in that state, in words for people; empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Where it is reached; empty while it is not running.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u32,
    /// When it came into its state, by the clock of its machine.
    pub since: Millis,
}
