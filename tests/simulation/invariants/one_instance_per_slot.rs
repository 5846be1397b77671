//! At rest each placed slot runs its current version on its node, and nothing else runs, but on nodes that hold the documents. A slot
//! may wait forever for a dependency that cannot be placed.

use std::collections::BTreeMap;

use vc_engine::rollout;
use vc_engine::runtime::{InstanceId, Phase};

use super::waits_for_unplaced;
use crate::check::{Check, Violation};
use crate::world::World;

/// Checks that the running containers are those of the plan.
pub fn check(world: &World) -> Check {
    let Some(&first) = world.acting().first() else { return Ok(()) };
    let view = world.engine(first).view();
    let mut planned: BTreeMap<InstanceId, usize> = BTreeMap::new();
    for (slot, placement) in &view.plan.placements {
        let digest = rollout::version(&view, slot).expect("the slot is placed");
        planned.insert(InstanceId { slot: slot.clone(), digest }, world.node_of(placement.node));
    }
    // A node that holds the documents keeps the versions that it runs.
    for (id, &index) in planned.iter().filter(|(_, index)| world.acting().contains(index)) {
        match world.nodes[index].runtime.containers.get(id) {
            Some(it) if it.runs() && !it.removing => {}
            // Nothing is left to do for it but to start it.
            Some(it)
                if it.phase == Some(Phase::Prepared) && waits_for_unplaced(&view, &id.slot) => {}
            None if waits_for_unplaced(&view, &id.slot) => {}
            other => {
                return Err(Violation(format!(
                    "{id} should run on m{index}: {:?}",
                    other.map(|it| &it.phase)
                )));
            }
        }
    }
    // Containers of a node whose process is down, or that holds the documents, keep running.
    for index in world.acting() {
        // Those of runs that have ended stay for their logs.
        for id in world.nodes[index].runtime.containers.keys().filter(|id| !view.has_ended(id)) {
            // A drained node keeps instances that fit on no other node.
            let draining = view.cluster.drained.contains_key(&world.nodes[index].id);
            let stranded =
                || view.plan.unplaced.contains_key(&id.slot) || waits_for_unplaced(&view, &id.slot);
            // An update whose new instances wait forever keeps the old ones, one for each slot, also where the slot moves.
            let updating = || {
                let others = world.acting().into_iter().filter(|&other| other != index);
                let runs = |other: usize| {
                    let containers = &world.nodes[other].runtime.containers;
                    containers.iter().any(|(it, container)| it.slot == id.slot && container.runs())
                };
                let is_placed = view.plan.placements.contains_key(&id.slot);
                is_placed && waits_for_unplaced(&view, &id.slot) && !others.into_iter().any(runs)
            };
            if planned.get(id) != Some(&index) && !(draining && stranded()) && !updating() {
                return Err(Violation(format!(
                    "{id} is on m{index}, which the plan does not assign to it"
                )));
            }
        }
    }
    Ok(())
}
