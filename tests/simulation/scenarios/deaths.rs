//! Machines die and come back.

use super::cluster;
use crate::invariants::{minimal_movement, orphans_replaced};
use crate::services::{deploy, service};

#[test]
fn what_one_of_three_held_is_replaced_in_time_and_nothing_else_moves() {
    let mut world = cluster(3, "what_one_of_three");
    world.command(0, deploy(service("web", 6)));
    world.settle(20_000);
    let held = minimal_movement::held(&world, 2);
    let mark = world.ledger.mark();
    world.kill_host(2);
    world.run(world.replacement_bound());
    world.require(orphans_replaced::check(&world, &[0, 1]));
    world.require(minimal_movement::only(&world, mark, &held));
}
