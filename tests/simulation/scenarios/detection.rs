//! How fast the death of a node is noticed, and what is not taken for one: pauses, links that pass one way, a hung runtime.

use vc_crdt::liveness::{MAX_OBSERVERS, accuses, observers};
use vc_engine::Mutation;
use vc_protocol::{Millis, NodeId};

use super::{cluster, running_on, started_and_stopped};
use vc_simulation::invariants::{minimal_movement, replicas_rescheduled};
use vc_simulation::services::{deploy, service};
use vc_simulation::world::World;

/// Runs for a time in which no node counts another one as down.
fn run_without_verdicts(world: &mut World, duration: Millis) {
    let end = world.now + duration;
    while world.now < end {
        world.run(50);
        for index in world.running() {
            let up = world.up(index).len();
            assert_eq!(up, world.nodes.len(), "m{index} at {} ms", world.now);
        }
    }
}

#[test]
fn the_death_of_a_host_is_noticed_within_two_seconds() {
    for seed in ["noticed_a", "noticed_b", "noticed_c", "noticed_d"] {
        let mut world = cluster(3, seed);
        world.kill_host(2);
        world.run(2_000);
        for index in [0, 1] {
            assert!(!world.up(index).contains(&2), "m{index} has noticed");
        }
    }
}

#[test]
fn a_node_that_has_left_observes_no_other() {
    let mut world = cluster(MAX_OBSERVERS + 3, "a_node_that_has_left_observes");
    let ids: Vec<NodeId> = world.nodes.iter().map(|node| node.id).collect();
    let left = ids.len() - 1;
    world.command(0, Mutation::Leave { node: format!("m{left}"), force: true });
    world.run(2_000);
    world.turn_off(left);
    world.converge(30_000);
    let was_observed = |&index: &usize| observers(ids[index], ids.iter()).contains(&ids[left]);
    let victims: Vec<usize> = (1..left).filter(was_observed).collect();
    assert!(victims.len() > 1, "it observed others: {victims:?}");
    for &victim in victims.iter().take(2) {
        world.kill_host(victim);
        world.run(2_500);
        let view = world.engine(0).view();
        for by in observers(ids[victim], view.nodes.keys()) {
            let (name, of) = (view.name(by), view.name(ids[victim]));
            assert!(accuses(&view.nodes, by, ids[victim]), "{name} observes {of}");
        }
        world.boot(victim);
        world.converge(30_000);
    }
}

#[test]
fn a_node_that_pauses_for_1500_ms_is_not_called_down() {
    let mut world = cluster(3, "a_node_that_pauses_for_1500");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let cursor = world.history.cursor();
    for n in 0..40 {
        world.stall(2, 1_500);
        // Pauses at any moment between two heartbeats.
        run_without_verdicts(&mut world, 4_000 + 50 * (n % 5));
    }
    world.require(minimal_movement::none(&world, cursor));
}

#[test]
fn what_started_elsewhere_while_a_node_paused_for_eight_seconds_stops_when_it_is_back() {
    let mut world = cluster(3, "what_started_elsewhere_while");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let held = minimal_movement::slots_of(&world, 2);
    let cursor = world.history.cursor();
    world.stall(2, 8_000);
    world.run(8_000);
    world.require(replicas_rescheduled::check(&world, &[0, 1]));
    world.converge(30_000);
    assert_eq!(
        started_and_stopped(&world, cursor),
        (held.len(), held.len()),
        "what it held was started elsewhere once, and stopped there"
    );
    assert_eq!((world.up(0).len(), minimal_movement::slots_of(&world, 2)), (3, held));
}

#[test]
fn a_node_that_hears_the_others_and_is_not_heard_is_down_until_the_links_pass_both_ways() {
    let mut world = cluster(3, "a_node_that_hears_the_others");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.cut_one_way(2, 0);
    world.cut_one_way(2, 1);
    world.run(30_000);
    world.require(replicas_rescheduled::check(&world, &[0, 1]));
    world.heal();
    world.converge(60_000);
    let (started, stopped) = started_and_stopped(&world, cursor);
    assert_eq!(started, stopped, "one instance of each slot is left");
    assert_eq!((0..3).map(|index| running_on(&world, index)).sum::<usize>(), 6);
}

#[test]
fn two_nodes_of_which_one_is_not_heard_run_all_replicas_each_until_it_is() {
    let mut world = cluster(2, "two_nodes_of_which_one");
    world.command(0, deploy(service("web", 4)));
    world.converge(20_000);
    world.cut_one_way(0, 1);
    world.run(30_000);
    assert_eq!((running_on(&world, 0), running_on(&world, 1)), (4, 4));
    let cursor = world.history.cursor();
    world.heal();
    world.converge(60_000);
    assert_eq!(started_and_stopped(&world, cursor), (0, 4));
}

#[test]
fn what_a_hung_runtime_runs_is_started_nowhere_else() {
    let mut world = cluster(3, "what_a_hung_runtime_runs");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let held = minimal_movement::slots_of(&world, 1);
    let cursor = world.history.cursor();
    world.hang_runtime(1);
    world.run(60_000);
    let m1 = world.nodes[1].id;
    let fault =
        |world: &World, index: usize| world.engine(index).view().nodes[&m1].faults.node.clone();
    for index in [0, 2] {
        assert_eq!(fault(&world, index).as_deref(), Some("Docker hangs"), "m{index} says why");
    }
    // New slots go to the nodes that can start them.
    world.command(0, deploy(service("api", 4)));
    world.run(world.rescheduling_bound());
    assert_eq!(running_on(&world, 0) + running_on(&world, 2), 4 + 6 - held.len());
    world.set_runtime_available(1, true, false);
    world.converge(30_000);
    assert_eq!(fault(&world, 0), None);
    assert_eq!(started_and_stopped(&world, cursor), (4, 0), "what it ran still runs");
    assert_eq!(minimal_movement::slots_of(&world, 1), held);
}
