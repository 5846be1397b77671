//! The rules of placement, written anew: what plans are checked against.

use std::collections::BTreeSet;

use vc_placement::{Node, Plan, PlanInput, ServiceDemand};
use vc_protocol::node::RuntimeKind;
use vc_protocol::spec::{Constraint, Port, Publish};
use vc_protocol::{NodeId, Resources, Slot, VolumeKey};

use crate::clusters::volume_key;

pub(crate) fn volumes_of(wanted: &ServiceDemand) -> BTreeSet<VolumeKey> {
    wanted.spec.volumes().map(|name| volume_key(name.as_str())).collect()
}

/// All volumes that are mounted together with those of the service, directly or through others.
pub(crate) fn bundle(input: &PlanInput, wanted: &ServiceDemand) -> BTreeSet<VolumeKey> {
    let mut all = volumes_of(wanted);
    for _ in 0..input.services.len() {
        for other in input.services.values().map(volumes_of) {
            if !all.is_disjoint(&other) {
                all.extend(other);
            }
        }
    }
    all
}

/// Whether the volumes of a service keep it off the node, as the plan has placed the others.
pub(crate) fn volumes_forbid(
    input: &PlanInput,
    decided: &Plan,
    wanted: &ServiceDemand,
    id: NodeId,
) -> bool {
    let at = |volume: &VolumeKey| -> BTreeSet<NodeId> {
        let placed = decided
            .placements
            .iter()
            .filter(|(slot, _)| volumes_of(&input.services[&slot.service]).contains(volume));
        placed.map(|(_, it)| it.node).chain(input.volumes.get(volume).copied()).collect()
    };
    let all = bundle(input, wanted);
    let holders: BTreeSet<_> = all.iter().filter_map(|volume| input.volumes.get(volume)).collect();
    let bound = if holders.len() > 1 { volumes_of(wanted) } else { all.clone() };
    let homes: BTreeSet<NodeId> = bound.iter().flat_map(at).collect();
    if !homes.is_empty() {
        return homes != BTreeSet::from([id]);
    }
    let sharing = input.services.values().filter(|it| !volumes_of(it).is_disjoint(&all));
    holders.len() <= 1 && sharing.into_iter().any(|it| !may_run(&input.nodes[&id], it))
}

/// The slots that take room on a node: those that are placed there, and those that are on their way out by an order.
pub(crate) fn held(decided: &Plan, id: NodeId) -> Vec<&Slot> {
    let leaving = decided.moves.iter().filter(|it| it.from == Some(id) && is_ordered(it));
    decided.slots_of(id).chain(leaving.map(|it| &it.slot)).collect()
}

pub(crate) fn is_ordered(it: &vc_placement::Move) -> bool {
    it.reason.starts_with("moves to ")
}

pub(crate) fn container<'a>(
    input: &'a PlanInput,
    slot: &Slot,
) -> &'a vc_protocol::spec::ContainerSpec {
    &input.services[&slot.service].spec.container
}

pub(crate) fn ports_clash(node: &Node, a: &[Port], b: &[Port]) -> bool {
    let bound = |it: &Port| it.publish == Publish::Node || node.runtime == RuntimeKind::Process;
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b)));
    let pairs = pairs.filter(|(a, b)| bound(a) && bound(b));
    let same = |a: &Port, b: &Port| a.published == b.published && a.protocol == b.protocol;
    pairs.into_iter().any(|(a, b)| {
        same(a, b) && (a.host_ip.is_none() || b.host_ip.is_none() || a.host_ip == b.host_ip)
    })
}

/// Whether the slots fit on the node together. Written anew: this is what the plan is checked against.
pub(crate) fn fit_together(input: &PlanInput, node: &Node, slots: &[&Slot]) -> bool {
    let sum = slots
        .iter()
        .map(|slot| container(input, slot).reservation)
        .fold(Resources::default(), Resources::plus);
    let ports = |slot: &Slot| &input.services[&slot.service].spec.ports;
    let apart =
        |(n, a): (usize, &&Slot)| slots[..n].iter().all(|b| !ports_clash(node, ports(a), ports(b)));
    sum.fits(node.capacity) && slots.iter().enumerate().all(apart)
}

/// Whether the node may run the service at all.
pub(crate) fn may_run(node: &Node, wanted: &ServiceDemand) -> bool {
    let met = |it: &Constraint| (node.labels.get("zone") == Some(&it.value)) == it.equal;
    node.up
        && !node.draining
        && node.runtime_error.is_none()
        && wanted.spec.constraints.iter().all(met)
        && (node.runtime == RuntimeKind::Docker || wanted.spec.container.mounts.is_empty())
}

pub(crate) fn is_wanted(input: &PlanInput, slot: &Slot) -> bool {
    input
        .services
        .get(&slot.service)
        .is_some_and(|wanted| (1..=wanted.replicas).contains(&slot.replica))
}
