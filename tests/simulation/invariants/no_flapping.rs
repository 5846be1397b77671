//! Once all faults have ended, no slot is started again and again.

use std::collections::BTreeMap;

use crate::check::{Check, Violation};
use crate::history::{Action, Cursor};
use crate::world::World;

/// Starts of one slot, on all nodes together, that may follow the end of all faults: an update and its rollback, by way of a
/// node whose runtime has just come back, and once more for each restart of a container that failed before.
const LIMIT: usize = 8;

/// Checks the starts since the faults have ended.
pub fn check(world: &World, healed: Cursor) -> Check {
    let mut starts = BTreeMap::new();
    for entry in world.history.since(healed) {
        if let Action::Started(id) = &entry.action {
            *starts.entry(&id.slot).or_insert(0) += 1;
        }
    }
    match starts.into_iter().find(|(_, starts)| *starts > LIMIT) {
        Some((slot, starts)) => Err(Violation(format!("{slot} was started {starts} times"))),
        None => Ok(()),
    }
}
