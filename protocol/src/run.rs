//! Runs: instances that are not started again once they have ended.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// The longest reason of an end, in bytes.
pub const MAX_RUN_REASON: usize = 500;

/// A node's statement about a run. Written by that node alone, under the [`InstanceId`](crate::InstanceId); it outlives the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// When the node began it, by its clock; for display.
    pub started: Millis,
    /// How it ended; `None` while it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<RunEnd>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnd {
    /// When the node saw it, by its clock; for display.
    pub at: Millis,
    /// The exit code; `None` if it did not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// Display text with the reason of a failure, at most [`MAX_RUN_REASON`] bytes; empty if it succeeded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How often it was started again by its restart policy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: u32,
}

/// A node's statement that a time of a schedule has come, under the slot of that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueRecord {
    /// When the node wrote this, by its clock; for display.
    pub at: Millis,
    /// How many times before this one have passed unseen, since the one that was known then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u32,
    /// Why nothing runs at this time; `None` if a run is to begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
    /// Name of the user who began or stopped the run; empty for the schedule.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

/// Why nothing runs at a time of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skipped {
    /// It passed while no node was there, or no node could begin the run in time.
    Missed,
    /// An earlier run had not ended.
    Overlap,
    /// A person stopped the run.
    Stopped,
}

impl RunEnd {
    /// Returns whether it exited with code 0.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
