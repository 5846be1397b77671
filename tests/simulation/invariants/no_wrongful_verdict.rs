//! Without a fault no node is considered down: neither busy operators nor lost messages, clocks that are set or run a tenth too
//! fast or too slow are a reason.

use vc_protocol::Millis;

use crate::check::{Check, Violation};
use crate::world::World;

/// Milliseconds after a fault of a node in which others may consider it down, and it may be wrong about others.
const AFTERMATH: Millis = 30_000;

/// Checks that node `index`, which considers `victim` down now, has a reason: `victim` is down, or one of both had a fault a
/// short time ago.
pub fn check(world: &World, index: usize, victim: usize) -> Check {
    let had_fault = |node: usize| world.now < world.nodes[node].disturbed + AFTERMATH;
    let is_cut = world.network.is_cut();
    if !world.is_awake(victim) || world.knows_left(index, victim) || is_cut {
        return Ok(());
    }
    // Observers decide: each of them may have had the fault.
    if world.nodes[index].slowness > 0 || world.present().into_iter().any(had_fault) {
        return Ok(());
    }
    Err(Violation(format!("m{index} considers m{victim} down, and none had a fault")))
}
