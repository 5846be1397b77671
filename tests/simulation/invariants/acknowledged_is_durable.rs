//! An acknowledged change is durable, unless a later or concurrent one overwrites it.

use std::collections::BTreeMap;

use crate::check::{Check, Violation};
use crate::operators::{Operation, entries};
use crate::world::World;

/// Checks that every change written to one disk is on every disk, byte by byte, and that every entry of the cluster
/// document has a value written by one of its last writers: those whose write no other writer had seen.
pub(crate) fn check(world: &World) -> Check {
    let operations = world.operators.operations.values();
    let done: Vec<&Operation> =
        operations.clone().filter(|operation| operation.persisted).collect();
    for operation in operations.filter(|operation| operation.acknowledged()) {
        if operation.change.is_some() && !operation.persisted {
            return Err(Violation(format!(
                "acknowledged before it was written to disk: {:?}",
                operation.mutation
            )));
        }
    }
    for index in world.running() {
        for operation in &done {
            let Some((actor, seq, change)) = &operation.change else { continue };
            if !world.nodes[index].disk.holds(change) {
                return Err(Violation(format!(
                    "m{index} lacks {actor} {seq}: {:?}",
                    operation.mutation
                )));
            }
        }
        let entries = entries(world.engine(index).replica().cluster());
        for (key, candidates) in last_writes(&done) {
            let value = entries.get(key);
            let put = candidates.iter().any(|candidate| candidate.is_some());
            // Automerge prefers a put over a concurrent deletion.
            let holds = candidates.contains(&value) && (!put || value.is_some());
            if !holds {
                return Err(Violation(format!(
                    "m{index} has {key} = {value:?}, not one of {candidates:?}"
                )));
            }
        }
    }
    Ok(())
}

/// Returns for each entry the values that its last writers wrote.
fn last_writes<'a>(done: &[&'a Operation]) -> BTreeMap<&'a String, Vec<Option<&'a String>>> {
    let overwrites = |later: &Operation, earlier: &Operation| {
        let Some((actor, seq, _)) = &earlier.change else { return false };
        later.known.get(actor).is_some_and(|known| known >= seq)
    };
    let mut last: BTreeMap<&String, Vec<Option<&String>>> = BTreeMap::new();
    for operation in done {
        for (key, value) in &operation.writes {
            if !done
                .iter()
                .any(|later| later.writes.contains_key(key) && overwrites(later, operation))
            {
                last.entry(key).or_default().push(value.as_ref());
            }
        }
    }
    last
}
