//! Restarts that nodes announce.

use super::{cluster, started_and_stopped};
use vc_simulation::invariants::{minimal_movement, replicas_rescheduled};
use vc_simulation::services::{deploy, service};
use vc_simulation::world::World;

/// Returns a world of three nodes with six replicas, of which the last node has announced a restart and ended.
fn restarting(name: &str) -> World {
    let mut world = cluster(3, name);
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    world.announce_restart(2);
    world.run(1000);
    world
}

#[test]
fn an_announced_restart_within_its_bound_moves_and_restarts_nothing() {
    let mut world = restarting("an_announced_restart_within");
    let cursor = world.history.cursor();
    world.kill_process(2);
    world.run(12_000);
    assert!(world.up(0).contains(&2) && world.up(1).contains(&2), "it is not counted as down");
    world.boot(2);
    world.converge(30_000);
    assert_eq!(started_and_stopped(&world, cursor), (0, 0));
    let view = world.engine(0).view();
    assert_eq!(view.nodes[&world.nodes[2].id].restarting, None, "it is back");
}

#[test]
fn a_node_that_does_not_return_from_a_restart_is_down_after_the_bound() {
    let mut world = restarting("a_node_that_does_not_return");
    let held = minimal_movement::slots_of(&world, 2);
    let cursor = world.history.cursor();
    world.kill_host(2);
    world.run(14_000);
    assert!(world.up(0).contains(&2) && world.up(1).contains(&2), "the bound is 15 s");
    world.run(2_000);
    assert!(!world.up(0).contains(&2) && !world.up(1).contains(&2), "the bound is over");
    world.run(world.rescheduling_bound());
    world.require(replicas_rescheduled::check(&world, &[0, 1]));
    world.require(minimal_movement::only(&world, cursor, &held));
}

#[test]
fn a_death_during_a_restart_is_detected_once_the_restarting_node_is_back_or_overdue() {
    for returns in [true, false] {
        let mut world = restarting("a_death_during_a_restart");
        world.kill_process(2);
        world.kill_host(1);
        world.run(3_000);
        assert!(world.up(0).contains(&2), "it restarts");
        if returns {
            world.boot(2);
            world.run(8_000);
        } else {
            world.run(16_000);
        }
        assert_eq!(world.up(0).contains(&2), returns);
        assert!(!world.up(0).contains(&1));
    }
}
