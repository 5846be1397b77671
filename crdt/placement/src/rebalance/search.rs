//! The greedy search for steps that make nodes more evenly used.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::spec::PlacementPolicy;
use vc_protocol::{NodeId, Resources, ServiceKey, Slot};

use crate::allocation::NodeAllocation;
use crate::decision::{Plan, Relocation};
use crate::feasibility::{check_new, check_resources};
use crate::input::{Node, PlanInput};
use crate::order::{Service, services};
use crate::score;
use crate::slots::Slots;

/// The least that a step must take off the fuller of two nodes: 5 % of it, in parts per million.
const MIN_IMPROVEMENT: u64 = 50_000;

/// Returns where slots end up, ordered by slot, when every step that helps is taken from the plan `before` of `input`. Slots
/// of `held` stay where they are. Each look for a step takes one off `steps`; at 0 the search ends.
pub(super) fn search(
    input: &PlanInput,
    before: &Plan,
    held: &BTreeSet<Slot>,
    steps: &mut usize,
) -> Vec<Relocation> {
    let services = services(input);
    let mut state = SimulatedState::new(input, before, &services, held);
    while *steps > 0 {
        *steps -= 1;
        let step =
            state.spread().or_else(|| state.even_reservations()).or_else(|| state.even_counts());
        let Some(step) = step else { break };
        state.apply(step);
    }
    state.relocations()
}

/// Where every slot would run after the steps so far. Nodes are indexes in the order of their ids.
struct SimulatedState<'a> {
    input: &'a PlanInput,
    /// Slots that stay where they are.
    held: &'a BTreeSet<Slot>,
    before: &'a Plan,
    services: BTreeMap<&'a ServiceKey, &'a Service<'a>>,
    nodes: Vec<SimulatedNode<'a>>,
    /// The last target of each slot that was moved, with the reason.
    moved: BTreeMap<&'a Slot, (usize, String)>,
}

/// A node with the slots that would run on it.
struct SimulatedNode<'a> {
    id: NodeId,
    node: &'a Node,
    slots: BTreeSet<&'a Slot>,
    reserved: Resources,
}

/// One move.
struct Step<'a> {
    slot: &'a Slot,
    from: usize,
    to: usize,
    reason: String,
}

