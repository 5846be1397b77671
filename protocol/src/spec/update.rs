//! How a change replaces the instances of a service.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// How a change replaces the instances of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpdatePolicy {
    /// How many at a time; 0: all at once.
    pub parallelism: u32,
    /// `None`: see [`ServiceSpec::starts_first`].
    pub order: Option<UpdateOrder>,
    /// From an instance that has proven itself to the next one.
    pub delay_ms: Millis,
    /// An instance without a healthcheck has proven itself when it has run so long.
    pub monitor_ms: Millis,
    /// What to do when a new instance fails.
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

/// Which goes first, the new instance or the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// The old one stops when the new one has proven itself.
    StartFirst,
    /// The new one starts when the old one is gone.
    StopFirst,
}

/// What to do when a new instance fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureAction {
    /// Go back to the version before.
    #[default]
    Rollback,
    /// Leave everything as it is.
    Pause,
    /// Go on.
    Continue,
}
