//! Conflict resolution between claims. All services are resolved before anything is placed, so that no placement
//! displaces a claim.

use std::collections::BTreeMap;

use vc_protocol::Slot;

use crate::allocation::NodeAllocation;
use crate::feasibility::{
    Infeasible, check_fixed, check_new, check_node, check_resources, check_suited, check_volumes,
};
use crate::input::{ClaimView, PlanInput};
use crate::order::Service;
use crate::ranking::{Contender, loss_reason, rank};
use crate::rules::Rules;
use crate::slots::Slots;
use crate::volumes::Volumes;

/// What claims each slot: one map per service, by replica.
type PerSlot<T> = Vec<BTreeMap<u32, Vec<T>>>;

/// The result for all claims. Nodes are indexes into the allocations.
pub(crate) struct Claims<'a> {
    /// The slots that keep a node, by replica; one map per service.
    pub(crate) kept: Vec<BTreeMap<u32, Kept>>,
    /// The slots without a node that go nowhere, by replica, with the nodes that are down and keep them; one map per service.
    pub(crate) waiting: PerSlot<usize>,
    /// The claims that have to be given up.
    pub(crate) lost: Vec<Lost<'a>>,
}

/// The node of a claimed slot.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) node: usize,
    /// The node that claims the slot and hands it over to `node` because of a move order.
    pub(crate) from: Option<usize>,
}

/// A claim that has to be given up.
pub(crate) struct Lost<'a> {
    pub(crate) slot: &'a Slot,
    /// The claiming node.
    pub(crate) node: usize,
    /// Display text with that node as the subject.
    pub(crate) reason: String,
}

/// Resolves all claims and reserves the resources of those that are kept.
///
/// In the order of services and replicas, each slot keeps its node if it fits beside the claims kept before it. So a
/// reservation that grew, or two sides of a partition that meet again, displace only the services scheduled last. Kept
/// claims also assign volumes that have no node yet. Move orders are applied at the end.
pub(crate) fn resolve<'a>(
    input: &PlanInput,
    rules: Rules,
    services: &[Service<'a>],
    allocations: &mut [NodeAllocation<'a>],
    volumes: &mut Volumes<'_>,
) -> Claims<'a> {
    let mut claims = Claims {
        kept: vec![BTreeMap::new(); services.len()],
        waiting: vec![BTreeMap::new(); services.len()],
        lost: Vec::new(),
    };
    let (mut contenders, awaited) =
        contenders(rules, services, allocations, volumes, &mut claims.lost);
    for (index, service) in services.iter().enumerate() {
        for (replica, mut of_slot) in std::mem::take(&mut contenders[index]) {
            if of_slot.len() > 1 {
                rank(rules, service, services, allocations, &claims.kept[index], &mut of_slot);
                rank_move_target_last(input, allocations, &mut of_slot);
            }
            let mut winner: Option<&Contender<'_>> = None;
            for contender in &of_slot {
                let Contender { slot, node, .. } = *contender;
                let (allocation, bytes) =
                    (&mut allocations[node], volumes.unassigned_bytes(service));
                let fits = check_volumes(service, allocation, volumes)
                    .and_then(|()| check_resources(service, allocation, bytes));
                let reason = match (winner, fits) {
                    (Some(winner), _) => {
                        loss_reason(rules, service, allocations, winner, contender)
                    }
                    (None, Err(infeasible)) => infeasible.to_string(),
                    (None, Ok(())) => {
                        allocation.reserve(service);
                        allocation.reserve_volumes(bytes);
                        allocation.reserve_ports(service, replica);
                        volumes.assign(service, allocation.id);
                        claims.kept[index].insert(replica, Kept { node, from: None });
                        winner = Some(contender);
                        continue;
                    }
                };
                claims.lost.push(Lost { slot, node, reason });
            }
        }
    }
    await_nodes(services, allocations, awaited, &mut claims);
    apply_moves(input, services, allocations, volumes, &mut claims);
    claims
}

