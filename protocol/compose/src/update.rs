//! `deploy.update_config` and `deploy.rollback_config`.

use super::duration;
use super::problem::Problem;
use super::walk::At;
use vc_protocol::spec::{FailureAction, UpdateOrder, UpdatePolicy};

/// Reads a policy; missing values are those of `base`.
pub(super) fn read(at: &At<'_>, base: &UpdatePolicy) -> UpdatePolicy {
    let mut fields = at.fields();
    let mut policy = base.clone();
    if let Some(parallelism) = fields.take("parallelism").and_then(|at| at.number()) {
        policy.parallelism = parallelism;
    }
    if let Some(order) = fields.take("order").and_then(|at| at.read(order)) {
        policy.order = Some(order);
    }
    if let Some(delay) = fields.take("delay").and_then(|at| at.read(duration::parse)) {
        policy.delay_ms = delay;
    }
    if let Some(monitor) = fields.take("monitor").and_then(|at| at.read(duration::parse)) {
        policy.monitor_ms = monitor;
    }
    if let Some(action) = fields.take("failure_action").and_then(|at| at.read(failure_action)) {
        policy.failure_action = action;
    }
    if let Some(at) = fields.take("max_failure_ratio") {
        let zero = |text: &str| text.parse::<f64>().is_ok_and(|ratio| ratio == 0.0);
        if at.text().is_some_and(|text| !zero(text)) {
            at.invalid("only 0 is supported: one instance that fails is an update that fails");
        }
    }
    fields.finish(&[]);
    policy
}

/// Refuses a `rollback_config` that differs from `policy`.
pub(super) fn check_rollback(at: &At<'_>, policy: &UpdatePolicy) {
    if read(at, policy) != *policy {
        at.invalid("update_config governs a rollback too: leave this out, or repeat what is there");
    }
}

fn order(text: &str) -> Result<UpdateOrder, Problem> {
    match text {
        "start-first" => Ok(UpdateOrder::StartFirst),
        "stop-first" => Ok(UpdateOrder::StopFirst),
        _ => {
            Err(Problem::new(format!("'{text}' is not an order: write start-first or stop-first")))
        }
    }
}

fn failure_action(text: &str) -> Result<FailureAction, Problem> {
    match text {
        "rollback" => Ok(FailureAction::Rollback),
        "pause" => Ok(FailureAction::Pause),
        "continue" => Ok(FailureAction::Continue),
        _ => Err(Problem::new(format!(
            "'{text}' is not an action: write rollback, pause or continue"
        ))),
    }
}
