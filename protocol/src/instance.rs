//! The state of instances, as nodes claim it.

use serde::{Deserialize, Serialize};

use crate::{Lamport, Millis};

/// The state of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Waiting for a node, or for a service that it depends on.
    Pending,
    /// The image is being pulled.
    Pulling,
    /// The runtime is starting it.
    Starting,
    /// Running; a healthcheck, if there is one, has no result yet.
    Running,
    /// Running, and the healthcheck passes.
    Healthy,
    /// Running, and the healthcheck fails.
    Unhealthy,
    /// The runtime is stopping it.
    Stopping,
    /// Exited, or could not be started. The reason says whether and when it is restarted.
    Failed,
    /// Exited with code 0, and the restart policy does not restart it.
    Completed,
}

impl InstanceState {
    /// Returns whether a container or process is running.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Healthy | Self::Unhealthy)
    }

    /// Returns the name in JSON.
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

/// A node's claim on an instance: the statement that it runs it, with its state. Written by that node alone, under the
/// [`InstanceId`](crate::InstanceId).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// State of the instance.
    pub state: InstanceState,
    /// Display text with the reason of the state; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// IP address of the instance; empty while it is not running.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Number of restarts by the restart policy.
    #[serde(default)]
    pub restarts: u32,
    /// When the node claimed it. Of two claims on a slot the earlier one is older.
    pub lamport: Lamport,
    /// Time at which it entered the state, by the node's clock; for display.
    pub since: Millis,
    /// When the instance was started last; 0 unless the service asks for it (`reconcile: longest_running`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub started: Lamport,
    /// Whether it is available: healthy, or running for the `monitor` time of its
    /// [`UpdatePolicy`](crate::spec::UpdatePolicy). A rollout waits for it.
    #[serde(default)]
    pub available: bool,
    /// Whether it is not started yet and nothing that can fail beforehand keeps it from being: its image is there and its
    /// container is made. With stop first, the node that runs the instance before it waits for this where the node that makes the
    /// claim [`prepares`](crate::Supports::prepares).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prepared: bool,
    /// Whether it was started anew as its healthcheck failed, and has not been healthy since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restarted_unhealthy: bool,
    /// Epoch of the lease under which it runs; `None` for an instance without a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Whether it has failed and will not run without a change from outside: its restart policy does not restart it, or its image
    /// was looked for in vain for too long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub terminal: bool,
}

impl Claim {
    /// Returns a claim on an instance that runs and is available.
    #[doc(hidden)]
    pub fn for_tests() -> Self {
        Self {
            state: InstanceState::Running,
            reason: String::new(),
            address: String::new(),
            restarts: 0,
            lamport: 1,
            since: 1,
            started: 0,
            available: true,
            prepared: false,
            restarted_unhealthy: false,
            epoch: None,
            terminal: false,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
