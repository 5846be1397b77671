//! At any instant at most one container of an exclusive slot runs, and each later one on another node has a higher epoch.

use vc_engine::runtime::InstanceId;

use crate::check::{Check, Violation};
use crate::world::World;

/// Checks a container that begins to run. Those without a lease may run twice.
pub fn started(world: &mut World, index: usize, id: &InstanceId) -> Check {
    let lease = world.nodes[index].runtime.containers.get(id).and_then(|it| it.lease);
    let Some(epoch) = lease else { return Ok(()) };
    for (other, node) in world.nodes.iter().enumerate().filter(|(other, _)| *other != index) {
        let containers = &node.runtime.containers;
        let twice = containers.iter().find(|(it, container)| {
            it.slot == id.slot && container.lease.is_some() && container.runs()
        });
        if let Some((_, container)) = twice {
            return Err(Violation(format!(
                "at {} {} runs on m{other} under epoch {:?} and on m{index} under {epoch}",
                world.now, id.slot, container.lease
            )));
        }
    }
    match world.epochs.insert(id.slot.clone(), (epoch, index)) {
        Some((before, at)) if epoch < before || epoch == before && at != index => Err(Violation(
            format!("{} runs on m{index} under epoch {epoch} after {before} on m{at}", id.slot),
        )),
        _ => Ok(()),
    }
}
