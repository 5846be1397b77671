//! Scenarios: one kind of fault in each file.

mod alerts;
mod backups;
mod checkpoints;
mod damage;
mod deaths;
mod detection;
mod disconnect;
mod global;
mod hostile;
mod jobs;
mod leases;
mod operators;
mod partitions;
mod restarts;
mod runtimes;
mod schedules;
mod updates;
mod versions;
mod volumes;

use vc_engine::HISTORY;
use vc_protocol::lease::MAX_VOTERS;

use vc_simulation::check::Violation;
use vc_simulation::history::{Action, Cursor};
use vc_simulation::invariants::view_check;
use vc_simulation::services::resources;
use vc_simulation::world::World;

/// Returns a converged world of equal nodes. `name`: a part of the test's name, which selects the test and is its seed.
pub(crate) fn cluster(nodes: usize, name: &str) -> World {
    cluster_with_history(nodes, name, HISTORY)
}

/// The same, with documents that start a new generation after so many changes.
fn cluster_with_history(nodes: usize, name: &str, history: u64) -> World {
    let repeat = format!("cargo nextest run -p vc-simulation {name}");
    let seed =
        name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut world = World::new(seed, repeat, view_check());
    world.document_history = history;
    for _ in 0..nodes {
        world.join(resources(4000, 4096));
    }
    world.converge(30_000);
    let expected = nodes.min(MAX_VOTERS).next_multiple_of(2) - 1;
    world.run_until(60_000, "the voters are chosen", |world| {
        let voters = world.engine(0).view().cluster.voter_set().map_or(0, |set| set.voters.len());
        let wrong = || Violation(format!("{voters} of {expected}"));
        (voters == expected).then_some(()).ok_or_else(wrong)
    });
    world.converge(30_000);
    world
}

/// Returns how many containers were started and how many stopped since `cursor`.
pub(crate) fn started_and_stopped(world: &World, cursor: Cursor) -> (usize, usize) {
    let count = |is: fn(&Action) -> bool| {
        world.history.since(cursor).iter().filter(|entry| is(&entry.action)).count()
    };
    (
        count(|action| matches!(action, Action::Started(_))),
        count(|action| matches!(action, Action::Stopped(_))),
    )
}

/// Returns how many containers run on a node.
pub(crate) fn running_on(world: &World, index: usize) -> usize {
    world.nodes[index].runtime.containers.values().filter(|it| it.runs()).count()
}
