//! Outages of container runtimes, and differences between their containers and the plan.

use vc_engine::Input;

use super::{cluster, running_on, started_and_stopped};
use vc_simulation::history::Action;
use vc_simulation::invariants::{minimal_movement, replicas_rescheduled};
use vc_simulation::services::{deploy, service};

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

#[test]
fn what_a_node_cannot_start_runs_elsewhere_and_the_node_gets_slots_again_when_it_can() {
    let mut world = cluster(3, "what_a_node_cannot_start");
    world.nodes[1].runtime.exhausted = true;
    world.command(0, deploy(service("web", 6)));
    world.converge(30_000);
    assert_eq!([0, 1, 2].map(|index| running_on(&world, index)), [3, 0, 3]);
    // Another service is tried there once, and runs elsewhere as well.
    let cursor = world.history.cursor();
    world.command(0, deploy(service("api", 3)));
    world.converge(30_000);
    assert_eq!(started_and_stopped(&world, cursor), (3, 0));
    assert_eq!(running_on(&world, 1), 0);
    // By itself: the fault is said for two minutes.
    world.nodes[1].runtime.exhausted = false;
    world.run(130_000);
    world.command(0, deploy(service("mail", 3)));
    world.converge(30_000);
    assert!(running_on(&world, 1) > 0);
}

#[test]
fn a_service_that_no_node_can_start_does_not_travel_round_the_cluster() {
    let mut world = cluster(3, "a_service_that_no_node_can_start");
    for node in &mut world.nodes {
        node.runtime.exhausted = true;
    }
    let cursor = world.history.cursor();
    world.command(0, deploy(service("web", 1)));
    world.run(20 * 60_000);
    let removed = world.history.since(cursor).iter().filter(
        |entry| matches!(&entry.action, Action::Requested(what) if what.starts_with("remove")),
    );
    let moves = removed.count();
    assert!((2..=12).contains(&moves), "tried on each, then rarely: {moves}");
    world.nodes[2].runtime.exhausted = false;
    world.run(70 * 60_000);
    assert_eq!(running_on(&world, 2), 1);
}

#[test]
fn a_node_with_a_fault_keeps_what_runs_and_starts_nothing() {
    let mut world = cluster(2, "a_node_with_a_fault_keeps");
    world.command(0, deploy(service("web", 2)));
    world.converge(30_000);
    let held = minimal_movement::slots_of(&world, 1);
    assert_eq!(held.len(), 1);
    let cursor = world.history.cursor();
    world.handle(1, Input::Fault(Some("its disk is full".to_owned())));
    world.command(0, deploy(service("api", 2)));
    world.converge(30_000);
    assert_eq!(started_and_stopped(&world, cursor), (2, 0));
    assert_eq!(minimal_movement::slots_of(&world, 1), held);
    // Its instances are removed as ever.
    world.command(0, vc_engine::Mutation::Remove("web".to_owned()));
    world.converge(30_000);
    assert_eq!(running_on(&world, 1), 0);
    world.handle(1, Input::Fault(None));
    world.command(0, deploy(service("mail", 2)));
    world.converge(30_000);
    assert!(running_on(&world, 1) > 0);
}
