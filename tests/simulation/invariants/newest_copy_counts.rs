//! A node begins to write a volume with the newest snapshot that a node has which it can reach, unless it has written later itself.

use vc_protocol::{Millis, VolumeKey};

use crate::check::{Check, Violation};
use crate::world::World;

/// Milliseconds after a fault in which nodes may not know of each other's snapshots.
const AFTERMATH: Millis = 10_000;

/// Checks what a node has that is about to begin.
pub fn check(world: &World, index: usize, volume: &VolumeKey) -> Check {
    let calm = |node: usize| world.now >= world.nodes[node].disturbed + AFTERMATH;
    if world.network.is_cut() || !world.present().into_iter().all(calm) {
        return Ok(());
    }
    let copy = |node: usize| world.nodes[node].volumes.copies.get(volume);
    let written = copy(index).and_then(|copy| copy.written());
    let up = world.up(index).into_iter().filter(|&node| world.is_awake(node));
    let known = up.filter_map(|node| {
        let id =
            world.engine(index).view().nodes.get(&world.nodes[node].id)?.copy(volume)?.snapshot?;
        Some((id, copy(node)?.snapshots.get(&id)?))
    });
    let Some((id, content)) = known.max_by_key(|(id, _)| *id) else { return Ok(()) };
    let has = |number: &u64| copy(index).is_some_and(|copy| copy.working.contains(number));
    match content.iter().find(|number| !has(number)) {
        Some(number) if written.is_none_or(|it| it < id.epoch) => Err(Violation(format!(
            "m{index} begins to write {volume} without write {number}, which snapshot {id} has"
        ))),
        _ => Ok(()),
    }
}
