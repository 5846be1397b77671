//! When a node dies only its slots are rescheduled, and slots start that waited for room beside a volume on it; a joining or
//! returning node moves nothing.

use std::collections::BTreeSet;

use vc_protocol::{Slot, VolumeKey};

use crate::check::{Check, Violation};
use crate::history::{Action, Cursor};
use crate::world::World;

/// Returns the slots placed on node `index`, by the plan of a running node.
pub fn slots_of(world: &World, index: usize) -> BTreeSet<Slot> {
    let by = world.running()[0];
    world.engine(by).view().plan.slots_of(world.nodes[index].id).cloned().collect()
}

/// Returns the slots that the death of node `index` may start elsewhere. They are placed on it, or no node can take them while
/// it is the home of a volume that they mount and no other node can be read: they fit where the volume goes then.
pub fn affected_by_death(world: &World, index: usize) -> BTreeSet<Slot> {
    let view = world.engine(world.running()[0]).view();
    let id = world.nodes[index].id;
    let is_there = |volume: &VolumeKey| {
        view.input.volumes.get(volume) == Some(&id) && !view.input.readable.contains_key(volume)
    };
    let waits = |slot: &&Slot| view.volumes_of(&slot.service).any(|volume| is_there(&volume));
    let waiting = view.plan.unplaced.keys().filter(waits);
    view.plan.slots_of(id).chain(waiting).cloned().collect()
}

/// Checks that since `cursor` only instances of these slots were started, each at most once, and none was stopped.
pub fn only(world: &World, cursor: Cursor, slots: &BTreeSet<Slot>) -> Check {
    starts_and_stops(world, cursor, slots, &BTreeSet::new())
}

/// The same, but instances of these slots may also stop: a drained node kept them because no other had room.
pub fn only_stranded(world: &World, cursor: Cursor, slots: &BTreeSet<Slot>) -> Check {
    starts_and_stops(world, cursor, slots, slots)
}

fn starts_and_stops(
    world: &World,
    cursor: Cursor,
    slots: &BTreeSet<Slot>,
    stopping: &BTreeSet<Slot>,
) -> Check {
    let mut started = BTreeSet::new();
    for entry in world.history.since(cursor) {
        let index = entry.node;
        match &entry.action {
            Action::Started(id) if !slots.contains(&id.slot) => {
                return Err(Violation(format!("{id} was started on m{index}")));
            }
            Action::Started(id) if !started.insert(id.clone()) => {
                return Err(Violation(format!("{id} was started twice")));
            }
            Action::Stopped(id) if stopping.contains(&id.slot) => {}
            Action::Stopped(id) => return Err(Violation(format!("{id} was stopped on m{index}"))),
            _ => {}
        }
    }
    Ok(())
}

/// Checks that since `cursor` no instance was started or stopped.
pub fn none(world: &World, cursor: Cursor) -> Check {
    only(world, cursor, &BTreeSet::new())
}
