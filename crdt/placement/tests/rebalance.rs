//! What `rebalance` proposes, and the plans while nodes follow the orders.
#![allow(clippy::expect_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use support::{claim, converge, node, node_id, service, volume};
use vc_placement::{PlanInput, Relocation, Rules, ServiceDemand, plan, rebalance};
use vc_protocol::spec::{Attribute, Constraint};
use vc_protocol::{NodeId, Slot};

/// Nodes m0, m1, … with 4 cores and 4 GiB each.
fn nodes(count: u16) -> PlanInput {
    let nodes = (0..count).map(|n| (node_id(n), node(&format!("m{n}"), 4000, 4096)));
    PlanInput { nodes: nodes.collect(), ..PlanInput::default() }
}

fn slot(text: &str) -> Slot {
    text.parse().expect("a slot")
}

/// Adds a service whose replicas run on these nodes.
fn add(input: &mut PlanInput, key: &str, mut service: ServiceDemand, on: &[u16]) {
    service.replicas = u32::try_from(on.len()).expect("few");
    input.services.insert(key.parse().expect("a service"), service);
    for (replica, &number) in (1_u32..).zip(on) {
        claim(input, node_id(number), &slot(&format!("{key}.{replica}")));
    }
}

/// Returns the proposal as text.
fn proposed(input: &PlanInput) -> Vec<String> {
    let name = |id: NodeId| input.nodes[&id].name.to_string();
    let line =
        |it: Relocation| format!("{} {} -> {}: {}", it.slot, name(it.from), name(it.to), it.reason);
    rebalance(input, Rules::newest()).into_iter().map(line).collect()
}

/// Adds the orders and lets the nodes follow them step by step until nothing is left to do.
fn follow(input: &mut PlanInput, orders: &[Relocation]) {
    input.moves.extend(orders.iter().map(|it| (it.slot.clone(), (it.from, it.to))));
    for _ in 0..=orders.len() {
        let decided = plan(input, Rules::newest());
        converge(input, &decided);
        // An order is void once its source has withdrawn the claim.
        let held = |slot: &Slot, from: &NodeId| input.nodes[from].claims.contains_key(slot);
        input.moves = input
            .moves
            .iter()
            .filter(|(slot, (from, _))| held(slot, from))
            .map(|(a, b)| (a.clone(), *b))
            .collect();
    }
}

#[test]
fn replicas_on_one_node_are_spread() {
    let mut input = nodes(3);
    add(&mut input, "shop/web", service(0, 0, 0), &[0, 0, 1]);
    assert_eq!(proposed(&input), ["shop/web.2 m0 -> m2: m0 has 2 replicas of shop/web, m2 none"]);
}

#[test]
fn an_empty_node_gets_a_share() {
    let mut input = nodes(3);
    add(&mut input, "shop/a", service(0, 1000, 0), &[0]);
    add(&mut input, "shop/b", service(0, 1000, 0), &[0]);
    add(&mut input, "shop/c", service(0, 2000, 0), &[1]);
    assert_eq!(proposed(&input), ["shop/a.1 m0 -> m2: 50% of m0 are reserved, 0% of m2"]);
    for number in 0..6 {
        add(&mut input, &format!("shop/light{number}"), service(0, 0, 0), &[0]);
    }
    let orders = rebalance(&input, Rules::newest());
    follow(&mut input, &orders);
    let counts: Vec<usize> = input.nodes.values().map(|it| it.claims.len()).collect();
    assert_eq!(counts, [3, 3, 3]);
}

#[test]
fn slots_bound_to_their_node_stay() {
    let mut input = nodes(2);
    let mut with_volume = service(0, 1500, 0);
    with_volume.spec.container.mounts = vec![volume("data")];
    add(&mut input, "shop/db", with_volume, &[0]);
    let mut pinned = service(0, 1500, 0);
    let on_m0 = Constraint { attribute: Attribute::Name, equal: true, value: "m0".to_owned() };
    pinned.spec.constraints = vec![on_m0];
    add(&mut input, "shop/pinned", pinned, &[0]);
    assert_eq!(proposed(&input), [""; 0]);
    // The free service would move but for the other two.
    add(&mut input, "shop/free", service(0, 500, 0), &[0]);
    assert_eq!(proposed(&input), ["shop/free.1 m0 -> m1: 87% of m0 are reserved, 0% of m1"]);
    for change in [
        |input: &mut PlanInput| input.nodes.get_mut(&node_id(1)).expect("m1").draining = true,
        |input: &mut PlanInput| input.nodes.get_mut(&node_id(1)).expect("m1").up = false,
        |input: &mut PlanInput| {
            input.moves.extend([(slot("shop/free.1"), (node_id(0), node_id(1)))])
        },
    ] {
        let mut changed = input.clone();
        change(&mut changed);
        assert_eq!(proposed(&changed), [""; 0], "no target, or being moved already");
    }
}

