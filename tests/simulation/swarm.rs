//! Random worlds: nodes, services, operators and faults drawn from a seed. `VC_SIM_SEED=7` runs one seed, `VC_SIM_SEEDS=500`
//! the first 500.

use std::ops::Range;

use vc_engine::HISTORY;
use vc_protocol::Millis;

use crate::faults::Fault;
use crate::invariants::{
    documents_converge, minimal_movement, no_actions_at_rest, no_overcommit, replicas_rescheduled,
    view_check,
};
use crate::network::NetworkFaults;
use crate::services::resources;
use crate::world::{Event, World};

/// The faults that random worlds draw from.
const FAULTS: [Fault; 17] = [
    Fault::Operators(1),
    Fault::Operators(1),
    Fault::Operators(2),
    Fault::Operators(3),
    Fault::Operators(1),
    Fault::Operators(2),
    Fault::KillProcess,
    Fault::KillProcess,
    Fault::Restart,
    Fault::KillHost,
    Fault::KillAll,
    Fault::Partition,
    Fault::CutOneWay,
    Fault::Runtime,
    Fault::Stall,
    Fault::DiskFull,
    Fault::Join,
];

/// Runs one seed: a phase with faults; a phase without, in which the cluster must converge and then take no actions; the
/// death of one host.
pub(crate) fn run(seed: u64) {
    let repeat = format!("VC_SIM_SEED={seed} cargo nextest run -p vc-tests swarm");
    let mut world = World::new(seed, repeat, view_check());
    world.document_history = [3, 20, HISTORY][(seed % 3) as usize];
    draw_faults(&mut world);
    for _ in 0..world.rng.within((1, 6)) {
        let capacity =
            resources(world.rng.pick(&[1000, 2000, 4000]), world.rng.pick(&[1024, 2048]));
        world.join(capacity);
        let pause = world.rng.within((0, 1500));
        world.run(pause);
    }
    run_faults(&mut world);
    single_death(&mut world);
}

/// Draws how reliable the network and the containers are.
pub(crate) fn draw_faults(world: &mut World) {
    world.network.faults = NetworkFaults {
        loss: world.rng.pick(&[0, 0, 20, 100]),
        duplicated: world.rng.pick(&[0, 0, 50]),
        reordered: world.rng.pick(&[0, 0, 30]),
        ..NetworkFaults::default()
    };
    world.runtime_faults.fails = world.rng.pick(&[0, 100, 400]);
    world.runtime_faults.changes = world.rng.pick(&[0, 100, 400]);
}

/// Runs a phase with random faults, and one without, in which the cluster must converge and then take no actions.
pub(crate) fn run_faults(world: &mut World) {
    let chaos: Millis = world.rng.within((20_000, 70_000));
    for _ in 0..world.rng.within((5, 40)) {
        let at = world.rng.within((0, chaos));
        let fault = world.rng.pick(&FAULTS);
        world.schedule(at, Event::Fault(fault));
    }
    world.run(chaos);
    world.trace_world("faults end");
    world.heal_all();
    // Nodes whose restart is still scheduled come back.
    world.run(25_000);
    world.heal_all();
    world.converge(300_000);
    world.require(documents_converge::disks(world));
    let cursor = world.history.cursor();
    world.run(60_000);
    world.require(no_actions_at_rest::check(world, cursor));
}

/// Kills a host of a converged cluster and starts it again.
pub(crate) fn single_death(world: &mut World) {
    if world.nodes.len() < 2 {
        return;
    }
    let victim = world.rng.index(world.nodes.len());
    let held = minimal_movement::slots_of(world, victim);
    let cursor = world.history.cursor();
    world.trace_world(&format!("death of m{victim}, which runs {held:?}"));
    world.kill_host(victim);
    world.run(world.rescheduling_bound());
    let side = world.running();
    world.require(replicas_rescheduled::check(world, &side));
    world.require(minimal_movement::only(world, cursor, &held));
    // Slots that could not be placed meanwhile may start on the node, and leave a drained one; nothing else.
    let unplaced = world.engine(side[0]).view().plan.unplaced.keys().cloned().collect();
    let cursor = world.history.cursor();
    world.boot(victim);
    world.converge(60_000);
    world.require(minimal_movement::only_stranded(world, cursor, &unplaced));
    world.require(no_overcommit::running(world));
}

/// Number of seeds without `VC_SIM_SEEDS`.
const SEEDS: u64 = 16;

/// Returns the seeds to run: the first `default`, unless an environment variable says otherwise.
pub(crate) fn seeds(default: u64) -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("VC_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("VC_SIM_SEEDS").unwrap_or(default),
    }
}

/// Runs the seeds with this remainder modulo 2: two tests, for two cores.
fn run_half(remainder: u64) {
    seeds(SEEDS).filter(|seed| seed % 2 == remainder).for_each(run);
}

#[test]
fn even_seeds_converge_after_random_faults() {
    run_half(0);
}

#[test]
fn odd_seeds_converge_after_random_faults() {
    run_half(1);
}
