//! An instance that writes a volume under a lease begins to run when the data is there, made ready under that lease.

use vc_engine::runtime::InstanceId;

use crate::check::{Check, Violation};
use crate::world::World;

/// Checks an instance that begins to run.
pub fn check(world: &World, index: usize, id: &InstanceId) -> Check {
    let node = &world.nodes[index];
    let Some(container) = node.runtime.containers.get(id) else { return Ok(()) };
    for volume in container.writes.iter().filter(|_| container.lease.is_some()) {
        let written = node.volumes.copies.get(volume).and_then(|copy| copy.written());
        if written < container.lease {
            return Err(Violation(format!(
                "{id} runs on m{index} under epoch {:?}, and {volume} is of epoch {written:?}",
                container.lease
            )));
        }
    }
    Ok(())
}
