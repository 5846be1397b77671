//! Nodes die and return.

use super::{cluster, moved, runs};
use crate::invariants::{
    documents_converge, minimal_movement, orphans_replaced, quiet_cluster_is_left_alone,
};
use crate::services::{amount, deploy, service, version};

#[test]
fn what_one_of_three_held_is_replaced_in_time_and_nothing_else_moves() {
    let mut world = cluster(3, "what_one_of_three");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let held = minimal_movement::held(&world, 2);
    let cursor = world.history.cursor();
    world.kill_host(2);
    world.run(3_000);
    assert!(
        !world.up(0).contains(&2) && !world.up(1).contains(&2),
        "three seconds are enough to miss it"
    );
    world.run(world.replacement_bound() - 3_000);
    world.require(orphans_replaced::check(&world, &[0, 1]));
    world.require(minimal_movement::only(&world, cursor, &held));
}

#[test]
fn the_last_of_three_runs_everything_when_the_second_dies_too() {
    let mut world = cluster(3, "the_last_of_three");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    world.kill_host(2);
    world.run(world.replacement_bound());
    world.kill_host(1);
    world.run(world.replacement_bound());
    world.require(orphans_replaced::check(&world, &[0]));
    assert_eq!(runs(&world, 0), 6);
}

#[test]
fn the_last_of_three_runs_everything_when_two_die_at_once() {
    let mut world = cluster(3, "when_two_die_at_once");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    world.kill_host(2);
    world.kill_host(1);
    world.run(world.replacement_bound());
    world.require(orphans_replaced::check(&world, &[0]));
}

#[test]
fn a_host_that_returns_does_not_revive_a_dead_one() {
    let mut world = cluster(3, "does_not_revive_a_dead_one");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    world.kill_host(2);
    world.run(world.replacement_bound());
    world.kill_host(1);
    world.run(world.replacement_bound());
    let cursor = world.history.cursor();
    world.boot(2);
    world.converge(30_000);
    assert!(!world.up(0).contains(&1), "it is still dead");
    world.require(minimal_movement::nothing(&world, cursor));
    assert_eq!(runs(&world, 0), 6);
}

#[test]
fn a_host_that_returns_moves_nothing() {
    let mut world = cluster(3, "a_host_that_returns");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    world.kill_host(1);
    world.run(world.replacement_bound());
    let cursor = world.history.cursor();
    world.boot(1);
    world.converge(30_000);
    world.require(minimal_movement::nothing(&world, cursor));
    assert_eq!(runs(&world, 1), 0);
}

#[test]
fn a_node_that_joins_moves_nothing() {
    let mut world = cluster(2, "a_node_that_joins");
    world.command(0, deploy(service("web", 5)));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.join(amount(16_000, 16_384));
    world.converge(30_000);
    world.require(minimal_movement::nothing(&world, cursor));
}

#[test]
fn a_process_that_is_back_before_it_is_missed_takes_up_its_containers() {
    let mut world = cluster(3, "a_process_that_is_back");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.kill_process(2);
    world.run(800);
    world.boot(2);
    world.converge(30_000);
    assert_eq!(moved(&world, cursor), (0, 0));
}

#[test]
fn a_process_that_comes_back_late_costs_its_successors_or_its_own_containers_and_no_more() {
    let mut world = cluster(3, "a_process_that_comes_back_late");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let held = minimal_movement::held(&world, 2);
    let cursor = world.history.cursor();
    world.kill_process(2);
    world.run(20_000);
    world.boot(2);
    world.converge(30_000);
    assert_eq!(
        moved(&world, cursor),
        (held.len(), held.len()),
        "each was started elsewhere, and one of the two stopped"
    );
}

#[test]
fn all_killed_at_once_during_deploys_take_up_their_containers_when_they_are_back() {
    let mut world = cluster(4, "all_killed_at_once");
    world.command(0, deploy(service("web", 8)));
    world.converge(20_000);
    let before: usize = (0..4).map(|of| runs(&world, of)).sum();
    let cursor = world.history.cursor();
    for n in 0..4 {
        world.command(n, deploy(service(&format!("new{n}"), 2)));
        world.run(3);
    }
    (0..4).for_each(|of| world.kill_process(of));
    world.run(60_000);
    (0..4).for_each(|of| world.boot(of));
    world.converge(60_000);
    assert_eq!(before, 8);
    assert_eq!(moved(&world, cursor), (8, 0), "the new ones and nothing else");
}

#[test]
fn all_hosts_that_lose_power_run_the_same_again() {
    let mut world = cluster(3, "all_hosts_that_lose_power");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let held: Vec<_> = (0..3).map(|of| minimal_movement::held(&world, of)).collect();
    (0..3).for_each(|of| world.kill_host(of));
    world.run(10_000);
    (0..3).for_each(|of| world.boot(of));
    world.converge(60_000);
    let now: Vec<_> = (0..3).map(|of| minimal_movement::held(&world, of)).collect();
    assert_eq!(held, now);
}

#[test]
fn a_stalled_node_accuses_no_other() {
    let mut world = cluster(4, "a_stalled_node");
    world.command(0, deploy(service("web", 4)));
    world.converge(20_000);
    world.stall(3, 20_000);
    world.run(20_000);
    assert_eq!(world.up(0).len(), 3, "it was missed itself");
    let cursor = world.history.cursor();
    world.run(100);
    for of in 0..3 {
        assert!(world.up(3).contains(&of), "m3 accused m{of} after its stall");
    }
    world.converge(30_000);
    assert!(moved(&world, cursor).0 == 0, "nothing had to be started for it");
}

#[test]
fn a_cluster_at_rest_is_left_alone_for_ten_minutes() {
    let mut world = cluster(4, "a_cluster_at_rest");
    world.network.faults.loss = 50;
    world.command(0, deploy(service("web", 6)));
    world.command(1, deploy(version(service("api", 3), 2)));
    world.converge(30_000);
    let cursor = world.history.cursor();
    world.run(600_000);
    world.require(quiet_cluster_is_left_alone::check(&world, cursor));
    world.require(documents_converge::disks(&world));
}
