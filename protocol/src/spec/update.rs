//! Rolling updates: how a changed spec replaces instances.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// The update policy of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdatePolicy {
    /// Number of slots that are updated at a time; 0 for all at once.
    pub parallelism: u32,
    /// Whether the new or the old instance goes first; `None` for the default of
    /// [`ServiceSpec::starts_first`](crate::spec::ServiceSpec::starts_first).
    pub order: Option<UpdateOrder>,
    /// Delay from one instance becoming available to the next update.
    pub delay_ms: Millis,
    /// Time after which a running instance without a healthcheck is available.
    pub monitor_ms: Millis,
    /// What happens when a new instance fails.
    pub failure_action: FailureAction,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self {
            parallelism: 1,
            order: None,
            delay_ms: 0,
            monitor_ms: 5000,
            failure_action: FailureAction::Rollback,
        }
    }
}

/// The order of starting the new and stopping the old instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// The old instance stops when the new one is available.
    StartFirst,
    /// The new instance starts when the old one has stopped.
    StopFirst,
}

/// What happens when a new instance fails during an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureAction {
    /// The previous version is restored.
    #[default]
    Rollback,
    /// The update stops; instances stay as they are.
    Pause,
    /// The update continues with the next slots.
    Continue,
}
