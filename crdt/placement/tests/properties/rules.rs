//! The rules of placement, written anew: what plans are checked against.

use std::collections::BTreeSet;

use vc_placement::{Node, Plan, PlanInput, ServiceDemand, node_slot};
use vc_protocol::node::RuntimeKind;
use vc_protocol::spec::{ALL, Constraint, Port, Publish, ServiceMode};
use vc_protocol::{NodeId, Resources, ServiceKey, Slot, VolumeKey};

use crate::clusters::volume_key;

pub(crate) fn volumes_of(service: &ServiceDemand) -> BTreeSet<VolumeKey> {
    service.spec.volumes().map(|name| volume_key(name.as_str())).collect()
}

/// Returns all volumes that are mounted together with those of the service, directly or through other services.
pub(crate) fn volume_group(input: &PlanInput, service: &ServiceDemand) -> BTreeSet<VolumeKey> {
    let mut all = volumes_of(service);
    for _ in 0..input.services.len() {
        for other in input.services.values().map(volumes_of) {
            if !all.is_disjoint(&other) {
                all.extend(other);
            }
        }
    }
    all
}

/// Returns whether the volumes of a service keep it off the node, given where the plan placed the others.
pub(crate) fn volumes_forbid(
    input: &PlanInput,
    decided: &Plan,
    service: &ServiceDemand,
    id: NodeId,
) -> bool {
    let at = |volume: &VolumeKey| -> BTreeSet<NodeId> {
        let placed = decided
            .placements
            .iter()
            .filter(|(slot, _)| volumes_of(&input.services[&slot.service]).contains(volume));
        placed.map(|(_, it)| it.node).chain(input.volumes.get(volume).copied()).collect()
    };
    let all = volume_group(input, service);
    let holders: BTreeSet<_> = all.iter().filter_map(|volume| input.volumes.get(volume)).collect();
    let bound = if holders.len() > 1 { volumes_of(service) } else { all.clone() };
    let holders_now: BTreeSet<NodeId> = bound.iter().flat_map(at).collect();
    if !holders_now.is_empty() {
        return holders_now != BTreeSet::from([id]);
    }
    let sharing = input.services.values().filter(|it| !volumes_of(it).is_disjoint(&all));
    holders.len() <= 1 && sharing.into_iter().any(|it| !may_run(&input.nodes[&id], it))
}

/// Returns the slots that use resources of a node: those placed there, and those that move away by an order.
pub(crate) fn held(decided: &Plan, id: NodeId) -> Vec<&Slot> {
    let leaving = decided.moves.iter().filter(|it| it.from == Some(id) && is_ordered(it));
    decided.slots_of(id).chain(leaving.map(|it| &it.slot)).collect()
}

pub(crate) fn is_ordered(it: &vc_placement::Move) -> bool {
    it.reason.starts_with("hands it over to ")
}

pub(crate) fn container<'a>(
    input: &'a PlanInput,
    slot: &Slot,
) -> &'a vc_protocol::spec::ContainerSpec {
    &input.services[&slot.service].spec.container
}

pub(crate) fn ports_conflict(node: &Node, a: &[Port], b: &[Port]) -> bool {
    let binds = |it: &Port| it.publish == Publish::Node || node.runtime == RuntimeKind::Process;
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b)));
    let pairs = pairs.filter(|(a, b)| binds(a) && binds(b));
    let same = |a: &Port, b: &Port| a.published == b.published && a.protocol == b.protocol;
    pairs.into_iter().any(|(a, b)| {
        same(a, b) && (a.host_ip.is_none() || b.host_ip.is_none() || a.host_ip == b.host_ip)
    })
}

/// Returns whether the slots fit on the node together. Independent of the implementation, as the reference.
pub(crate) fn fit_together(input: &PlanInput, node: &Node, slots: &[&Slot]) -> bool {
    let sum = slots
        .iter()
        .map(|slot| container(input, slot).reservation)
        .fold(Resources::default(), Resources::plus);
    let ports = |slot: &Slot| &input.services[&slot.service].spec.ports;
    let apart = |(n, a): (usize, &&Slot)| {
        slots[..n].iter().all(|b| !ports_conflict(node, ports(a), ports(b)))
    };
    let within_limit = |slot: &&Slot| {
        let service = &input.services[&slot.service];
        let replicas = slots.iter().filter(|it| it.service == slot.service).count();
        let most = service.spec.max_replicas_per_node as usize;
        most == 0 || is_global(service) || replicas <= most
    };
    let gpus = node.generic_resources.get("gpu").copied().unwrap_or(0);
    let taken = slots.iter().filter_map(|slot| input.services[&slot.service].needs.get("gpu"));
    let taken: u64 = taken.map(|&need| if need == ALL { gpus.max(1) } else { need }).sum();
    sum.fits(node.capacity)
        && taken <= gpus
        && slots.iter().enumerate().all(apart)
        && slots.iter().all(within_limit)
}

/// Returns whether the node may run the service, apart from resources.
pub(crate) fn may_run(node: &Node, service: &ServiceDemand) -> bool {
    let met = |it: &Constraint| (node.labels.get("zone") == Some(&it.value)) == it.equal;
    node.up
        && !node.draining
        && node.runtime_error.is_none()
        && service.spec.constraints.iter().all(met)
        && has_gpus(node, service)
        && (node.runtime == RuntimeKind::Docker || service.spec.container.mounts.is_empty())
}

/// Returns whether the node has as many GPUs as a replica takes, free or not.
fn has_gpus(node: &Node, service: &ServiceDemand) -> bool {
    let has = node.generic_resources.get("gpu").copied().unwrap_or(0);
    service.needs.get("gpu").is_none_or(|&need| if need == ALL { has > 0 } else { need <= has })
}

pub(crate) fn is_global(service: &ServiceDemand) -> bool {
    service.spec.mode == ServiceMode::Global
}

/// Returns the slots of a service.
pub(crate) fn slots_of(input: &PlanInput, key: &ServiceKey) -> BTreeSet<Slot> {
    let slot = |replica| Slot { service: key.clone(), replica };
    let service = &input.services[key];
    if !is_global(service) {
        let open = (1..=service.replicas).filter(|number| !service.ended.contains(number));
        let most = match service.spec.max_concurrent {
            0 => usize::MAX,
            most => most as usize,
        };
        return open.take(most).map(slot).collect();
    }
    let suits = |node: &Node| {
        let works = Node { up: true, runtime_error: None, ..node.clone() };
        may_run(&works, service)
    };
    let suited = input.nodes.iter().filter(|(_, node)| suits(node));
    suited.filter_map(|(id, _)| node_slot(input, *id)).map(slot).collect()
}

/// Returns whether a node may have a slot of a deployed service.
pub(crate) fn is_deployed(input: &PlanInput, id: NodeId, slot: &Slot) -> bool {
    input.services.get(&slot.service).is_some_and(|service| {
        slots_of(input, &slot.service).contains(slot)
            && (!is_global(service) || node_slot(input, id) == Some(slot.replica))
    })
}
