//! No plan reserves more than a node's capacity, at any time. No node runs more than its capacity at rest; before, a
//! container that is stopping overlaps with the one that gets its resources. On a node that holds the documents it goes on to: such a
//! node stops nothing. What an update frees counts as free from its beginning, also where the version before goes on, because the new one
//! waits for something.

use std::collections::BTreeMap;

use vc_crdt::View;
use vc_protocol::spec::Publish;
use vc_protocol::{NodeId, Resources};

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
    for index in world.acting() {
        let node = &world.nodes[index];
        let view = world.engine(index).view();
        let containers = node.runtime.containers.iter().filter(|(_, it)| it.runs());
        let reserved = containers.map(|(id, it)| {
            let demand = view.input.services.get(&id.slot.service);
            let is_updated = view.updates.contains_key(&id.slot.service);
            let goal = demand.filter(|_| !is_updated && view.is_former(id));
            goal.map_or(it.reservation, |demand| {
                let goal = demand.spec.container.reservation;
                Resources {
                    cpu_millis: it.reservation.cpu_millis.min(goal.cpu_millis),
                    memory_bytes: it.reservation.memory_bytes.min(goal.memory_bytes),
                }
            })
        });
        let sum = reserved.fold(Resources::default(), Resources::plus);
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
