//! At any instant at most one container of an exclusive slot runs, and each later one on another node has a higher epoch.

use vc_engine::runtime::InstanceId;
use vc_protocol::lease::LEASE_MS;

use crate::check::{Check, Violation};
use crate::marks::Mark;
use crate::world::World;

/// Checks a container that begins to run. Those without a lease may run twice, and those of a node whose clock has stood still: it
/// does not know that its lease has ended.
pub fn started(world: &mut World, index: usize, id: &InstanceId) -> Check {
    let lease = world.nodes[index].runtime.containers.get(id).and_then(|it| it.lease);
    let Some(epoch) = lease else { return Ok(()) };
    if !world.counts_leases(index) {
        return Ok(());
    }
    let others = world.nodes.iter().enumerate().filter(|(other, _)| *other != index);
    for (other, node) in others.filter(|(other, _)| world.counts_leases(*other)) {
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
    let before = world.epochs.get(&id.slot).copied();
    world.mark_if(before.is_some_and(|(_, at)| at != index), Mark::HolderChanged);
    match world.epochs.insert(id.slot.clone(), (epoch, index)) {
        Some((before, at)) if epoch < before || epoch == before && at != index => Err(Violation(
            format!("{} runs on m{index} under epoch {epoch} after {before} on m{at}", id.slot),
        )),
        _ => Ok(()),
    }
}

impl World {
    /// Returns whether a node counts the time of its leases right: its clock runs, and has not stood still a short time ago. Where a
    /// disk has lost what its node has promised as a voter, nothing is expected of leases any more.
    pub fn counts_leases(&self, index: usize) -> bool {
        let started = self.watch.started_clocks.get(&index);
        !self.watch.lost_votes
            && !self.watch.stopped_clocks.contains(&index)
            && started.is_none_or(|&at| self.now > at + 2 * LEASE_MS)
    }
}
