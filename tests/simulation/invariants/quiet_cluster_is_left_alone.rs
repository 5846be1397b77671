//! At rest there are no actions and no changes, only heartbeats and summaries.

use super::Check;
use crate::history::Cursor;
use crate::invariants::Violation;
use crate::world::World;

/// Since `cursor`, nothing was done at all.
pub(crate) fn check(world: &World, cursor: Cursor) -> Check {
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
