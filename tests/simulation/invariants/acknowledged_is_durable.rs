//! An acknowledged change is durable, unless a later or concurrent one overwrites it.

use crate::invariants::Violation;
use std::collections::BTreeMap;

use super::Check;
use crate::operators::{Operation, entries};
use crate::world::World;

/// Every change that came to a disk is on every disk, byte by byte; and every entry of the cluster document is what one
/// of its last writers wrote: of those whom no other writer knew of.
pub(crate) fn check(world: &World) -> Check {
    let operations = world.operators.operations.values();
    let done: Vec<&Operation> =
        operations.clone().filter(|operation| operation.persisted).collect();
    for operation in operations.filter(|operation| operation.acknowledged()) {
        if operation.change.is_some() && !operation.persisted {
            return Err(Violation(format!(
                "acknowledged before it was on disk: {:?}",
                operation.mutation
            )));
        }
    }
    for of in world.running() {
        for operation in &done {
            let Some((actor, seq, change)) = &operation.change else { continue };
            if !world.nodes[of].disk.holds(change) {
                return Err(Violation(format!(
                    "m{of} lacks {actor} {seq}: {:?}",
                    operation.mutation
                )));
            }
        }
        let entries = entries(world.engine(of).replica().cluster());
        for (key, candidates) in last_writes(&done) {
            let value = entries.get(key);
            let put = candidates.iter().any(|wanted| wanted.is_some());
            // Automerge lets a put win over a deletion of the same moment.
            let holds = candidates.contains(&value) && (!put || value.is_some());
            if !holds {
                return Err(Violation(format!(
                    "m{of} has {key} = {value:?}, not one of {candidates:?}"
                )));
            }
        }
    }
    Ok(())
}

/// For each entry, what its last writers wrote.
fn last_writes<'a>(done: &[&'a Operation]) -> BTreeMap<&'a String, Vec<Option<&'a String>>> {
    let overwrites = |by: &Operation, of: &Operation| {
        let Some((actor, seq, _)) = &of.change else { return false };
        by.knew.get(actor).is_some_and(|known| known >= seq)
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