/// Leaves the slots that no node keeps to the nodes that are down and have them, one map of these per service.
fn await_nodes<'a>(
    services: &[Service<'a>],
    allocations: &[NodeAllocation<'a>],
    awaited: PerSlot<usize>,
    claims: &mut Claims<'a>,
) {
    for (index, of_service) in awaited.into_iter().enumerate() {
        for (replica, nodes) in of_service {
            if !claims.kept[index].contains_key(&replica) {
                claims.waiting[index].insert(replica, nodes);
                continue;
            }
            let slot = Slot { service: services[index].key.clone(), replica };
            claims.lost.extend(nodes.into_iter().filter_map(|node| {
                let (slot, _) = allocations[node].node.claims.get_key_value(&slot)?;
                Some(Lost { slot, node, reason: Infeasible::Down.to_string() })
            }));
        }
    }
}

/// Applies the move orders: a kept claim goes to the target node if the slot fits there beside all other claims.
///
/// The reservation stays on both nodes, because the slot may run on both until the source withdraws its claim; so
/// nothing else can be placed there before.
fn apply_moves<'a>(
    input: &PlanInput,
    services: &[Service<'a>],
    allocations: &mut [NodeAllocation<'a>],
    volumes: &Volumes<'_>,
    claims: &mut Claims<'a>,
) {
    if input.moves.is_empty() {
        return;
    }
    for (service, kept) in services.iter().zip(&mut claims.kept) {
        for (&replica, place) in kept {
            let slot = Slot { service: service.key.clone(), replica };
            let Some((from, to)) = move_order(input, allocations, &slot) else { continue };
            let stays = allocations[from].node.holds.contains(service.key);
            let target = &mut allocations[to];
            let feasible = !stays
                && has_slot(service, target, replica)
                && check_volumes(service, target, volumes).is_ok()
                && check_new(service, target).is_ok()
                && check_resources(service, target, 0).is_ok();
            if place.node != from || from == to || !feasible {
                continue;
            }
            target.reserve(service);
            target.reserve_ports(service, replica);
            let reason = format!("hands it over to {}", target.node.name);
            *place = Kept { node: to, from: Some(from) };
            claims.lost.retain(|lost| lost.node != to || *lost.slot != slot);
            if let Some((slot, _)) = allocations[from].node.claims.get_key_value(&slot) {
                claims.lost.push(Lost { slot, node: from, reason });
            }
        }
    }
}

/// Returns the source and target of the slot's move order.
fn move_order(
    input: &PlanInput,
    allocations: &[NodeAllocation<'_>],
    slot: &Slot,
) -> Option<(usize, usize)> {
    let (from, to) = input.moves.get(slot)?;
    let index = |node| allocations.binary_search_by(|allocation| allocation.id.cmp(node)).ok();
    Some((index(from)?, index(to)?))
}

/// Ranks the claim of a move's target last while the source claims the slot: the order decides, not the ranking.
fn rank_move_target_last(
    input: &PlanInput,
    allocations: &[NodeAllocation<'_>],
    of_slot: &mut [Contender<'_>],
) {
    let order = of_slot.first().and_then(|it| move_order(input, allocations, it.slot));
    let Some((from, to)) = order else { return };
    if of_slot.iter().any(|it| it.node == from) {
        of_slot.sort_by_key(|it| it.node == to && from != to);
    }
}

/// Returns whether a service has a slot that the node may have.
fn has_slot(service: &Service<'_>, allocation: &NodeAllocation<'_>, number: u32) -> bool {
    service.slots.contains(number)
        && service.slots.node_of(number).is_none_or(|node| node == allocation.id)
}

/// Returns why a node may not have a slot that it claims.
fn no_slot(service: &Service<'_>, allocation: &NodeAllocation<'_>) -> String {
    match &service.slots {
        Slots::Numbered(replicas) => {
            format!("still runs it, but {} was scaled to {replicas}", service.key)
        }
        Slots::Open(_) => "still runs it, but its run has ended, or has not come yet".to_owned(),
        Slots::PerNode(_) => match check_suited(service, allocation) {
            Err(infeasible) => infeasible.to_string(),
            Ok(()) => format!("still runs it, but {} has one slot for each node", service.key),
        },
    }
}

/// Returns the contenders of each slot, by service and replica, and in the same way the nodes that are down and keep their
/// slots. Claims that cannot be kept go to `lost`.
fn contenders<'a>(
    rules: Rules,
    services: &[Service<'a>],
    allocations: &[NodeAllocation<'a>],
    volumes: &Volumes<'_>,
    lost: &mut Vec<Lost<'a>>,
) -> (PerSlot<Contender<'a>>, PerSlot<usize>) {
    let indexes: BTreeMap<_, usize> =
        services.iter().enumerate().map(|(index, service)| (service.key, index)).collect();
    let mut contenders: PerSlot<Contender<'a>> = services.iter().map(|_| BTreeMap::new()).collect();
    let mut awaited: PerSlot<usize> = vec![BTreeMap::new(); services.len()];
    let keeps = |service: &Service<'_>, allocation: &NodeAllocation<'_>| {
        rules.disconnect
            && !matches!(service.slots, Slots::PerNode(_))
            && service.demand.spec.disconnect.keeps_slots(allocation.node.silent_ms)
            && check_suited(service, allocation).is_ok()
    };
    for (node, allocation) in allocations.iter().enumerate() {
        for (slot, claim) in &allocation.node.claims {
            // What a node holds and does not run, it does not start.
            let check = if claim.running { check_node } else { check_new };
            let reason = match indexes.get(&slot.service) {
                // It says how its run ended, and holds nothing.
                Some(&index)
                    if !claim.running && services[index].demand.ended.contains(&slot.replica) =>
                {
                    continue;
                }
                None => format!("still runs it, but {} was removed", slot.service),
                Some(&index) if !has_slot(&services[index], allocation, slot.replica) => {
                    no_slot(&services[index], allocation)
                }
                Some(&index) => match check_volumes(&services[index], allocation, volumes)
                    .and_then(|()| check(&services[index], allocation))
                    .or_else(|it| ends_here(it, &services[index], claim, allocation))
                {
                    Err(Infeasible::Down) if keeps(&services[index], allocation) => {
                        awaited[index].entry(slot.replica).or_default().push(node);
                        continue;
                    }
                    Err(infeasible) => infeasible.to_string(),
                    Ok(()) => {
                        contenders[index].entry(slot.replica).or_default().push(Contender {
                            slot,
                            node,
                            claim,
                            rank: (0, 0),
                        });
                        continue;
                    }
                },
            };
            lost.push(Lost { slot, node, reason });
        }
    }
    (contenders, awaited)
}

/// Lets a run that has begun go on to its end on a node that is drained. Errors: `infeasible`, where it may not.
fn ends_here<'a>(
    infeasible: Infeasible<'a>,
    service: &Service<'a>,
    claim: &ClaimView,
    allocation: &'a NodeAllocation<'_>,
) -> Result<(), Infeasible<'a>> {
    let has_begun = claim.running && matches!(service.slots, Slots::Open(_));
    match infeasible {
        Infeasible::Draining if has_begun && allocation.node.runtime_error.is_none() => {
            check_fixed(service, allocation).map_err(|_| infeasible)
        }
        _ => Err(infeasible),
    }
}
