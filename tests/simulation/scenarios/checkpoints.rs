//! New generations of the cluster document, which drop its history.

use vc_engine::Mutation;
use vc_protocol::Millis;
use vc_protocol::change::{generation_count, generation_of};

use super::{cluster_with_history, started_and_stopped};
use vc_simulation::invariants::documents_converge;
use vc_simulation::services::{deploy, service};
use vc_simulation::world::World;

/// Returns how many generations of the cluster document there were before that of a node.
fn generations(world: &World, index: usize) -> u64 {
    generation_count(generation_of(&world.engine(index).replica().versions().cluster))
}

fn scale(replicas: u32) -> Mutation {
    Mutation::Scale { service: "web".to_owned(), replicas }
}

/// Returns a cluster of three nodes with a service, in which a history of ten changes is enough for a checkpoint.
fn busy(name: &str) -> World {
    let mut world = cluster_with_history(3, name, 10);
    world.command(0, deploy(service("web", 1)));
    world.converge(30_000);
    world
}

/// Has a command change the service `count` times, at each of these nodes in turn, with a pause in milliseconds.
fn change(world: &mut World, count: usize, nodes: usize, pause: Millis) {
    for n in 0..count {
        world.command(n % nodes, scale(1 + (n as u32) % 2));
        world.run(pause);
    }
}

#[test]
fn the_history_of_the_cluster_document_stays_bounded() {
    let mut world = busy("the_history_of_the_cluster");
    change(&mut world, 100, 3, 1000);
    world.converge(30_000);
    assert!(generations(&world, 0) >= 5, "{}", generations(&world, 0));
    assert!(world.nodes[2].disk.cluster_changes() < 50);
    let cursor = world.history.cursor();
    world.run(10_000);
    assert_eq!(started_and_stopped(&world, cursor), (0, 0));
    world.require(documents_converge::disks(&world));
}

#[test]
fn commands_during_checkpoints_are_kept() {
    let mut world = busy("commands_during_checkpoints");
    world.network.faults.loss = 100;
    for n in 0..300 {
        world.command(n % 3, scale(1 + (n as u32) % 4));
        world.run(40);
    }
    world.network.faults.loss = 0;
    world.converge(60_000);
    assert!(generations(&world, 0) >= 2, "{}", generations(&world, 0));
}

#[test]
fn a_member_that_is_down_keeps_the_history() {
    let mut world = busy("a_member_that_is_down");
    world.kill_process(2);
    world.run(10_000);
    change(&mut world, 40, 2, 500);
    assert_eq!(generations(&world, 0), 0);
    world.boot(2);
    world.run(20_000);
    world.command(0, scale(2));
    world.converge(30_000);
    assert_eq!(generations(&world, 2), 1);
}

#[test]
fn a_node_that_joins_after_checkpoints_has_everything() {
    let mut world = busy("a_node_that_joins_after");
    change(&mut world, 30, 3, 1000);
    world.converge(30_000);
    let cursor = world.history.cursor();
    world.join(vc_simulation::services::resources(4000, 4096));
    world.converge(30_000);
    assert_eq!(started_and_stopped(&world, cursor), (0, 0));
    assert!(generations(&world, 3) >= 2);
    assert_eq!(world.engine(3).view().plan.placements.len(), 2);
}

#[test]
fn a_node_restored_from_a_backup_of_an_earlier_generation_catches_up() {
    let mut world = busy("a_node_restored_from_a_backup_of_an_earlier");
    let backup = world.nodes[0].disk.clone();
    change(&mut world, 40, 3, 1000);
    world.converge(30_000);
    assert!(generations(&world, 0) >= 2);
    world.kill_process(0);
    world.nodes[0].disk = backup;
    let cursor = world.history.cursor();
    world.boot(0);
    world.converge(60_000);
    assert_eq!(started_and_stopped(&world, cursor), (0, 0));
    world.command(0, scale(3));
    world.converge(60_000);
    assert_eq!(world.engine(1).view().plan.placements.len(), 3);
    world.require(documents_converge::disks(&world));
}
