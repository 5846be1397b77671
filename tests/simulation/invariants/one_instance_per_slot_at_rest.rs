//! At rest each slot that has a node runs there, in its current version, and nowhere else; nothing else runs. What depends on a
//! service that has no place may wait for ever, unless it was started before.

use crate::invariants::Violation;
use std::collections::BTreeMap;

use vc_engine::rollout;
use vc_engine::runtime::InstanceId;

use super::{Check, waits_for_unplaced};
use crate::world::World;

/// What runs is what the plan says.
pub(crate) fn check(world: &World) -> Check {
    let Some(&first) = world.running().first() else { return Ok(()) };
    let view = world.engine(first).view();
    let mut wanted: BTreeMap<InstanceId, usize> = BTreeMap::new();
    for (slot, placement) in &view.plan.placements {
        let digest = rollout::version(&view, slot).expect("planned");
        wanted.insert(InstanceId { slot: slot.clone(), digest }, world.node_of(placement.node));
    }
    for (id, &of) in &wanted {
        match world.nodes[of].runtime.containers.get(id) {
            Some(it) if it.runs() && !it.removing => {}
            None if waits_for_unplaced(&view, &id.slot) => {}
            other => {
                return Err(Violation(format!(
                    "{id} should run on m{of}: {:?}",
                    other.map(|it| &it.phase)
                )));
            }
        }
    }
    // Containers of a node whose process is down keep running.
    for of in world.running() {
        for id in world.nodes[of].runtime.containers.keys() {
            // A drained node keeps what no other takes over.
            let draining = view.cluster.drained.contains_key(&world.nodes[of].id);
            let stranded =
                || view.plan.unplaced.contains_key(&id.slot) || waits_for_unplaced(&view, &id.slot);
            if wanted.get(id) != Some(&of) && !(draining && stranded()) {
                return Err(Violation(format!("{id} is on m{of}, which is not its place")));
            }
        }
    }
    Ok(())
}
