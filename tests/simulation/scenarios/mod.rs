//! One situation a test.

mod backups;
mod deaths;
mod hostile;
mod operators;
mod partitions;
mod runtimes;
mod updates;

use crate::ledger::{Deed, Mark};
use crate::services::amount;
use crate::world::World;

/// A world of equal nodes that know each other and are at rest.
pub(crate) fn cluster(nodes: usize, name: &str) -> World {
    let repeat = format!("cargo nextest run -p vc-tests {name}");
    let seed =
        name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut world = World::new(seed, repeat);
    for _ in 0..nodes {
        world.join(amount(4000, 4096));
    }
    world.settle(30_000);
    world
}

/// How many containers were started, and how many stopped, since `mark`.
pub(crate) fn moved(world: &World, mark: Mark) -> (usize, usize) {
    let count = |is: fn(&Deed) -> bool| {
        world.ledger.since(mark).iter().filter(|entry| is(&entry.deed)).count()
    };
    (count(|deed| matches!(deed, Deed::Started(_))), count(|deed| matches!(deed, Deed::Stopped(_))))
}

/// How many containers run on a node.
pub(crate) fn runs(world: &World, of: usize) -> usize {
    world.nodes[of].runtime.containers.values().filter(|it| it.runs()).count()
}
