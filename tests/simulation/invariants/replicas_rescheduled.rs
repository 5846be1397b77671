//! Within a bound after a node's death, every slot that fits on a remaining node runs on one.

use super::{is_exclusive, waits_for_unplaced};
use crate::check::{Check, Violation};
use crate::world::World;
use vc_protocol::{Millis, NodeId};

/// Milliseconds from a death, under moderate message loss, until all remaining nodes have detected it and requested the
/// actions of their runtimes.
pub const BOUND: Millis = 5_000;

/// Checks that the plans of all nodes of `side` agree and place slots on `side` only, and that these slots run. Plans omit
/// only slots that fit nowhere, which `no_overcommit` and the placement's own tests cover.
pub fn check(world: &World, side: &[usize]) -> Check {
    core(world, side, side)
}

/// The same, by the plans of the nodes of `core`, which is a part of `side`. Without a majority of the voters, exclusive slots wait.
pub fn core(world: &World, core: &[usize], side: &[usize]) -> Check {
    for &index in core {
        let view = world.engine(index).view();
        let is_here = |node: &&NodeId| core.contains(&world.node_of(**node));
        let can_lease = view
            .cluster
            .voter_set()
            .is_some_and(|set| set.voters.iter().filter(is_here).count() >= set.majority());
        for (slot, placement) in &view.plan.placements {
            let on = world.node_of(placement.node);
            if !side.contains(&on) {
                return Err(Violation(format!("m{index} still places {slot} on m{on}")));
            }
            let waits_for_lease = !can_lease && is_exclusive(&view, slot);
            // A run of a schedule begins where most voters are, if at all.
            let is_scheduled = view.spec(&slot.service).is_some_and(|it| it.schedule.is_some());
            if is_scheduled || waits_for_unplaced(&view, slot) || waits_for_lease {
                continue;
            }
            let digest = view.desired_digest(&slot.service).expect("the service is deployed");
            let mut containers = world.nodes[on].runtime.containers.iter();
            if !containers.any(|(id, it)| id.slot == *slot && id.digest == digest && it.runs()) {
                return Err(Violation(format!("{slot} does not run on m{on} yet")));
            }
        }
    }
    Ok(())
}

impl World {
    /// Returns the milliseconds after a death within which all placeable slots run: [`BOUND`] and the longest start.
    pub fn rescheduling_bound(&self) -> Millis {
        BOUND + self.runtime_faults.pull.1 + self.runtime_faults.start.1
    }
}
