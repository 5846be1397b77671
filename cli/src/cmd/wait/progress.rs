//! The progress of a wait, and how instances are described in it.

use vc_client::text::one_line;
use vc_protocol::control::{InstanceRow, ServiceRow};
use vc_protocol::instance::InstanceState;
use vc_protocol::{ApiError, Slot};

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

/// What a service requires of its instances to be available.
#[derive(Debug, Clone, Copy)]
pub(super) struct Availability {
    /// Whether it has a healthcheck.
    pub(super) healthcheck: bool,
    /// Without a healthcheck: how long an instance must run, in milliseconds; `None` when not known.
    pub(super) monitor_ms: Option<u64>,
}

/// Describes the state of an instance: `failed (exited with code 1)`, `pulling (40%)`, `running (monitoring 5s)`.
pub(super) fn describe_state(row: &InstanceRow, required: Option<Availability>) -> String {
    let mut notes = Vec::new();
    if row.state == InstanceState::Running {
        match required {
            Some(Availability { healthcheck: true, .. }) => {
                notes.push("not healthy yet".to_owned())
            }
            Some(Availability { monitor_ms: Some(monitor), .. }) if !row.available => {
                notes.push(format!("monitoring {}", crate::render::short_duration(monitor)));
            }
            _ if !row.available => notes.push("monitoring".to_owned()),
            _ => {}
        }
    }
    let reason = one_line(&row.reason);
    if !reason.is_empty() {
        notes.push(reason);
    }
    let state = row.state.as_str();
    if notes.is_empty() { state.to_owned() } else { format!("{state} ({})", notes.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::super::row;
    use super::*;

    #[test]
    fn a_running_instance_is_described_by_what_it_lacks() {
        let mut it = row("shop/web", 1, Some(1), InstanceState::Running, true);
        let required = |healthcheck, monitor_ms| Some(Availability { healthcheck, monitor_ms });
        assert_eq!(describe_state(&it, required(false, Some(5000))), "running");
        it.available = false;
        assert_eq!(describe_state(&it, required(false, Some(5000))), "running (monitoring 5s)");
        assert_eq!(describe_state(&it, required(true, Some(5000))), "running (not healthy yet)");
        assert_eq!(describe_state(&it, None), "running (monitoring)");
        it.state = InstanceState::Failed;
        it.reason = "exited with code 1".to_owned();
        assert_eq!(describe_state(&it, None), "failed (exited with code 1)");
    }
}
