//! An acknowledged change is durable, unless a later or concurrent one overwrites it.

use std::collections::BTreeMap;

use vc_protocol::change::generation_of;

use crate::check::{Check, Violation};
use crate::operators::{Operation, Written, entries};
use crate::world::World;

/// Checks that every change written to one disk is on every disk, byte by byte, unless a checkpoint replaced it, and that
/// every entry of the cluster document has a value written by one of its last writers: those whose write no other writer
/// had seen.
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
            let Some(Written { generation, actor, seq, change }) = &operation.change else {
                continue;
            };
            let versions = &world.engine(index).replica().versions().cluster;
            if versions.contains_key(generation) && !world.nodes[index].disk.holds(change) {
                return Err(Violation(format!(
                    "m{index} lacks {actor} {seq}: {:?}",
                    operation.mutation
                )));
            }
        }
        if world.holds(index) {
            continue;
        }
        let entries = entries(world.engine(index).replica().cluster());
        for (key, writes) in last_writes(&done) {
            let value = entries.get(key);
            let candidates: Vec<_> = writes.iter().map(|(_, value)| *value).collect();
            let put = candidates.iter().any(|candidate| candidate.is_some());
            // Automerge prefers a put over a concurrent deletion; a later generation counts before the one before it.
            let one_generation = writes.iter().all(|(generation, _)| *generation == writes[0].0);
            let holds = candidates.contains(&value) && (!put || value.is_some() || !one_generation);
            if !holds {
                return Err(Violation(format!(
                    "m{index} has {key} = {value:?}, not one of {candidates:?}"
                )));
            }
        }
    }
    Ok(())
}

/// Returns for each entry the values that its last writers wrote, with the generations.
fn last_writes<'a>(done: &[&'a Operation]) -> BTreeMap<&'a String, Vec<(u64, Option<&'a String>)>> {
    let overwrites = |later: &Operation, earlier: &Operation| {
        let Some(Written { generation, actor, seq, .. }) = &earlier.change else { return false };
        match later.known.get(generation) {
            Some(actors) => actors.get(actor).is_some_and(|known| known >= seq),
            // All members had it when its generation was dropped.
            None => *generation < generation_of(&later.known),
        }
    };
    let mut last: BTreeMap<&String, Vec<(u64, Option<&String>)>> = BTreeMap::new();
    for operation in done {
        for (key, value) in &operation.writes {
            if !done
                .iter()
                .any(|later| later.writes.contains_key(key) && overwrites(later, operation))
            {
                let generation = operation.change.as_ref().map_or(0, |it| it.generation);
                last.entry(key).or_default().push((generation, value.as_ref()));
            }
        }
    }
    last
}
