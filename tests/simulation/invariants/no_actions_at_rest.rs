//! At rest nodes take no actions and make no changes; they send only heartbeats and summaries.

use crate::check::{Check, Violation};
use crate::history::Cursor;
use crate::world::World;

/// Checks that no node has acted since `cursor`.
pub fn check(world: &World, cursor: Cursor) -> Check {
    match world.history.since(cursor) {
        [] => Ok(()),
        [first, rest @ ..] => Err(Violation(format!(
            "at {} m{} did {:?}, and {} more actions",
            first.at,
            first.node,
            first.action,
            rest.len()
        ))),
    }
}
