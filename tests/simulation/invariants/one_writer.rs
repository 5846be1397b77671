//! At any instant instances on at most one node write to a volume.

use vc_protocol::VolumeKey;

use crate::check::{Check, Violation};
use crate::world::World;

/// Returns the nodes with an instance that may write to a volume now: it runs under the epoch under which the data was made ready.
pub fn of(world: &World, volume: &VolumeKey) -> Vec<usize> {
    let writes = |index: &usize| {
        let node = &world.nodes[*index];
        let written = node.volumes.copies.get(volume).and_then(|copy| copy.written());
        let mut containers = node.runtime.containers.values();
        containers.any(|it| it.runs() && it.lease.is_some() && it.lease == written)
    };
    (0..world.nodes.len()).filter(writes).collect()
}

/// Checks these writers of a volume. Those whose clock has stood still do not know that their lease has ended.
pub fn check(world: &World, volume: &VolumeKey, writers: &[usize]) -> Check {
    let mut writers = writers.iter().filter(|&&index| world.counts_leases(index));
    match (writers.next(), writers.next()) {
        (Some(one), Some(other)) => {
            Err(Violation(format!("instances on m{one} and on m{other} write to {volume}")))
        }
        _ => Ok(()),
    }
}
