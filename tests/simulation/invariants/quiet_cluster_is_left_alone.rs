//! At rest nobody does anything: no actions, no changes, only heartbeats and summaries.

use super::Verdict;
use crate::ledger::Mark;
use crate::world::World;

/// Since `mark`, nothing was done at all.
pub(crate) fn check(world: &World, mark: Mark) -> Verdict {
    match world.ledger.since(mark) {
        [] => Ok(()),
        [first, rest @ ..] => Err(format!(
            "at {} m{} did {:?}, and {} more deeds",
            first.at,
            first.node,
            first.deed,
            rest.len()
        )),
    }
}
