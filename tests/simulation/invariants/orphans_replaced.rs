//! Within a bound after a death, every slot that fits on a survivor runs on one.

use super::{Check, waits_for_unplaced};
use crate::invariants::Violation;
use crate::world::World;
use vc_protocol::Millis;

/// From a death under moderate loss until the last survivor has agreed on it, and the actions are out.
pub(crate) const BOUND: Millis = 5_000;

/// All slots of the plan of `side` run on `side`, and `side` agrees on it. The plan leaves out a slot only where it
/// fits nowhere, which `no_overcommit` and the placement's own tests cover.
pub(crate) fn check(world: &World, side: &[usize]) -> Check {
    for &of in side {
        let view = world.engine(of).view();
        for (slot, placement) in &view.plan.placements {
            let on = world.node_of(placement.node);
            if !side.contains(&on) {
                return Err(Violation(format!("m{of} still has {slot} on m{on}")));
            }
            if waits_for_unplaced(&view, slot) {
                continue;
            }
            let digest = view.desired_digest(&slot.service).expect("planned");
            let mut there = world.nodes[on].runtime.containers.iter();
            if !there.any(|(id, it)| id.slot == *slot && id.digest == digest && it.runs()) {
                return Err(Violation(format!("{slot} does not run on m{on} yet")));
            }
        }
    }
    Ok(())
}

impl World {
    /// How long after a death everything that can run must run: the bound, and what a start takes at most.
    pub(crate) fn replacement_bound(&self) -> Millis {
        BOUND + self.runtime_faults.pull.1 + self.runtime_faults.start.1
    }
}
