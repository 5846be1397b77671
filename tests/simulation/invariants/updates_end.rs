//! At rest every update has completed or failed, and every instance is available, but where a node that holds the documents runs it.

use std::collections::BTreeSet;

use vc_protocol::NodeId;

use super::waits_for_unplaced;
use crate::check::{Check, Violation};
use crate::world::World;

/// Checks that no update is in progress and every placed slot has an available instance.
pub fn check(world: &World) -> Check {
    let Some(&first) = world.acting().first() else { return Ok(()) };
    let view = world.engine(first).view();
    let acting: BTreeSet<NodeId> =
        world.acting().into_iter().map(|index| world.nodes[index].id).collect();
    let placements = || view.plan.placements.iter();
    for (slot, placement) in placements().filter(|(_, it)| acting.contains(&it.node)) {
        let mut claims = view.claims_on(slot).filter(|(node, ..)| *node == placement.node);
        if !waits_for_unplaced(&view, slot) && !claims.any(|(.., claim)| claim.available) {
            return Err(Violation(format!("{slot} is not available")));
        }
    }
    for (key, record) in &view.cluster.services {
        let mut slots = placements().filter(|(slot, _)| slot.service == *key);
        let moves = slots.clone().all(|(slot, placement)| {
            acting.contains(&placement.node) && !waits_for_unplaced(&view, slot)
        });
        if slots.next().is_some()
            && moves
            && record.previous.is_some()
            && !view.updates.contains_key(key)
        {
            return Err(Violation(format!("the update of {key} has not ended")));
        }
    }
    Ok(())
}
