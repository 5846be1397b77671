//! One situation a test.

mod deaths;

use crate::services::amount;
use crate::world::World;

/// A world of equal machines that know each other and are at rest.
pub(crate) fn cluster(machines: usize, name: &str) -> World {
    let repeat = format!("cargo nextest run -p vc-tests {name}");
    let seed = name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut world = World::new(seed, repeat);
    for _ in 0..machines {
        world.join(amount(4000, 4096));
    }
    world.settle(30_000);
    world
}
