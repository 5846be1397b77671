//! The progress of a wait, and how instances are described in it.

use vc_client::text::one_line;
use vc_protocol::control::{InstanceRow, ServiceRow};
use vc_protocol::{ApiError, Slot};

use crate::render::unavailable;

/// A condition that a command waits for.
pub(in crate::cmd) trait Condition {
    /// Evaluates the present state.
    fn evaluate(&mut self, services: Vec<ServiceRow>, rows: Vec<InstanceRow>) -> Progress;
}

/// How much of a condition is met.
#[derive(Debug)]
pub(in crate::cmd) struct Progress {
    /// `2/5 running`.
    pub(super) count: String,
    /// What is missing, one entry per instance.
    pub(super) missing: Vec<String>,
    /// The state of each instance.
    pub(super) states: Vec<(Slot, String)>,
    pub(super) status: Status,
}

/// Whether the wait is over.
#[derive(Debug)]
pub(super) enum Status {
    Wait,
    Done,
    /// The condition can no longer be met.
    Failed(ApiError),
}

/// Returns the slot of an instance.
pub(super) fn slot(row: &InstanceRow) -> Slot {
    Slot { service: row.service.clone(), replica: row.replica }
}

/// Returns ` on alpha`; empty when the instance is not placed.
pub(super) fn on_node(row: &InstanceRow) -> String {
    row.node_name.as_deref().map(|name| format!(" on {}", one_line(name))).unwrap_or_default()
}

/// Describes the state of an instance: `failed (exited with code 1)`, `pulling (40%)`, `running (monitoring 5s)`.
pub(super) fn describe_state(row: &InstanceRow) -> String {
    // The whole period, not what remains: the text changes only with the state.
    let mut notes: Vec<String> = unavailable(row, row.since).into_iter().collect();
    let reason = one_line(&row.reason);
    if !reason.is_empty() {
        notes.push(reason);
    }
    let state = row.state.as_str();
    if notes.is_empty() { state.to_owned() } else { format!("{state} ({})", notes.join("; ")) }
}

#[cfg(test)]
mod tests {
    use vc_protocol::instance::InstanceState;

    use super::super::row;
    use super::*;

    #[test]
    fn a_running_instance_is_described_by_what_it_lacks() {
        let mut it = row("shop/web", 1, Some(1), InstanceState::Running, true);
        assert_eq!(describe_state(&it), "running");
        it.available = false;
        assert_eq!(describe_state(&it), "running (not healthy yet)");
        it.monitor_ms = 5000;
        assert_eq!(describe_state(&it), "running (monitoring 5s)");
        it.state = InstanceState::Failed;
        it.reason = "exited with code 1".to_owned();
        assert_eq!(describe_state(&it), "failed (exited with code 1)");
    }
}