impl<'a> SimulatedState<'a> {
    fn new(
        input: &'a PlanInput,
        before: &'a Plan,
        services: &'a [Service<'a>],
        held: &'a BTreeSet<Slot>,
    ) -> Self {
        let services: BTreeMap<_, _> = services.iter().map(|it| (it.key, it)).collect();
        let simulated = |(&id, node): (&NodeId, &'a Node)| {
            let slots: BTreeSet<&Slot> = before.slots_of(id).collect();
            let reserved = slots.iter().filter_map(|slot| services.get(&slot.service));
            let reserved =
                reserved.fold(Resources::default(), |sum, it| sum.plus(it.reservation()));
            SimulatedNode { id, node, slots, reserved }
        };
        let nodes = input.nodes.iter().map(simulated).collect();
        Self { input, held, before, services, nodes, moved: BTreeMap::new() }
    }

    /// Finds a replica to move from a node with several of its service to one with none.
    fn spread(&self) -> Option<Step<'a>> {
        let doubled = |node: &SimulatedNode<'a>, service: &ServiceKey| node.replicas(service) > 1;
        for (number, node) in self.nodes.iter().enumerate() {
            for slot in node.slots.iter().rev().filter(|slot| doubled(node, &slot.service)) {
                let none = |to: &usize| self.nodes[*to].replicas(&slot.service) == 0;
                let takes = |to: &usize| self.can_move(slot, number, *to);
                let step =
                    self.by_reserved_share().into_iter().filter(none).find(takes).map(|to| {
                        let (has, name) = (node.replicas(&slot.service), &node.node.name);
                        let reason = format!(
                            "{name} has {has} replicas of {}, {} none",
                            slot.service, self.nodes[to].node.name
                        );
                        Step { slot, from: number, to, reason }
                    });
                if step.is_some() {
                    return step;
                }
            }
        }
        None
    }

    /// Finds a slot to move off the node with the largest reserved share.
    fn even_reservations(&self) -> Option<Step<'a>> {
        for from in self.by_reserved_share().into_iter().rev() {
            let node = &self.nodes[from];
            let share = node.share(node.reserved);
            let mut steps = Vec::new();
            for &slot in node.slots.iter().filter(|slot| !self.is_packed(slot)) {
                let ask = self.reservation(slot);
                let left = node.share(node.reserved.minus(ask));
                for (to, other) in self.nodes.iter().enumerate().filter(|(to, _)| *to != from) {
                    let highest = left.max(other.share(other.reserved.plus(ask)));
                    if !ask.is_zero() && highest.saturating_add(MIN_IMPROVEMENT) <= share {
                        steps.push((highest, to, slot));
                    }
                }
            }
            steps.sort_unstable();
            let fits = |(_, to, slot): &(u64, usize, &'a Slot)| self.keeps_spread(slot, from, *to);
            if let Some((_, to, slot)) = steps.into_iter().find(fits) {
                let percent = |node: &SimulatedNode<'_>| node.share(node.reserved) / 10_000;
                let other = &self.nodes[to];
                let reason = format!(
                    "{}% of {} are reserved, {}% of {}",
                    percent(node),
                    node.node.name,
                    percent(other),
                    other.node.name
                );
                return Some(Step { slot, from, to, reason });
            }
        }
        None
    }

    /// Finds a slot without a reservation to move from a node with many instances to one with fewer.
    fn even_counts(&self) -> Option<Step<'a>> {
        let mut by_count: Vec<usize> = (0..self.nodes.len()).collect();
        by_count.sort_by_key(|&number| self.nodes[number].slots.len());
        for &from in by_count.iter().rev() {
            let node = &self.nodes[from];
            let fewer = |to: &&usize| self.nodes[**to].slots.len() + 2 <= node.slots.len();
            for &to in by_count.iter().filter(fewer) {
                let mut light = node.slots.iter().filter(|slot| self.reservation(slot).is_zero());
                let Some(slot) = light.find(|slot| self.keeps_spread(slot, from, to)) else {
                    continue;
                };
                let other = &self.nodes[to];
                let reason = format!(
                    "{} runs {} instances, {} {}",
                    node.node.name,
                    node.slots.len(),
                    other.node.name,
                    other.slots.len()
                );
                return Some(Step { slot, from, to, reason });
            }
        }
        None
    }

    fn apply(&mut self, step: Step<'a>) {
        let Step { slot, from, to, reason } = step;
        let ask = self.reservation(slot);
        let (left, joined) =
            (self.nodes[from].reserved.minus(ask), self.nodes[to].reserved.plus(ask));
        self.nodes[from].slots.remove(slot);
        self.nodes[from].reserved = left;
        self.nodes[to].slots.insert(slot);
        self.nodes[to].reserved = joined;
        self.moved.insert(slot, (to, reason));
    }

    fn relocations(self) -> Vec<Relocation> {
        let ends = self.moved.into_iter().filter_map(|(slot, (to, reason))| {
            let (from, to) = (self.before.placements.get(slot)?.node, self.nodes[to].id);
            (from != to).then(|| Relocation { slot: slot.clone(), from, to, reason })
        });
        ends.collect()
    }

    /// Returns the nodes by reserved share, the smallest first.
    fn by_reserved_share(&self) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..self.nodes.len()).collect();
        numbers.sort_by_key(|&number| {
            let node = &self.nodes[number];
            (node.share(node.reserved), node.slots.len(), Reverse(node.id))
        });
        numbers
    }

    fn reservation(&self, slot: &Slot) -> Resources {
        self.services.get(&slot.service).map(|it| it.reservation()).unwrap_or_default()
    }

    /// Returns whether the slot's service asks to be packed: moving it for an even load would undo that.
    fn is_packed(&self, slot: &Slot) -> bool {
        let policy =
            |service: &&Service<'_>| service.demand.spec.placement == PlacementPolicy::Pack;
        self.services.get(&slot.service).is_some_and(policy)
    }

    /// Returns whether the slot can move without putting more replicas of its service on one node.
    fn keeps_spread(&self, slot: &Slot, from: usize, to: usize) -> bool {
        let replicas = |number: usize| self.nodes[number].replicas(&slot.service);
        replicas(to) < replicas(from) && self.can_move(slot, from, to)
    }

    /// Returns whether the slot can be moved at all and fits on the target.
    fn can_move(&self, slot: &Slot, from: usize, to: usize) -> bool {
        let (Some(service), Some(placed)) =
            (self.services.get(&slot.service), self.before.placements.get(slot))
        else {
            return false;
        };
        let claim = self.input.nodes.get(&placed.node).and_then(|it| it.claims.get(slot));
        if from == to
            || !service.shared.is_empty()
            || !matches!(service.slots, Slots::Numbered(_))
            || self.held.contains(slot)
            || self.nodes[from].node.holds.contains(&slot.service)
            || !claim.is_some_and(|claim| claim.running)
        {
            return false;
        }
        let node = &self.nodes[to];
        let mut allocation = NodeAllocation::new(node.id, node.node);
        for held in &node.slots {
            if let Some(other) = self.services.get(&held.service) {
                allocation.reserve(other);
                allocation.reserve_ports(other, held.replica);
            }
        }
        check_new(service, &allocation).is_ok() && check_resources(service, &allocation, 0).is_ok()
    }
}

impl SimulatedNode<'_> {
    /// Returns the number of replicas of a service.
    fn replicas(&self, service: &ServiceKey) -> usize {
        let slot = |replica| Slot { service: service.clone(), replica };
        self.slots.range::<Slot, _>(slot(0)..=slot(u32::MAX)).count()
    }

    /// Returns the share of the node that is reserved, in parts per million of the dominant dimension.
    fn share(&self, reserved: Resources) -> u64 {
        score::share(reserved, self.node.capacity)
    }
}
