//! Links break and heal.

use super::{cluster, moved, runs};
use crate::invariants::{minimal_movement, orphans_replaced};
use crate::services::{deploy, service, version};

#[test]
fn each_side_of_a_partition_runs_everything_and_duplicates_go_when_it_heals() {
    let mut world = cluster(5, "each_side_of_a_partition");
    world.command(0, deploy(service("web", 10)));
    world.converge(20_000);
    world.partition(&[&[0, 1], &[2, 3, 4]]);
    world.run(world.replacement_bound());
    world.require(orphans_replaced::check(&world, &[0, 1]));
    world.require(orphans_replaced::check(&world, &[2, 3, 4]));
    let cursor = world.history.cursor();
    world.heal();
    world.converge(60_000);
    assert_eq!(moved(&world, cursor), (0, 10), "each had a duplicate, and nothing was started");
}

#[test]
fn two_nodes_that_lost_each_other_stop_only_duplicates_when_they_meet_again() {
    let mut world = cluster(2, "two_nodes_that_lost");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    world.partition(&[&[0], &[1]]);
    world.run(30_000);
    assert_eq!((runs(&world, 0), runs(&world, 1)), (6, 6));
    let cursor = world.history.cursor();
    world.heal();
    world.converge(60_000);
    assert_eq!(moved(&world, cursor), (0, 6));
}

#[test]
fn a_bad_link_between_two_of_three_moves_nothing() {
    let mut world = cluster(3, "a_bad_link_between_two");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.partition(&[&[0], &[1]]);
    world.run(120_000);
    world.require(minimal_movement::nothing(&world, cursor));
    assert_eq!(world.up(0).len(), 3);
}

#[test]
fn a_link_that_works_one_way_only_moves_nothing() {
    let mut world = cluster(4, "a_link_that_works_one_way");
    world.command(0, deploy(service("web", 6)));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.cut_one_way(0, 1);
    world.cut_one_way(2, 0);
    world.run(120_000);
    world.require(minimal_movement::nothing(&world, cursor));
}

#[test]
fn what_both_sides_of_a_partition_deployed_holds_on_both_when_it_heals() {
    let mut world = cluster(4, "what_both_sides");
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
fn links_that_lose_a_tenth_of_all_messages_cause_no_accusation() {
    let mut world = cluster(5, "links_that_lose");
    world.network.faults.loss = 100;
    world.network.faults.reordered = 30;
    world.network.faults.duplicated = 30;
    world.command(0, deploy(service("web", 8)));
    world.converge(60_000);
    let cursor = world.history.cursor();
    world.run(180_000);
    world.require(minimal_movement::nothing(&world, cursor));
}
