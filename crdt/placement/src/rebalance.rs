//! What to move so that nodes are evenly used. Nothing moves for this by itself: a person asks for it, and what he is
//! shown is what the plan does with the orders.
//!
//! Greedy: as long as there is a step that helps, the first of
//! 1. a replica leaves a node that has several of its service for one that has none;
//! 2. a slot leaves the node of which most is reserved, if that evens out clearly;
//! 3. a slot that reserves nothing leaves the node with the most instances.
//!
//! No step undoes what an earlier kind is for, and each makes its own measure smaller. So it ends, and whoever has
//! followed all of it is told nothing more, unless something that waited for room has taken what became free.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use vc_protocol::{NodeId, Resources, ServiceKey, Slot};

use crate::decision::Plan;
use crate::feasibility::{eligible, room};
use crate::input::{Node, PlanInput};
use crate::ledger::Account;
use crate::order::{Demand, demands};
use crate::plan::plan;

/// The most steps of one answer. Who has more to even out asks again.
const MOST_STEPS: usize = 500;
/// What a step must take off the fuller of two nodes: 5% of it, in parts per million.
const CLEARLY: u64 = 50_000;
/// An order may have to wait for the room that another one makes. So often at most.
const MOST_STAGES: usize = 16;

/// A slot that had better run elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relocation {
    /// Which slot.
    pub slot: Slot,
    /// The node that runs it.
    pub from: NodeId,
    /// The node that is to run it.
    pub to: NodeId,
    /// Why, in words for people.
    pub reason: String,
}

/// What to move, by slot. Given as [`moves`](PlanInput::moves) beside those that are there already, the plan follows all
/// of them, one after the other where one makes room for the next. Slots stay where they are that mount named volumes,
/// do not run, or are on the move already.
pub fn rebalance(input: &PlanInput) -> Vec<Relocation> {
    // What is on the move already is as good as there.
    let mut settled = input.clone();
    carry_out(&mut settled, &plan(input));
    let before = plan(&settled);
    let demands = demands(input);
    let mut trial = Trial::new(&settled, &before, &demands, &input.moves);
    for _ in 0..MOST_STEPS {
        let step =
            trial.spread().or_else(|| trial.even_reservations()).or_else(|| trial.even_counts());
        let Some(step) = step else { break };
        trial.make(step);
    }
    let mut asked = trial.relocations();
    let mut ordered = input.clone();
    ordered.moves.extend(asked.iter().map(|it| (it.slot.clone(), (it.from, it.to))));
    if !carry_out(&mut ordered, &before) {
        return Vec::new();
    }
    asked.retain(|it| !ordered.moves.contains_key(&it.slot));
    asked
}

/// Follows the orders as the plan does, one after the other where one makes room for the next. Those that it does not
/// follow remain. Whether all slots keep a place that had one.
fn carry_out(input: &mut PlanInput, before: &Plan) -> bool {
    for _ in 0..MOST_STAGES {
        if input.moves.is_empty() {
            break;
        }
        let now = plan(input);
        if now.unplaced.keys().any(|slot| !before.unplaced.contains_key(slot)) {
            return false;
        }
        let arrived = |(slot, &(from, to)): (&Slot, &(NodeId, NodeId))| {
            let there = now.placements.get(slot).is_some_and(|placement| placement.node == to);
            there.then(|| (slot.clone(), from, to))
        };
        let arrived: Vec<_> = input.moves.iter().filter_map(arrived).collect();
        if arrived.is_empty() {
            break;
        }
        for (slot, from, to) in arrived {
            input.moves.remove(&slot);
            let claim = input.nodes.get_mut(&from).and_then(|it| it.claims.remove(&slot));
            if let (Some(claim), Some(node)) = (claim, input.nodes.get_mut(&to)) {
                node.claims.insert(slot, claim);
            }
        }
    }
    true
}

