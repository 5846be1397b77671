//! Scenarios: one fault each.

mod backups;
mod deaths;
mod hostile;
mod operators;
mod partitions;
mod runtimes;
mod updates;

use crate::history::{Action, Cursor};
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
    world.converge(30_000);
    world
}

/// How many containers were started, and how many stopped, since `cursor`.
pub(crate) fn moved(world: &World, cursor: Cursor) -> (usize, usize) {
    let count = |is: fn(&Action) -> bool| {
        world.history.since(cursor).iter().filter(|entry| is(&entry.action)).count()
    };
    (
        count(|action| matches!(action, Action::Started(_))),
        count(|action| matches!(action, Action::Stopped(_))),
    )
}

/// How many containers run on a node.
pub(crate) fn runs(world: &World, of: usize) -> usize {
    world.nodes[of].runtime.containers.values().filter(|it| it.runs()).count()
}
