//! No plan gives a node more than it has: at every moment. No node runs more than it has: at rest, since a
//! container that is on its way out overlaps with the one that comes after it on another slot.

use crate::invariants::Violation;
use std::collections::BTreeMap;

use vc_crdt::View;
use vc_protocol::spec::Publish;
use vc_protocol::{NodeId, Resources};

use super::Check;
use crate::world::World;

/// The plan keeps within the capacities, and gives each host port of a node once.
pub(crate) fn plan(view: &View) -> Check {
    let mut promised: BTreeMap<NodeId, Resources> = BTreeMap::new();
    let mut ports = BTreeMap::new();
    for (slot, placement) in &view.plan.placements {
        let Some(wanted) = view.input.services.get(&slot.service) else {
            return Err(Violation(format!("{slot} is planned and nobody wants it")));
        };
        let container = &wanted.spec.container;
        let sum = promised.entry(placement.node).or_default();
        *sum = sum.plus(container.reservation);
        for port in wanted.spec.ports.iter().filter(|port| port.publish == Publish::Node) {
            if let Some(other) = ports.insert((placement.node, port.published), slot) {
                return Err(Violation(format!("{slot} and {other} have the same host port")));
            }
        }
    }
    for (node, sum) in promised {
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

/// What runs keeps within the capacities.
pub(crate) fn running(world: &World) -> Check {
    for (of, node) in world.nodes.iter().enumerate() {
        let containers = node.runtime.containers.values().filter(|it| it.runs());
        let sum = containers.fold(Resources::default(), |sum, it| sum.plus(it.reservation));
        if !sum.fits(node.info.capacity) {
            return Err(Violation(format!("m{of} runs {sum} of {}", node.info.capacity)));
        }
    }
    Ok(())
}
