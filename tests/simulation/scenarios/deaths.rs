//! Deaths, restarts and returns of nodes.

use super::{cluster, running_on, started_and_stopped};
use vc_protocol::spec::{Attribute, Constraint, Dependency};
use vc_simulation::invariants::{
    documents_converge, minimal_movement, no_actions_at_rest, replicas_rescheduled,
};
use vc_simulation::services::{deploy, resources, service, version};

#[test]
fn replicas_of_a_dead_node_are_rescheduled_within_the_bound_and_no_others_move() {
    let mut world = cluster(3, "replicas_of_a_dead_node");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let held = minimal_movement::slots_of(&world, 2);
    let cursor = world.history.cursor();
    world.kill_host(2);
    world.run(3_000);
    assert!(
        !world.up(0).contains(&2) && !world.up(1).contains(&2),
        "the death is detected within three seconds"
    );
    world.run(world.rescheduling_bound() - 3_000);
    world.require(replicas_rescheduled::check(&world, &[0, 1]));
    world.require(minimal_movement::only(&world, cursor, &held));
}

#[test]
fn the_last_of_three_nodes_runs_all_replicas_after_two_deaths_in_a_row() {
    let mut world = cluster(3, "after_two_deaths_in_a_row");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    world.kill_host(2);
    world.run(world.rescheduling_bound());
    world.kill_host(1);
    world.run(world.rescheduling_bound());
    world.require(replicas_rescheduled::check(&world, &[0]));
    assert_eq!(running_on(&world, 0), 6);
}

#[test]
fn the_last_of_three_nodes_runs_all_replicas_after_two_simultaneous_deaths() {
    let mut world = cluster(3, "after_two_simultaneous_deaths");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    world.kill_host(2);
    world.kill_host(1);
    world.run(world.rescheduling_bound());
    world.require(replicas_rescheduled::check(&world, &[0]));
}

#[test]
fn a_replica_that_moves_does_not_wait_for_a_dead_dependency() {
    let mut world = cluster(3, "a_replica_that_moves_does_not_wait");
    let on = |deployment: vc_protocol::spec::Deployment, equal, name: &str| {
        let mut deployment = deployment;
        let value = name.to_owned();
        deployment.spec.constraints.push(Constraint { attribute: Attribute::Name, equal, value });
        deployment
    };
    let mut api = on(service("api", 4), false, "m0");
    api.spec.depends_on.insert("db".parse().expect("a name"), Dependency::ServiceStarted);
    world.command(0, deploy(on(service("db", 1), true, "m2")));
    world.command(0, deploy(api));
    world.converge(20_000);
    world.kill_host(2);
    world.run(world.rescheduling_bound());
    assert_eq!(running_on(&world, 1), 4, "all replicas of api, although db is down");
}

#[test]
fn a_returning_node_does_not_mark_a_dead_node_up() {
    let mut world = cluster(3, "does_not_mark_a_dead_node_up");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    world.kill_host(2);
    world.run(world.rescheduling_bound());
    world.kill_host(1);
    world.run(world.rescheduling_bound());
    let cursor = world.history.cursor();
    world.boot(2);
    world.converge(30_000);
    assert!(!world.up(0).contains(&1), "m1 is still down");
    world.require(minimal_movement::none(&world, cursor));
    assert_eq!(running_on(&world, 0), 6);
}

#[test]
fn a_returning_node_starts_and_stops_no_instance() {
    let mut world = cluster(3, "a_returning_node_starts");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    world.kill_host(1);
    world.run(world.rescheduling_bound());
    let cursor = world.history.cursor();
    world.boot(1);
    world.converge(30_000);
    world.require(minimal_movement::none(&world, cursor));
    assert_eq!(running_on(&world, 1), 0);
}

#[test]
fn a_joining_node_starts_and_stops_no_instance() {
    let mut world = cluster(2, "a_joining_node");
    world.command(0, deploy(service("web", 5)));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.join(resources(16_000, 16_384));
    world.converge(30_000);
    world.require(minimal_movement::none(&world, cursor));
}

#[test]
fn a_process_restarted_before_its_death_is_detected_adopts_its_containers() {
    let mut world = cluster(3, "a_process_restarted_before");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.kill_process(2);
    world.run(800);
    world.boot(2);
    world.converge(30_000);
    assert_eq!(started_and_stopped(&world, cursor), (0, 0));
}

#[test]
fn a_process_restarted_after_its_death_is_detected_leaves_one_instance_of_each_slot() {
    let mut world = cluster(3, "a_process_restarted_after");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let held = minimal_movement::slots_of(&world, 2);
    let cursor = world.history.cursor();
    world.kill_process(2);
    world.run(20_000);
    world.boot(2);
    world.converge(30_000);
    assert_eq!(
        started_and_stopped(&world, cursor),
        (held.len(), held.len()),
        "each slot was started elsewhere, and one of its two instances stopped"
    );
}

#[test]
fn all_processes_killed_during_deploys_adopt_their_containers() {
    let mut world = cluster(4, "all_processes_killed_during");
    world.command(0, deploy(service("web", 8)));
    world.converge(20_000);
    let before: usize = (0..4).map(|index| running_on(&world, index)).sum();
    let cursor = world.history.cursor();
    for n in 0..4 {
        world.command(n, deploy(service(&format!("new{n}"), 2)));
        // The nodes know a deployment before the next one: two that place concurrent ones may both start a slot.
        world.run(if n < 3 { 30 } else { 3 });
    }
    (0..4).for_each(|index| world.kill_process(index));
    world.run(60_000);
    (0..4).for_each(|index| world.boot(index));
    world.converge(60_000);
    assert_eq!(before, 8);
    assert_eq!(started_and_stopped(&world, cursor), (8, 0), "only the new services were started");
}

#[test]
fn placements_are_unchanged_after_all_hosts_lose_power() {
    let mut world = cluster(3, "placements_are_unchanged");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let held: Vec<_> = (0..3).map(|index| minimal_movement::slots_of(&world, index)).collect();
    (0..3).for_each(|index| world.kill_host(index));
    world.run(10_000);
    (0..3).for_each(|index| world.boot(index));
    world.converge(60_000);
    let now: Vec<_> = (0..3).map(|index| minimal_movement::slots_of(&world, index)).collect();
    assert_eq!(held, now);
}

#[test]
fn a_stalled_node_accuses_no_other_node() {
    let mut world = cluster(4, "a_stalled_node");
    world.command(0, deploy(service("web", 4)));
    world.converge(20_000);
    world.stall(3, 20_000);
    world.run(20_000);
    assert_eq!(world.up(0).len(), 3, "the stalled node was considered down");
    let cursor = world.history.cursor();
    world.run(100);
    for index in 0..3 {
        assert!(world.up(3).contains(&index), "m3 accused m{index} after its stall");
    }
    world.converge(30_000);
    assert!(started_and_stopped(&world, cursor).0 == 0, "no instance was started");
}

#[test]
fn a_converged_cluster_takes_no_action_for_ten_minutes() {
    let mut world = cluster(4, "a_converged_cluster");
    world.network.faults.loss = 50;
    world.command(0, deploy(service("web", 6)));
    world.command(1, deploy(version(service("api", 3), 2)));
    world.converge(30_000);
    let cursor = world.history.cursor();
    world.run(600_000);
    world.require(no_actions_at_rest::check(&world, cursor));
    world.require(documents_converge::disks(&world));
}
