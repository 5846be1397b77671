//! Disks that flip bits of what they hold.

use vc_simulation::Kind;
use vc_simulation::services::{deploy, service, version};
use vc_simulation::world::World;

use super::cluster;

/// Flips bits in what a node holds, at different places, each while it is down.
fn damage(world: &mut World, index: usize) {
    world.kinds.insert(Kind::FlippedBit);
    for _ in 0..8 {
        world.kill_process(index);
        let bit = world.rng.number();
        world.flip_bit(index, bit);
        world.boot(index);
        world.run(10_000);
    }
}

#[test]
fn what_a_disk_has_damaged_comes_again_from_another_node() {
    let mut world = cluster(3, "what_a_disk_has_damaged");
    for number in 1..=5 {
        world.command(1, deploy(version(service("web", 3), number)));
        world.converge(60_000);
    }
    damage(&mut world, 1);
    world.converge(60_000);
    world.command(1, deploy(version(service("web", 3), 9)));
    world.converge(60_000);
    assert_eq!(world.engine(1).view().cluster.services.len(), 1);
}

#[test]
fn a_node_without_another_one_goes_on_with_what_is_left() {
    let mut world = cluster(1, "a_node_without_another_one");
    for number in 1..=5 {
        world.command(0, deploy(version(service("web", 1), number)));
        world.run(10_000);
    }
    damage(&mut world, 0);
    world.command(0, deploy(service("api", 1)));
    world.converge(60_000);
    world.kill_process(0);
    world.boot(0);
    world.converge(60_000);
    let view = world.engine(0).view();
    assert!(view.cluster.services.keys().any(|key| key.service.as_str() == "api"));
}
