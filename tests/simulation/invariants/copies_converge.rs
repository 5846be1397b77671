//! At rest all copies of a volume that an instance writes are equal.

use crate::check::{Check, Violation};
use crate::world::World;

/// Checks the copies that the plan wants, where the service runs. What was written where none runs any more stays there until one
/// does, and a node that cannot read the documents gets nothing until it is upgraded.
pub fn check(world: &World) -> Check {
    let acting = world.acting();
    let Some(&first) = acting.first() else { return Ok(()) };
    let view = world.engine(first).view();
    for slot in view.plan.placements.keys() {
        for volume in view.volumes_of(&slot.service) {
            let (Some(home), Some(wanted)) =
                (view.input.volumes.get(&volume), view.copies.get(&volume))
            else {
                continue;
            };
            let working = |index: usize| {
                let copy = world.nodes[index].volumes.copies.get(&volume);
                copy.map(|copy| &copy.working).filter(|content| !content.is_empty())
            };
            let home = world.node_of(*home);
            // Until something is written under a new epoch, what another node wrote last may be later.
            let copy = world.nodes[home].volumes.copies.get(&volume);
            let has_written = copy.is_none_or(|copy| {
                let last = copy.snapshots.last_key_value();
                last.is_none_or(|(id, content)| {
                    copy.written() <= Some(id.epoch) || copy.working != *content
                })
            });
            if !has_written {
                continue;
            }
            for node in wanted {
                let index = world.node_of(*node);
                if acting.contains(&index) && working(index) != working(home) {
                    return Err(Violation(format!(
                        "the copy of {volume} on m{index} differs from that on m{home}"
                    )));
                }
            }
        }
    }
    Ok(())
}
