//! Properties of the plan for arbitrary clusters.
#![allow(clippy::expect_used, reason = "tests")]

mod clusters;
mod disconnect;
mod rules;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use clusters::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use rules::*;
use support::{claim, converge, node, node_id, service};
use vc_placement::{ClaimView, Node, Plan, PlanInput, Rules, node_slot, plan, rebalance};
use vc_protocol::spec::ServiceMode;
use vc_protocol::{NodeId, Resources, ServiceKey, Slot};

fn places(plan: &Plan) -> BTreeMap<&Slot, NodeId> {
    plan.placements.iter().map(|(slot, placement)| (slot, placement.node)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_insertion_changes_nothing(input in messy_cluster(), order in any::<[u16; 7]>()) {
        let mut nodes: Vec<_> = input.nodes.clone().into_iter().zip(order).collect();
        let mut services: Vec<_> = input.services.clone().into_iter().zip(order).collect();
        nodes.sort_by_key(|it| it.1);
        services.sort_by_key(|it| it.1);
        let mut shuffled = PlanInput { nodes: BTreeMap::new(), services: BTreeMap::new(), ..input.clone() };
        for ((id, mut node), _) in nodes {
            node.claims = node.claims.into_iter().rev().collect();
            shuffled.nodes.insert(id, node);
        }
        for ((key, service), _) in services {
            shuffled.services.insert(key, service);
        }
        let bytes = |input| serde_json::to_vec(&plan(input, Rules::newest())).expect("json");
        prop_assert_eq!(bytes(&input), bytes(&shuffled));
    }

    #[test]
    fn no_node_is_overcommitted_or_ineligible(input in messy_cluster()) {
        let decided = plan(&input, Rules::newest());
        for (id, node) in &input.nodes {
            let slots = held(&decided, *id);
            prop_assert!(fit_together(&input, node, &slots), "{slots:?}");
            // A run that has begun ends where it is.
            let undrained = Node { draining: false, ..node.clone() };
            for slot in slots {
                let service = &input.services[&slot.service];
                let begun = service.spec.mode == ServiceMode::ReplicatedJob
                    && node.claims.get(slot).is_some_and(|claim| claim.running);
                let node = if begun { &undrained } else { node };
                prop_assert!(may_run(node, service));
            }
        }
    }

    #[test]
    fn every_slot_is_placed_or_refused_by_every_node(input in messy_cluster()) {
        let decided = plan(&input, Rules::newest());
        let all: BTreeSet<Slot> = input.services.keys().flat_map(|key| slots_of(&input, key)).collect();
        let decided_on: Vec<&Slot> = decided.placements.keys().chain(decided.unplaced.keys()).collect();
        prop_assert_eq!(decided_on.len(), all.len());
        prop_assert!(decided_on.iter().all(|slot| all.contains(slot)));
        prop_assert!(decided.placements.values().all(|it| !it.reasons.is_empty()));
        for (slot, refusals) in &decided.unplaced {
            if is_global(&input.services[&slot.service]) {
                let own: Vec<_> = refusals.iter().map(|it| node_slot(&input, it.node)).collect();
                prop_assert_eq!(own, [Some(slot.replica)]);
                let node = &input.nodes[&refusals[0].node];
                let mut with = held(&decided, refusals[0].node);
                with.push(slot);
                prop_assert!(!may_run(node, &input.services[&slot.service]) || !fit_together(&input, node, &with));
                continue;
            }
            // It waits for nodes that are down, and for no other reason.
            if refusals.len() < input.nodes.len() {
                prop_assert!(disconnect::is_awaited(&input, slot));
                prop_assert!(refusals.iter().all(|it| !input.nodes[&it.node].up));
                continue;
            }
            let nodes: Vec<_> = refusals.iter().map(|it| &it.node).collect();
            prop_assert_eq!(nodes, input.nodes.keys().collect::<Vec<_>>());
            // The refusals are true.
            for (id, node) in &input.nodes {
                let mut with = held(&decided, *id);
                with.push(slot);
                let service = &input.services[&slot.service];
                prop_assert!(
                    !may_run(node, service)
                        || !fit_together(&input, node, &with)
                        || volumes_forbid(&input, &decided, service, *id)
                );
            }
        }
    }

    #[test]
    fn a_feasible_claim_keeps_its_node(input in messy_cluster()) {
        let decided = plan(&input, Rules::newest());
        for (id, node) in &input.nodes {
            let valid = |slot: &&Slot| is_deployed(&input, *id, slot) && may_run(node, &input.services[&slot.service]);
            let slots: Vec<&Slot> = node.claims.keys().filter(valid).collect();
            if !fit_together(&input, node, &slots) {
                continue;
            }
            let alone = |slot: &Slot| {
                input.nodes.values().filter(|it| it.claims.contains_key(slot)).count() == 1
                    && !input.moves.contains_key(slot)
                    && volumes_of(&input.services[&slot.service]).is_empty()
            };
            for slot in slots.into_iter().filter(|slot| alone(slot)) {
                prop_assert_eq!(decided.placements.get(slot).map(|it| it.node), Some(*id));
            }
        }
    }

    #[test]
    fn a_slot_stays_with_one_of_the_feasible_nodes_that_claim_it(input in messy_cluster()) {
        let decided = plan(&input, Rules::newest());
        let ordered: BTreeSet<_> =
            decided.moves.iter().filter(|it| is_ordered(it)).map(|it| &it.slot).collect();
        let free = |slot: &Slot| volumes_of(&input.services[&slot.service]).is_empty() && !ordered.contains(slot);
        for (slot, placement) in decided.placements.iter().filter(|(slot, _)| free(slot)) {
            let valid = |(id, it): (&NodeId, &Node)| {
                let claims: Vec<&Slot> = it.claims.keys().filter(|slot| is_deployed(&input, *id, slot)).collect();
                it.claims.contains_key(slot)
                    && may_run(it, &input.services[&slot.service])
                    && fit_together(&input, it, &claims)
            };
            if input.nodes.iter().any(valid) {
                prop_assert!(input.nodes[&placement.node].claims.contains_key(slot), "{slot} moved away from the nodes that claim it");
                prop_assert_eq!(placement.reasons[0].as_str(), "keeps its node");
            }
        }
    }

    #[test]
    fn a_converged_cluster_needs_no_moves(input in converged_cluster()) {
        let decided = plan(&input, Rules::newest());
        prop_assert_eq!(&decided.moves, &vec![]);
        let mut again = input.clone();
        converge(&mut again, &decided);
        prop_assert_eq!(input, again);
    }

    #[test]
    fn a_dead_node_moves_only_its_own_slots(mut input in converged_cluster(), victim in 0..6_u16, how in 0..3) {
        let before = plan(&input, Rules::newest());
        let victim = node_id(victim);
        let Some(node) = input.nodes.get_mut(&victim) else { return Ok(()) };
        match how {
            0 => node.up = false,
            1 => node.draining = true,
            _ => node.runtime_error = Some("connection refused".to_owned()),
        }
        let after = plan(&input, Rules::newest());
        for (slot, placement) in &before.placements {
            let now = after.placements.get(slot).map(|it| it.node);
            // A run that has begun ends where it is.
            let is_run = input.services[&slot.service].spec.mode == ServiceMode::ReplicatedJob;
            let stays = placement.node != victim || how == 1 && is_run;
            prop_assert_eq!(now == Some(placement.node), stays);
        }
        prop_assert!(after.moves.iter().all(|it| it.from == Some(victim) && it.to != Some(victim)));
    }

    #[test]
    fn a_new_node_moves_nothing(mut input in converged_cluster(), mut new in a_node(), old in 0..6_u16) {
        let before = plan(&input, Rules::newest());
        new.up = true;
        input.nodes.insert(node_id(100), new);
        let after = plan(&input, Rules::newest());
        prop_assert!(before.placements.iter().all(|(slot, it)| after.placements[slot].node == it.node));
        prop_assert!(after.moves.iter().all(|it| it.from.is_none() && it.to == Some(node_id(100))));
        // Nor does a node that returns without the claims that were replaced.
        let Some(node) = input.nodes.get_mut(&node_id(old)) else { return Ok(()) };
        node.up = false;
        let without = plan(&input, Rules::newest());
        converge(&mut input, &without);
        let node = input.nodes.get_mut(&node_id(old)).expect("a member");
        node.up = true;
        node.claims.clear();
        let back = plan(&input, Rules::newest());
        prop_assert!(without.placements.iter().all(|(slot, it)| back.placements[slot].node == it.node));
    }

    #[test]
    fn replicas_are_on_distinct_nodes_where_they_fit(input in empty_cluster()) {
        let decided = plan(&input, Rules::newest());
        for (key, service) in input.services.iter().filter(|(_, it)| volumes_of(it).is_empty()) {
            let own = |id| decided.slots_of(id).filter(|slot| slot.service == *key).count();
            let most = input.nodes.keys().map(|id| own(*id)).max().unwrap_or_default();
            for (id, node) in input.nodes.iter().filter(|(id, it)| own(**id) + 1 < most && may_run(it, service)) {
                let mut with: Vec<&Slot> = decided.slots_of(*id).collect();
                let slot = Slot { service: key.clone(), replica: 1 };
                with.push(&slot);
                prop_assert!(!fit_together(&input, node, &with), "{key} has {most} on one and room on {id}");
            }
        }
    }

    /// The stability statement of the crate's documentation.
    #[test]
    fn a_partly_executed_plan_stays_the_same(
        input in messy_cluster(),
        steps in vec(any::<(bool, bool)>(), 80),
    ) {
        let first = plan(&input, Rules::newest());
        let mut now = input.clone();
        let mut steps = steps.into_iter().cycle();
        // Some nodes have claimed some of their slots; not all of them run yet.
        for (slot, placement) in &first.placements {
            let (does, running) = steps.next().unwrap_or_default();
            if does && !input.nodes[&placement.node].claims.contains_key(slot) {
                claim(&mut now, placement.node, slot);
                let view = now.nodes.get_mut(&placement.node).and_then(|it| it.claims.get_mut(slot)).expect("a claim");
                view.running = running;
            }
        }
        // Some of those hold volume data now, but for what a node that is waited for would hold.
        let awaited = input.nodes.values().flat_map(|node| node.claims.keys());
        let awaited = awaited.filter(|slot| disconnect::is_awaited(&input, slot));
        let awaited: BTreeSet<_> =
            awaited.flat_map(|slot| volume_group(&input, &input.services[&slot.service])).collect();
        for (slot, placement) in &first.placements {
            let claims = &now.nodes[&placement.node].claims;
            if !awaited.is_disjoint(&volumes_of(&input.services[&slot.service])) {
                continue;
            }
            if claims.contains_key(slot) && steps.next().unwrap_or_default().0 {
                hold(&mut now, slot, placement.node);
            }
        }
        // Some have withdrawn claims they lose, except those with a move order, which would become void.
        for it in first.moves.iter().filter(|it| !is_ordered(it)) {
            if let (Some(from), (true, _)) = (it.from, steps.next().unwrap_or_default()) {
                now.nodes.get_mut(&from).expect("a member").claims.remove(&it.slot);
            }
        }
        let second = plan(&now, Rules::newest());
        prop_assert_eq!(places(&first), places(&second));
        prop_assert_eq!(first.unplaced.keys().collect::<Vec<_>>(), second.unplaced.keys().collect::<Vec<_>>());
        // No step adds moves: the remaining ones were in the first plan.
        let all: BTreeSet<_> = first.moves.iter().map(|it| (&it.slot, it.to)).collect();
        prop_assert!(second.moves.iter().all(|it| all.contains(&(&it.slot, it.to))));
    }

    #[test]
    fn services_run_where_their_volumes_are(input in messy_cluster()) {
        let decided = plan(&input, Rules::newest());
        let mut holders = input.volumes.clone();
        for (slot, placement) in &decided.placements {
            for volume in volumes_of(&input.services[&slot.service]) {
                prop_assert_eq!(*holders.entry(volume).or_insert(placement.node), placement.node);
            }
        }
    }

    #[test]
    fn a_move_order_moves_only_its_slot(
        mut input in converged_cluster(),
        which in any::<u16>(),
        to in 0..6_u16,
    ) {
        let before = plan(&input, Rules::newest());
        let slots: Vec<&Slot> = before.placements.keys().collect();
        let Some(&slot) = slots.get(usize::from(which) % slots.len().max(1)) else { return Ok(()) };
        let (from, to) = (before.placements[slot].node, node_id(to));
        input.moves.insert(slot.clone(), (from, to));
        let after = plan(&input, Rules::newest());
        let takes = input.nodes.get(&to).is_some_and(|node| {
            let service = &input.services[&slot.service];
            let mut with: Vec<&Slot> = before.slots_of(to).collect();
            with.push(slot);
            to != from
                && may_run(node, service)
                && fit_together(&input, node, &with)
                && volumes_of(service).is_empty()
                && !is_global(service)
        });
        let mut expected = places(&before);
        if takes {
            expected.insert(slot, to);
            prop_assert_eq!(after.moves.len(), 1);
            prop_assert!(is_ordered(&after.moves[0]));
            prop_assert_eq!((after.moves[0].from, after.moves[0].to), (Some(from), Some(to)));
        } else {
            prop_assert_eq!(&after.moves, &vec![]);
        }
        prop_assert_eq!(places(&after), expected);
    }

    #[test]
    fn extreme_numbers_neither_panic_nor_overcommit(
        mut input in messy_cluster(),
        extremes in vec((0..7_u16, 0..7_u8, prop_oneof![Just(0), Just(1), Just(u64::MAX - 1), Just(u64::MAX)]), 4),
    ) {
        for (at, service, number) in extremes {
            if let Some(node) = input.nodes.get_mut(&node_id(at)) {
                node.capacity = Resources { cpu_millis: number, memory_bytes: u64::MAX };
                node.claims.insert(Slot { service: key(service), replica: u32::MAX }, ClaimView {
                    digest: String::new(),
                    running: true,
                    lamport: number,
                    started: 0,
                });
            }
            if let Some(service) = input.services.get_mut(&key(service)) {
                service.spec.container.reservation = Resources { cpu_millis: number, memory_bytes: number };
                service.revision = number;
            }
        }
        let decided = plan(&input, Rules::newest());
        for (id, node) in &input.nodes {
            let held: Vec<_> = decided.slots_of(*id).map(|slot| container(&input, slot).reservation).collect();
            let sum = |of: fn(Resources) -> u64| held.iter().map(|it| u128::from(of(*it))).sum::<u128>();
            prop_assert!(sum(|it| it.cpu_millis) <= node.capacity.cpu_millis.into());
            prop_assert!(sum(|it| it.memory_bytes) <= node.capacity.memory_bytes.into());
        }
    }
}

#[test]
fn replicas_above_the_maximum_are_capped() {
    let mut input = PlanInput::default();
    input.nodes.insert(node_id(0), node("m", 1000, 1024));
    input.services.insert(key(0), service(u32::MAX, 0, 0));
    assert_eq!(plan(&input, Rules::newest()).placements.len(), 1000);
}

/// The score ignores later services when it replaces a slot of an earlier one. This bounds the cost.
#[test]
fn small_services_are_spread_evenly_whatever_else_the_nodes_run() {
    for others in [[0, 0, 0], [1000, 1000, 950], [100, 2000, 3000]] {
        let mut input = PlanInput::default();
        for number in 0..3 {
            input.nodes.insert(node_id(number), node("m", 4000, 8192));
            let mut other = service(1, others[usize::from(number)], 512);
            other.revision = 1;
            let key: ServiceKey = format!("other/o{number}").parse().expect("a service");
            input.services.insert(key.clone(), other);
            claim(&mut input, node_id(number), &Slot { service: key, replica: 1 });
        }
        let before = plan(&input, Rules::newest());
        assert!(before.moves.is_empty(), "the claims are kept");
        for number in 0..40 {
            let mut small = service(1, 0, 8);
            small.revision = 2 + u64::from(number);
            input.services.insert(key(number), small);
        }
        let decided = plan(&input, Rules::newest());
        let mut counts: Vec<usize> =
            (0..3).map(|number| decided.slots_of(node_id(number)).count()).collect();
        counts.sort_unstable();
        assert_eq!(counts, [14, 14, 15], "one of them is {others:?}'s");
        converge(&mut input, &decided);
        assert_eq!(rebalance(&input, Rules::newest()), [], "rebalance agrees");
    }
}

#[test]
fn load_stays_spread_after_deaths_and_arrivals() {
    let mut input = PlanInput::default();
    for number in 0..6 {
        input.nodes.insert(node_id(number), node("m", 4000, 4096));
    }
    for number in 0..60 {
        let mut service = service(1, 0, 0);
        service.revision = number.into();
        input.services.insert(key(number), service);
    }
    let held = |plan: &Plan| -> Vec<usize> {
        (0..7).map(|number| plan.slots_of(node_id(number)).count()).collect()
    };
    let mut decided = plan(&input, Rules::newest());
    assert_eq!(held(&decided), [10, 10, 10, 10, 10, 10, 0]);
    converge(&mut input, &decided);
    input.nodes.get_mut(&node_id(2)).expect("a member").up = false;
    decided = plan(&input, Rules::newest());
    assert_eq!(held(&decided), [12, 12, 0, 12, 12, 12, 0]);
    converge(&mut input, &decided);
    // A new node gets what becomes free next.
    input.nodes.insert(node_id(6), node("m", 4000, 4096));
    input.nodes.get_mut(&node_id(3)).expect("a member").up = false;
    decided = plan(&input, Rules::newest());
    let counts = held(&decided).into_iter().filter(|&count| count > 0);
    assert_eq!(counts.clone().sum::<usize>(), 60);
    assert!(
        counts.clone().max() <= counts.clone().min().map(|least| least + 2),
        "{:?}",
        held(&decided)
    );
}
