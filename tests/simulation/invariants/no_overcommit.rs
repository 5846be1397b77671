//! No plan reserves more than a node's capacity, at any time. No node runs more than its capacity at rest; before, a
//! container that is stopping overlaps with the one that gets its resources.

use std::collections::BTreeMap;

use vc_crdt::View;
use vc_protocol::spec::Publish;
use vc_protocol::{InstanceId, NodeId, Resources};

use super::waits_for_unplaced;
use crate::check::{Check, Violation};
use crate::world::World;

/// Checks that a plan keeps within all capacities and assigns each host port of a node once.
pub fn plan(view: &View) -> Check {
    let mut reserved: BTreeMap<NodeId, Resources> = BTreeMap::new();
    let mut ports = BTreeMap::new();
    for (slot, placement) in &view.plan.placements {
        let Some(demand) = view.input.services.get(&slot.service) else {
            return Err(Violation(format!("{slot} is placed and its service is not deployed")));
        };
        let container = &demand.spec.container;
        let sum = reserved.entry(placement.node).or_default();
        *sum = sum.plus(container.reservation);
        for port in demand.spec.ports.iter().filter(|port| port.publish == Publish::Node) {
            if let Some(other) = ports.insert((placement.node, port.published), slot) {
                return Err(Violation(format!(
                    "{slot} and {other} are assigned the same host port"
                )));
            }
        }
    }
    for (node, sum) in reserved {
        let capacity = view.input.nodes[&node].capacity;
        if !sum.fits(capacity) {
            return Err(Violation(format!(
                "{} is overcommitted: {sum} of {capacity}",
                view.name(node)
            )));
        }
    }
    Ok(())
}

/// Checks that running containers keep within all capacities.
pub fn running(world: &World) -> Check {
    let Some(&first) = world.acting().first() else { return Ok(()) };
    let view = world.engine(first).view();
    for (index, node) in world.nodes.iter().enumerate() {
        // A slot that moves during an update is placed by the new version and runs the one before until its turn comes, which
        // it never does if the new version waits for a dependency that cannot be placed.
        let ends = |id: &InstanceId| {
            !view.cluster.services.contains_key(&id.slot.service)
                || !waits_for_unplaced(&view, &id.slot)
        };
        let containers = node.runtime.containers.iter().filter(|(id, it)| it.runs() && ends(id));
        let sum = containers.fold(Resources::default(), |sum, (_, it)| sum.plus(it.reservation));
        if !sum.fits(node.info.capacity) {
            let of = node.runtime.containers.iter().filter(|(_, it)| it.runs());
            let of: Vec<String> = of.map(|(id, it)| format!("{id} {}", it.reservation)).collect();
            return Err(Violation(format!(
                "m{index} runs {sum} of {}: {of:?}",
                node.info.capacity
            )));
        }
    }
    Ok(())
}
