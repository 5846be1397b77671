//! What instances have written to a volume is kept while one node is there that has had it: in the volume, in a snapshot, or put
//! aside.

use crate::check::{Check, Violation};
use crate::world::World;

/// Checks all writes at rest.
pub fn check(world: &World) -> Check {
    let is_off = |index: usize| world.nodes[index].off;
    for (number, volume, nodes) in world.written.all() {
        let has = |index: usize| {
            let copy = world.nodes[index].volumes.copies.get(volume);
            copy.is_some_and(|copy| copy.has(number))
        };
        let mut present = world.present().into_iter();
        if !nodes.iter().all(|&index| is_off(index)) && !present.any(has) {
            return Err(Violation(format!(
                "write {number} to {volume} is lost; {nodes:?} have had it"
            )));
        }
    }
    Ok(())
}
