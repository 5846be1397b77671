//! Rebalancing: which slots to move so that nodes are evenly used. Nothing moves by itself: an operator asks for it and
//! is shown exactly what the plan does with the orders.
//!
//! The search is greedy. While there is a step that helps, it takes the first of
//! 1. moving a replica from a node that has several of its service to one that has none;
//! 2. moving a slot off the node with the largest reserved share, if the difference shrinks enough;
//! 3. moving a slot that reserves nothing off the node with the most instances.
//!
//! No step undoes a step of an earlier kind, and each reduces its own measure, so the search ends.
//!
//! Every step has room, but a slot gets one order, from its first node to its last one. So slots that went around each other
//! by way of a third node block each other for good, each waiting for the room of the other. Such slots are held where they
//! are, and the search starts anew. What that leaves to a second proposal is part of the first, or is held too: a second
//! rebalance after all moves proposes nothing, unless a slot that waited for room has taken what became free.

mod search;

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::{NodeId, Slot};

use self::search::search;
use crate::decision::{Plan, Relocation};
use crate::input::PlanInput;
use crate::plan::plan;
use crate::rules::Rules;

/// Maximum number of attempts to find the next move, over all searches of one proposal.
const MAX_STEPS: usize = 1000;
/// Maximum number of plans in which the orders are followed: one may wait for resources that another one frees.
const MAX_ROUNDS: usize = 16;

/// Returns the moves to make, ordered by slot. Added to [`moves`](PlanInput::moves), the plan follows all of them, one
/// after the other where one makes room for the next. Slots that mount named volumes, do not run, or are being moved
/// already stay where they are.
pub fn rebalance(input: &PlanInput, rules: Rules) -> Vec<Relocation> {
    let moving: BTreeSet<Slot> = input.moves.keys().cloned().collect();
    if !moving.is_empty() {
        // Nothing is missing if nothing would be proposed once these moves are done.
        let mut done = input.clone();
        follow_orders(&mut done, rules, &plan(input, rules));
        if propose(&done, rules, &BTreeSet::new(), &mut { MAX_STEPS }).is_empty() {
            return Vec::new();
        }
    }
    propose(input, rules, &moving, &mut { MAX_STEPS })
}

/// Returns a proposal that the plan follows to the end and, unless `steps` ends, after which nothing more is proposed. Slots
/// of `held` stay where they are.
fn propose(
    input: &PlanInput,
    rules: Rules,
    held: &BTreeSet<Slot>,
    steps: &mut usize,
) -> Vec<Relocation> {
    // Slots that are being moved count as arrived.
    let mut settled = input.clone();
    follow_orders(&mut settled, rules, &plan(input, rules));
    let before = plan(&settled, rules);
    let mut held_now = held.clone();
    loop {
        let mut found = search(&settled, &before, &held_now, steps);
        if found.is_empty() {
            return found;
        }
        let (after, blocked) = follow(input, rules, &found, &before);
        if !blocked.is_empty() {
            if *steps == 0 {
                found.retain(|it| !blocked.contains(&it.slot));
                return found;
            }
            held_now.extend(blocked);
            continue;
        }
        let later = propose(&after, rules, held, steps);
        let all = join(&found, &later);
        let (_, mut blocked) = follow(input, rules, &all, &before);
        if blocked.is_empty() {
            return all;
        }
        if *steps == 0 {
            return found;
        }
        // Some slots cannot go both ways at once: this search leaves them where they are.
        blocked.extend(later.into_iter().map(|it| it.slot));
        let is_blocked = |it: &Relocation| blocked.contains(&it.slot);
        let any = found.iter().any(is_blocked);
        held_now.extend(found.into_iter().filter(|it| !any || is_blocked(it)).map(|it| it.slot));
    }
}

/// Returns the moves from before `found` to after `later`.
fn join(found: &[Relocation], later: &[Relocation]) -> Vec<Relocation> {
    let mut all: BTreeMap<&Slot, Relocation> =
        found.iter().map(|it| (&it.slot, it.clone())).collect();
    for it in later {
        let from = all.get(&it.slot).map_or(it.from, |first| first.from);
        all.insert(&it.slot, Relocation { from, ..it.clone() });
    }
    all.into_values().filter(|it| it.from != it.to).collect()
}

/// Returns the input after the nodes have followed these moves, and the slots that do not arrive: their orders wait for each
/// other. A slot that had a node in `before` and would lose it counts against all moves.
fn follow(
    input: &PlanInput,
    rules: Rules,
    moves: &[Relocation],
    before: &Plan,
) -> (PlanInput, BTreeSet<Slot>) {
    let mut input = input.clone();
    input.moves.extend(moves.iter().map(|it| (it.slot.clone(), (it.from, it.to))));
    let keeps_all = follow_orders(&mut input, rules, before);
    let blocked = |slot: &&Slot| !keeps_all || input.moves.contains_key(*slot);
    let blocked = moves.iter().map(|it| &it.slot).filter(blocked).cloned().collect();
    (input, blocked)
}

/// Follows the move orders as the plan does, round by round. Orders that it does not follow remain in the input.
/// Returns false if a slot that had a node before would lose it.
fn follow_orders(input: &mut PlanInput, rules: Rules, before: &Plan) -> bool {
    for _ in 0..MAX_ROUNDS {
        if input.moves.is_empty() {
            break;
        }
        let now = plan(input, rules);
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