#[test]
fn small_differences_move_nothing() {
    let mut input = nodes(2);
    add(&mut input, "shop/a", service(0, 1000, 0), &[0]);
    add(&mut input, "shop/b", service(0, 1100, 0), &[0]);
    add(&mut input, "shop/c", service(0, 1000, 0), &[1]);
    assert_eq!(proposed(&input), [""; 0]);
}

#[test]
fn slots_that_would_swap_places_leave_nothing_to_a_second_proposal() {
    let mut input = PlanInput::default();
    for (number, cpu, mib) in [(0, 2500, 1024), (1, 2500, 512), (2, 3000, 1536), (3, 1500, 768)] {
        input.nodes.insert(node_id(number), node(&format!("m{number}"), cpu, mib));
    }
    add(&mut input, "shop/a", service(0, 1000, 0), &[2, 2, 2]);
    add(&mut input, "shop/b", service(0, 1000, 512), &[1]);
    add(&mut input, "shop/c", service(0, 500, 0), &[1, 1, 0]);
    add(&mut input, "shop/d", service(0, 1000, 0), &[0, 0]);
    let all = [
        "shop/a.2 m2 -> m0: m2 has 2 replicas of shop/a, m0 none",
        "shop/a.3 m2 -> m3: m2 has 3 replicas of shop/a, m3 none",
        "shop/c.2 m1 -> m3: m1 has 2 replicas of shop/c, m3 none",
        "shop/c.3 m0 -> m2: 100% of m0 are reserved, 66% of m2",
        "shop/d.2 m0 -> m2: m0 has 2 replicas of shop/d, m2 none",
    ];
    assert_eq!(proposed(&input), all);
    let orders = rebalance(&input, Rules::newest());
    follow(&mut input, &orders);
    assert_eq!(proposed(&input), [""; 0]);
}

prop_compose! {
    /// An uneven cluster: nodes joined and drained, and every slot fits where it runs.
    fn uneven_cluster()(
        nodes in vec((2_u64..9, 2_u64..9, 0..8_u8), 2..7),
        services in vec((1..5_u32, 0_u64..4, 0_u64..4, 0..8_u8), 1..9),
        crowded in 1..4_usize,
    ) -> PlanInput {
        let mut input = PlanInput::default();
        for (number, (cpu, mem, _)) in (0..).zip(&nodes) {
            let mut new = node(&format!("m{number}"), cpu * 500, mem * 256);
            // At first only some are available.
            new.draining = usize::from(number) >= crowded;
            input.nodes.insert(node_id(number), new);
        }
        for (number, (replicas, cpu, mem, kind)) in services.into_iter().enumerate() {
            let mut new = service(replicas, cpu * 500, mem * 256);
            if kind == 0 {
                new.spec.container.mounts = vec![volume("data")];
            }
            if kind == 1 {
                new.spec.ports = vec![support::port(80)];
            }
            input.services.insert(format!("p/s{number}").parse().expect("a service"), new);
        }
        let decided = plan(&input, Rules::newest());
        converge(&mut input, &decided);
        for (node, (_, _, fate)) in input.nodes.values_mut().zip(&nodes) {
            node.draining = *fate == 0;
        }
        // Unplaced slots would take the room that a move leaves: remove them.
        for slot in plan(&input, Rules::newest()).unplaced.keys() {
            input.services.remove(&slot.service);
        }
        let decided = plan(&input, Rules::newest());
        converge(&mut input, &decided);
        input
    }
}

fn places(input: &PlanInput) -> BTreeMap<Slot, NodeId> {
    plan(input, Rules::newest()).placements.into_iter().map(|(slot, it)| (slot, it.node)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..ProptestConfig::default() })]

    #[test]
    fn following_a_proposal_gives_exactly_its_result(mut input in uneven_cluster()) {
        let mut expected = places(&input);
        let orders = rebalance(&input, Rules::newest());
        prop_assert_eq!(&orders, &rebalance(&input, Rules::newest()));
        for it in &orders {
            prop_assert_eq!(expected.insert(it.slot.clone(), it.to), Some(it.from));
            prop_assert!(it.from != it.to && !it.reason.is_empty());
            prop_assert_eq!(input.services[&it.slot.service].spec.volumes().count(), 0);
        }
        // A second proposal while the moves are under way is empty.
        let mut ordered = input.clone();
        ordered.moves.extend(orders.iter().map(|it| (it.slot.clone(), (it.from, it.to))));
        prop_assert_eq!(rebalance(&ordered, Rules::newest()), vec![]);
        follow(&mut input, &orders);
        let now = places(&input);
        prop_assert!(expected.iter().all(|(slot, node)| now.get(slot) == Some(node)), "{:?}", orders);
        prop_assert_eq!(rebalance(&input, Rules::newest()), vec![]);
    }
}
