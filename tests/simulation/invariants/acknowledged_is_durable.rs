//! An acknowledged change is durable, unless a later or concurrent one overwrites it. Nothing is expected of a change that no disk
//! has any more: disks with a fault have lost it, or the only node that had it was removed before it could pass it on, and was
//! turned off. A node that knows that it was removed takes no command ([`World::handle`]).

use std::collections::BTreeMap;

use vc_protocol::change::generation_of;

use crate::check::{Check, Violation};
use crate::operators::{Kept, Operation, Written, entries};
use crate::world::World;

/// Checks that every change written to one disk is on every disk, byte by byte, unless a checkpoint replaced it, and that
/// every entry of the cluster document has a value written by one of its last writers: those whose write no other writer
/// had seen. Of a change that all disks have lost, a checkpoint that contains it is enough: no node can get it again, and none
/// lacks what it wrote.
pub fn check(world: &World) -> Check {
    let operations = world.operators.operations.values();
    let possible: Vec<&Operation> = operations
        .clone()
        .filter(|operation| operation.persisted || operation.is_unknown())
        .collect();
    let done: Vec<&Operation> =
        possible.iter().copied().filter(|operation| !operation.is_unknown()).collect();
    for operation in operations.filter(|operation| operation.acknowledged()) {
        if operation.change.is_some() && !operation.persisted {
            return Err(Violation(format!(
                "acknowledged before it was written to disk: {:?}",
                operation.mutation
            )));
        }
    }
    for index in world.running() {
        let disk = &world.nodes[index].disk;
        for operation in &done {
            let Some(written) = &operation.change else { continue };
            let Written { generation, actor, seq, change } = written;
            let versions = &world.engine(index).replica().versions().cluster;
            let has = disk.holds(change)
                || operation.kept == Kept::InCheckpoint && disk.contains(written);
            if versions.contains_key(generation) && !has {
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
        for (key, writes) in last_writes(&possible, &done) {
            let value = entries.get(key);
            let certain = writes.iter().filter(|write| !write.is_unknown);
            let may_be_deleted = writes.iter().any(|it| it.is_unknown && it.value.is_none());
            let put = certain.clone().any(|write| write.value.is_some()) && !may_be_deleted;
            let mut candidates: Vec<_> = writes.iter().map(|write| write.value).collect();
            if certain.count() == 0 {
                candidates.push(None);
            }
            // Automerge prefers a put over a concurrent deletion; a later generation counts before the one before it.
            let one_generation = writes.iter().all(|it| it.generation == writes[0].generation);
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

/// A write of an entry that no other is known to overwrite.
struct LastWrite<'a> {
    generation: u64,
    value: Option<&'a String>,
    is_unknown: bool,
}

/// Returns for each entry what its last writers may have written: what was `possible` and not overwritten by what is `done`.
fn last_writes<'a>(
    possible: &[&'a Operation],
    done: &[&Operation],
) -> BTreeMap<&'a String, Vec<LastWrite<'a>>> {
    let overwrites = |later: &Operation, earlier: &Operation| {
        let Some(Written { generation, actor, seq, .. }) = &earlier.change else { return false };
        match later.known.get(generation) {
            Some(actors) => actors.get(actor).is_some_and(|known| known >= seq),
            // All members had it when its generation was dropped.
            None => *generation < generation_of(&later.known),
        }
    };
    let mut last: BTreeMap<&String, Vec<LastWrite<'_>>> = BTreeMap::new();
    for operation in possible {
        for (key, value) in &operation.writes {
            let mut later = done.iter().filter(|later| later.writes.contains_key(key));
            if !later.any(|later| overwrites(later, operation)) {
                let generation = operation.change.as_ref().map_or(0, |it| it.generation);
                let (value, is_unknown) = (value.as_ref(), operation.is_unknown());
                last.entry(key).or_default().push(LastWrite { generation, value, is_unknown });
            }
        }
    }
    last
}
