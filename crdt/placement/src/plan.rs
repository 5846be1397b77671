//! The entry point: claims, then placement, then the moves that follow.

use std::collections::BTreeSet;

use vc_protocol::{NodeId, Slot};

use crate::allocation::NodeAllocation;
use crate::claims::{self, Lost};
use crate::decision::{Move, Plan};
use crate::feasibility::mark_failing_everywhere;
use crate::input::PlanInput;
use crate::order::services;
use crate::rules::Rules;
use crate::scheduler::ServiceScheduler;
use crate::volumes::Volumes;

/// Decides which node runs which slot. Total: every input has a plan, and no input panics. Equal inputs and rules give equal
/// plans, byte for byte. Time: services × nodes, plus slots × nodes for unclaimed slots.
pub fn plan(input: &PlanInput, rules: Rules) -> Plan {
    let mut services = services(input);
    let mut allocations = NodeAllocation::for_nodes(input);
    let mut volumes = Volumes::new(input, &services);
    mark_failing_everywhere(&mut services, &allocations, &volumes);
    let claims = claims::resolve(input, rules, &services, &mut allocations, &mut volumes);
    let mut plan = Plan { input_digest: input.digest(), ..Plan::default() };
    for (index, kept) in claims.kept.iter().enumerate() {
        let service = &services[index];
        let mut scheduler =
            ServiceScheduler::new(rules, index, &services, &allocations, &volumes, kept);
        let waiting = &claims.waiting[index];
        let has_node = |replica: &u32| kept.contains_key(replica) || waiting.contains_key(replica);
        let open: Vec<u32> = service.slots.numbers().filter(|it| !has_node(it)).collect();
        let placed = scheduler.place(&open, &mut allocations, &mut volumes);
        for (&replica, &node) in &placed {
            allocations[node].reserve_ports(service, replica);
        }
        scheduler.record(&allocations, &volumes, kept, &placed, waiting, &mut plan);
        for node in kept.values().map(|it| it.node).chain(placed.values().copied()) {
            allocations[node].charge(service);
        }
    }
    plan.moves = moves(input, &plan, &allocations, claims.lost);
    plan
}

/// Returns how the plan differs from the claims.
fn moves(
    input: &PlanInput,
    plan: &Plan,
    allocations: &[NodeAllocation<'_>],
    lost: Vec<Lost<'_>>,
) -> Vec<Move> {
    let claims = |node: NodeId, slot| {
        input.nodes.get(&node).is_some_and(|node| node.claims.contains_key(slot))
    };
    let mut moves = Vec::new();
    for Lost { slot, node, reason } in lost {
        let allocation = &allocations[node];
        let to = plan.placements.get(slot).map(|placement| placement.node);
        // A node that is down cannot withdraw its claim: that is a move only until the slot has a successor.
        let replaced = match to {
            Some(successor) => claims(successor, slot),
            None => !plan.unplaced.contains_key(slot),
        };
        if allocation.node.up || !replaced {
            moves.push(Move { slot: slot.clone(), from: Some(allocation.id), to, reason });
        }
    }
    let moved: BTreeSet<Slot> = moves.iter().map(|it| it.slot.clone()).collect();
    for (slot, placement) in &plan.placements {
        if !moved.contains(slot) && !claims(placement.node, slot) {
            let (to, reason) = (Some(placement.node), "no node runs it yet".to_owned());
            moves.push(Move { slot: slot.clone(), from: None, to, reason });
        }
    }
    moves.sort_by(|a, b| (&a.slot, a.from).cmp(&(&b.slot, b.from)));
    moves
}
