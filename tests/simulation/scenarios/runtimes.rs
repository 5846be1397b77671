//! Runtimes fail and recover.

use vc_engine::Input;

use super::{cluster, moved, runs};
use crate::invariants::{minimal_movement, orphans_replaced};
use crate::services::{deploy, service};

#[test]
fn a_runtime_that_is_away_for_a_moment_changes_nothing() {
    let mut world = cluster(3, "a_runtime_that_is_away_for_a_moment");
    world.command(0, deploy(service("web", 6)));
    world.converge(30_000);
    let cursor = world.history.cursor();
    world.runtime_answers(1, false, false);
    world.run(3_000);
    world.runtime_answers(1, true, false);
    world.converge(30_000);
    world.require(minimal_movement::nothing(&world, cursor));
}

#[test]
fn a_runtime_that_stays_away_is_replaced_and_stops_what_runs_elsewhere_when_it_is_back() {
    let mut world = cluster(3, "a_runtime_that_stays_away");
    world.command(0, deploy(service("web", 6)));
    world.converge(30_000);
    let held = minimal_movement::held(&world, 1);
    let cursor = world.history.cursor();
    world.runtime_answers(1, false, false);
    // Its grace comes on top of the bound, less the detection that it needs no time for.
    world.run(5_000 + world.replacement_bound());
    world.require(orphans_replaced::check(&world, &[0, 2]));
    world.require(minimal_movement::only(&world, cursor, &held));
    world.runtime_answers(1, true, false);
    world.converge(30_000);
    assert_eq!(moved(&world, cursor), (held.len(), held.len()));
}

#[test]
fn what_was_asked_of_a_runtime_that_was_away_is_asked_again_when_it_is_back() {
    let mut world = cluster(1, "what_was_asked_of_a_runtime");
    world.runtime_answers(0, false, false);
    world.run(500);
    world.command(0, deploy(service("web", 3)));
    world.run(500);
    world.runtime_answers(0, true, false);
    world.run(5_000);
    assert_eq!(runs(&world, 0), 3, "not only after the time for repeats");
}

#[test]
fn a_node_that_returns_with_obsolete_containers_removes_them() {
    let mut world = cluster(3, "a_node_that_returns_with");
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
    assert_eq!(moved(&world, cursor), (0, 1), "the old one goes, nothing comes");
}

#[test]
fn an_instance_that_is_removed_by_hand_is_started_again() {
    let mut world = cluster(1, "an_instance_that_is_removed");
    world.command(0, deploy(service("web", 1)));
    world.converge(30_000);
    world.nodes[0].runtime.containers.clear();
    let listed = world.nodes[0].runtime.list();
    world.handle(0, Input::Runtime(vc_engine::runtime::RuntimeEvent::Listed(listed)));
    world.converge(30_000);
    assert_eq!(runs(&world, 0), 1);
}
