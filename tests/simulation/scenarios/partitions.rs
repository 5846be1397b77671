//! Partitions, broken links and message loss.

use super::{cluster, running_on, started_and_stopped};
use vc_simulation::invariants::{minimal_movement, replicas_rescheduled};
use vc_simulation::services::{deploy, service, version};

#[test]
fn each_side_of_a_partition_runs_all_replicas_and_duplicates_stop_when_it_heals() {
    let mut world = cluster(5, "each_side_of_a_partition");
    world.command(0, deploy(service("web", 10)));
    world.converge(20_000);
    world.partition(&[&[0, 1], &[2, 3, 4]]);
    world.run(world.rescheduling_bound());
    world.require(replicas_rescheduled::check(&world, &[0, 1]));
    world.require(replicas_rescheduled::check(&world, &[2, 3, 4]));
    let cursor = world.history.cursor();
    world.heal();
    world.converge(60_000);
    assert_eq!(
        started_and_stopped(&world, cursor),
        (0, 10),
        "one duplicate of each slot stopped, and nothing was started"
    );
}

#[test]
fn two_isolated_nodes_stop_only_duplicates_when_they_reconnect() {
    let mut world = cluster(2, "two_isolated_nodes");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    world.partition(&[&[0], &[1]]);
    world.run(30_000);
    assert_eq!((running_on(&world, 0), running_on(&world, 1)), (6, 6));
    let cursor = world.history.cursor();
    world.heal();
    world.converge(60_000);
    assert_eq!(started_and_stopped(&world, cursor), (0, 6));
}

#[test]
fn a_broken_link_between_two_of_three_nodes_moves_nothing() {
    let mut world = cluster(3, "a_broken_link_between_two");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.partition(&[&[0], &[1]]);
    world.run(120_000);
    world.require(minimal_movement::none(&world, cursor));
    assert_eq!(world.up(0).len(), 3);
}

#[test]
fn links_that_pass_messages_one_way_only_move_nothing() {
    let mut world = cluster(4, "links_that_pass_messages_one_way");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.cut_one_way(0, 1);
    world.cut_one_way(2, 0);
    world.run(120_000);
    world.require(minimal_movement::none(&world, cursor));
}

#[test]
fn deploys_on_both_sides_of_a_partition_are_merged_when_it_heals() {
    let mut world = cluster(4, "deploys_on_both_sides");
    world.partition(&[&[0, 1], &[2, 3]]);
    world.run(8_000);
    world.command(0, deploy(service("web", 2)));
    world.command(2, deploy(service("api", 2)));
    world.command(1, deploy(version(service("mail", 2), 1)));
    world.command(3, deploy(version(service("mail", 3), 2)));
    world.run(5_000);
    world.heal();
    world.converge(60_000);
    assert_eq!(world.engine(0).view().cluster.services.len(), 3);
}

#[test]
fn a_message_loss_of_ten_percent_causes_no_accusation() {
    let mut world = cluster(5, "a_message_loss_of_ten_percent");
    world.network.faults.loss = 100;
    world.network.faults.reordered = 30;
    world.network.faults.duplicated = 30;
    world.command(0, deploy(service("web", 8)));
    world.converge(60_000);
    let cursor = world.history.cursor();
    world.run(180_000);
    world.require(minimal_movement::none(&world, cursor));
}
