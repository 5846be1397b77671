//! No run of a schedule begins twice for one time, whatever dies or is cut off. What a disk has lost may run again, and so may a run that
//! was beginning while voters were removed.

use std::collections::BTreeMap;

use crate::check::{Check, Violation};
use crate::history::{Action, Cursor};
use crate::kind::Kind;
use crate::services::SCHEDULED;
use crate::world::World;

/// Checks the starts of runs since `begun`. Returns how many runs there were.
pub fn check(world: &World, begun: Cursor) -> Result<usize, Violation> {
    let mut starts: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for entry in world.history.since(begun) {
        if let Action::Started(id) = &entry.action
            && id.slot.service.to_string() == SCHEDULED
        {
            starts.entry(id.slot.replica).or_default().push(entry.node);
        }
    }
    let is_exempt = |kind: &Kind| kind.loses_writes() || *kind == Kind::Leave;
    if !world.kinds.iter().any(is_exempt) {
        at_most_one(&starts)?;
    }
    Ok(starts.len())
}

fn at_most_one(starts: &BTreeMap<u32, Vec<usize>>) -> Check {
    match starts.iter().find(|(_, nodes)| nodes.len() > 1) {
        Some((time, nodes)) => {
            Err(Violation(format!("the run of {time} began more than once, on {nodes:?}")))
        }
        None => Ok(()),
    }
}
