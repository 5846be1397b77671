//! Instances: what a node runs for a slot, and how that is going.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Waits: for a node, or for a service it depends on.
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
    /// Exited with code 0, and its restart policy leaves it so: a job that is done.
    Completed,
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
            Self::Completed => "completed",
        }
    }
}

/// A node's claim on an instance: that it runs it, and how that is going. Written by that node alone, under the
/// [`InstanceId`](crate::InstanceId).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
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
    /// When it came into its state, by the clock of its node.
    pub since: Millis,
    /// Whether it has proven itself as [`UpdatePolicy`](crate::spec::UpdatePolicy) asks: the next step may follow.
    #[serde(default)]
    pub available: bool,
}