/// Where everything would be.
struct Trial<'a> {
    input: &'a PlanInput,
    /// The orders that there are already.
    ordered: &'a BTreeMap<Slot, (NodeId, NodeId)>,
    before: &'a Plan,
    demands: BTreeMap<&'a ServiceKey, &'a Demand<'a>>,
    nodes: Vec<Site<'a>>,
    /// The node, by its number, to which a slot was moved last, and why.
    moved: BTreeMap<&'a Slot, (usize, String)>,
}

/// A node, and what would run there.
struct Site<'a> {
    id: NodeId,
    node: &'a Node,
    slots: BTreeSet<&'a Slot>,
    reserved: Resources,
}

/// One move, between nodes by their numbers.
struct Step<'a> {
    slot: &'a Slot,
    from: usize,
    to: usize,
    why: String,
}

impl<'a> Trial<'a> {
    fn new(
        input: &'a PlanInput,
        before: &'a Plan,
        demands: &'a [Demand<'a>],
        ordered: &'a BTreeMap<Slot, (NodeId, NodeId)>,
    ) -> Self {
        let demands: BTreeMap<_, _> = demands.iter().map(|demand| (demand.key, demand)).collect();
        let site = |(&id, node): (&NodeId, &'a Node)| {
            let slots: BTreeSet<&Slot> = before.slots_of(id).collect();
            let reserved = slots.iter().filter_map(|slot| demands.get(&slot.service));
            let reserved =
                reserved.fold(Resources::default(), |sum, it| sum.plus(it.reservation()));
            Site { id, node, slots, reserved }
        };
        let nodes = input.nodes.iter().map(site).collect();
        Self { input, ordered, before, demands, nodes, moved: BTreeMap::new() }
    }

    /// From a node with several replicas of a service to one with none.
    fn spread(&self) -> Option<Step<'a>> {
        let doubled = |site: &Site<'a>, service: &ServiceKey| site.replicas(service) > 1;
        for (number, site) in self.nodes.iter().enumerate() {
            for slot in site.slots.iter().rev().filter(|slot| doubled(site, &slot.service)) {
                let none = |to: &usize| self.nodes[*to].replicas(&slot.service) == 0;
                let takes = |to: &usize| self.takes(slot, number, *to);
                let step = self.emptiest().into_iter().filter(none).find(takes).map(|to| {
                    let (has, name) = (site.replicas(&slot.service), &site.node.name);
                    let why = format!(
                        "{name} has {has} replicas of {}, {} none",
                        slot.service, self.nodes[to].node.name
                    );
                    Step { slot, from: number, to, why }
                });
                if step.is_some() {
                    return step;
                }
            }
        }
        None
    }

    /// From a node of which much is reserved to one of which less would be.
    fn even_reservations(&self) -> Option<Step<'a>> {
        for from in self.emptiest().into_iter().rev() {
            let site = &self.nodes[from];
            let share = site.share(site.reserved);
            let mut steps = Vec::new();
            for &slot in &site.slots {
                let ask = self.reservation(slot);
                let left = site.share(site.reserved.minus(ask));
                for (to, other) in self.nodes.iter().enumerate().filter(|(to, _)| *to != from) {
                    let highest = left.max(other.share(other.reserved.plus(ask)));
                    if !ask.is_zero() && highest.saturating_add(CLEARLY) <= share {
                        steps.push((highest, to, slot));
                    }
                }
            }
            steps.sort_unstable();
            let fits = |(_, to, slot): &(u64, usize, &'a Slot)| self.is_no_worse(slot, from, *to);
            if let Some((_, to, slot)) = steps.into_iter().find(fits) {
                let percent = |site: &Site<'_>| site.share(site.reserved) / 10_000;
                let other = &self.nodes[to];
                let why = format!(
                    "{}% of {} are reserved, {}% of {}",
                    percent(site),
                    site.node.name,
                    percent(other),
                    other.node.name
                );
                return Some(Step { slot, from, to, why });
            }
        }
        None
    }

    /// From a node with many instances to one with fewer, by a slot that reserves nothing.
    fn even_counts(&self) -> Option<Step<'a>> {
        let mut by_count: Vec<usize> = (0..self.nodes.len()).collect();
        by_count.sort_by_key(|&number| self.nodes[number].slots.len());
        for &from in by_count.iter().rev() {
            let site = &self.nodes[from];
            let fewer = |to: &&usize| self.nodes[**to].slots.len() + 2 <= site.slots.len();
            for &to in by_count.iter().filter(fewer) {
                let mut light = site.slots.iter().filter(|slot| self.reservation(slot).is_zero());
                let Some(slot) = light.find(|slot| self.is_no_worse(slot, from, to)) else {
                    continue;
                };
                let other = &self.nodes[to];
                let why = format!(
                    "{} runs {} instances, {} {}",
                    site.node.name,
                    site.slots.len(),
                    other.node.name,
                    other.slots.len()
                );
                return Some(Step { slot, from, to, why });
            }
        }
        None
    }

    fn make(&mut self, step: Step<'a>) {
        let Step { slot, from, to, why } = step;
        let ask = self.reservation(slot);
        let (left, joined) =
            (self.nodes[from].reserved.minus(ask), self.nodes[to].reserved.plus(ask));
        self.nodes[from].slots.remove(slot);
        self.nodes[from].reserved = left;
        self.nodes[to].slots.insert(slot);
        self.nodes[to].reserved = joined;
        self.moved.insert(slot, (to, why));
    }

    fn relocations(self) -> Vec<Relocation> {
        let ends = self.moved.into_iter().filter_map(|(slot, (to, why))| {
            let (from, to) = (self.before.placements.get(slot)?.node, self.nodes[to].id);
            (from != to).then(|| Relocation { slot: slot.clone(), from, to, reason: why })
        });
        ends.collect()
    }

    /// The nodes, those first of which the least is reserved.
    fn emptiest(&self) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..self.nodes.len()).collect();
        numbers.sort_by_key(|&number| {
            let site = &self.nodes[number];
            (site.share(site.reserved), site.slots.len(), Reverse(site.id))
        });
        numbers
    }

    fn reservation(&self, slot: &Slot) -> Resources {
        self.demands.get(&slot.service).map(|demand| demand.reservation()).unwrap_or_default()
    }

    /// Whether the slot may move so without putting more replicas of its service on one node.
    fn is_no_worse(&self, slot: &Slot, from: usize, to: usize) -> bool {
        let replicas = |number: usize| self.nodes[number].replicas(&slot.service);
        replicas(to) < replicas(from) && self.takes(slot, from, to)
    }

    /// Whether the slot may move, and fits there.
    fn takes(&self, slot: &Slot, from: usize, to: usize) -> bool {
        let (Some(demand), Some(placed)) =
            (self.demands.get(&slot.service), self.before.placements.get(slot))
        else {
            return false;
        };
        let claim = self.input.nodes.get(&placed.node).and_then(|it| it.claims.get(slot));
        if from == to
            || !demand.volumes.is_empty()
            || self.ordered.contains_key(slot)
            || !claim.is_some_and(|claim| claim.running)
        {
            return false;
        }
        let site = &self.nodes[to];
        let mut account = Account::new(site.id, site.node);
        for held in &site.slots {
            if let Some(other) = self.demands.get(&held.service) {
                account.promise(other);
                account.take_ports(other, held.replica);
            }
        }
        eligible(demand, &account).is_ok() && room(demand, &account).is_ok()
    }
}

impl Site<'_> {
    /// How many replicas of a service are there.
    fn replicas(&self, service: &ServiceKey) -> usize {
        let slot = |replica| Slot { service: service.clone(), replica };
        self.slots.range::<Slot, _>(slot(0)..=slot(u32::MAX)).count()
    }

    /// Which part of the node these reservations are, in parts per million of the dominant dimension.
    fn share(&self, reserved: Resources) -> u64 {
        let part = |of: u64, all: u64| {
            let parts = u128::from(of) * 1_000_000 / u128::from(all.max(1));
            u64::try_from(parts).unwrap_or(u64::MAX)
        };
        let all = self.node.capacity;
        part(reserved.cpu_millis, all.cpu_millis).max(part(reserved.memory_bytes, all.memory_bytes))
    }
}
