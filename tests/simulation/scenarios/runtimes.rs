//! Outages of container runtimes, and differences between their containers and the plan.

use vc_engine::Input;

use super::{cluster, running_on, started_and_stopped};
use crate::invariants::{minimal_movement, replicas_rescheduled};
use crate::services::{deploy, service};

#[test]
fn a_runtime_outage_of_three_seconds_moves_nothing() {
    let mut world = cluster(3, "a_runtime_outage_of_three");
    world.command(0, deploy(service("web", 6)));
    world.converge(30_000);
    let cursor = world.history.cursor();
    world.set_runtime_available(1, false, false);
    world.run(3_000);
    world.set_runtime_available(1, true, false);
    world.converge(30_000);
    world.require(minimal_movement::none(&world, cursor));
}

#[test]
fn replicas_on_a_failed_runtime_are_rescheduled_and_duplicates_stop_when_it_recovers() {
    let mut world = cluster(3, "replicas_on_a_failed_runtime");
    world.command(0, deploy(service("web", 6)));
    world.converge(30_000);
    let held = minimal_movement::slots_of(&world, 1);
    let cursor = world.history.cursor();
    world.set_runtime_available(1, false, false);
    // The grace period of a runtime is added to the bound, which includes a detection time that is not needed here.
    world.run(5_000 + world.rescheduling_bound());
    world.require(replicas_rescheduled::check(&world, &[0, 2]));
    world.require(minimal_movement::only(&world, cursor, &held));
    world.set_runtime_available(1, true, false);
    world.converge(30_000);
    assert_eq!(started_and_stopped(&world, cursor), (held.len(), held.len()));
}

#[test]
fn actions_requested_during_a_runtime_outage_are_repeated_on_recovery() {
    let mut world = cluster(1, "actions_requested_during");
    world.set_runtime_available(0, false, false);
    world.run(500);
    world.command(0, deploy(service("web", 3)));
    world.run(500);
    world.set_runtime_available(0, true, false);
    world.run(5_000);
    assert_eq!(
        running_on(&world, 0),
        3,
        "actions are repeated on recovery, not after the retry interval"
    );
}

#[test]
fn a_returning_node_removes_obsolete_containers() {
    let mut world = cluster(3, "a_returning_node_removes");
    world.command(0, deploy(service("old", 3)));
    world.converge(30_000);
    world.kill_process(2);
    world.run(10_000);
    world.command(0, vc_engine::Mutation::Remove("old".to_owned()));
    world.command(0, deploy(service("web", 3)));
    world.run(10_000);
    let cursor = world.history.cursor();
    world.boot(2);
    world.converge(30_000);
    assert_eq!(
        started_and_stopped(&world, cursor),
        (0, 1),
        "the obsolete container stops, none starts"
    );
}

#[test]
fn a_container_removed_by_hand_is_started_again() {
    let mut world = cluster(1, "a_container_removed");
    world.command(0, deploy(service("web", 1)));
    world.converge(30_000);
    world.nodes[0].runtime.containers.clear();
    let listed = world.nodes[0].runtime.list();
    world.handle(0, Input::Runtime(vc_engine::runtime::RuntimeEvent::Listed(listed)));
    world.converge(30_000);
    assert_eq!(running_on(&world, 0), 1);
}
