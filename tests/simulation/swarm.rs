//! Random runs: nodes, services, operators and faults drawn from a seed.
//!
//! A run has a phase with faults; one in which a healthy core has to serve while the rest stays broken, as TigerBeetle's liveness
//! mode has it; one without faults, in which the cluster must converge and then take no actions; and the death of one host.

use std::collections::BTreeSet;

use vc_crdt::KnownVersions;
use vc_engine::Mutation;
use vc_protocol::lease::{LEASE_MS, MAX_VOTERS};
use vc_protocol::{Millis, NodeId, ServiceKey};

use crate::check::Violation;
use crate::faults::LONGEST;
use crate::invariants::{
    bounded_at_rest, documents_converge, is_exclusive, minimal_movement, no_actions_at_rest,
    no_flapping, no_overcommit, replicas_rescheduled, runs_once, view_check,
};
use crate::kind::Kind;
use crate::marks::Mark;
use crate::network::NetworkFaults;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::services::{SCHEDULED, any_scheduled, deploy, resources, service};
use crate::settings::Settings;
use crate::versions::next;
use crate::workloads::needs_voters;
use crate::world::{Event, World};

/// Milliseconds in which the cluster must converge once all faults have ended.
const CONVERGENCE: Millis = 300_000;
/// Milliseconds in which a healthy core must serve once the rest is broken for good.
const CORE_SERVES: Millis = 60_000;

/// Runs these settings. Panics when an invariant is violated.
pub fn run(settings: &Settings) {
    let plan = Plan::new(settings);
    let is_mixed = plan.kinds.contains(&Kind::Versions);
    let mut world = World::new(settings.seed, settings.command(), view_check());
    world.document_history = plan.history;
    world.kinds = plan.kinds.clone();
    draw_rates(&mut world);
    world.trace_world(&format!("kinds of faults: {:?}", plan.kinds));
    for _ in 0..plan.nodes {
        if is_mixed {
            world.knows = if world.rng.permille(500) { next() } else { KnownVersions::default() };
        }
        let capacity =
            resources(world.rng.pick(&[1000, 2000, 4000]), world.rng.pick(&[1024, 2048]));
        let index = world.join(capacity);
        if world.kinds.contains(&Kind::Drift) {
            let rate = world.rng.within((900, 1100));
            let now = world.now;
            world.nodes[index].clocks.drift(now, rate);
        }
        let pause = world.rng.within((0, if plan.nodes > 12 { 200 } else { 1500 }));
        world.run(pause);
    }
    world.mark_if(plan.nodes > 12, Mark::ManyNodes);
    if plan.kinds.iter().any(|kind| needs_voters(*kind)) {
        await_voters(&mut world);
    }
    if plan.kinds.contains(&Kind::Volumes) {
        world.writes_until = world.now + plan.duration + LONGEST;
        world.schedule(0, Event::Write);
    }
    let begun = world.history.cursor();
    let mut drawn = Rng::new(settings.seed ^ 0x7363_6865);
    if drawn.permille(300) {
        // A node of another version in the cluster may not know schedules.
        world.request(0, deploy(any_scheduled(&mut drawn)));
    }
    for &planned in &plan.events {
        world.schedule(planned.at, Event::Inject(planned));
    }
    world.run(plan.duration);
    // What is under way ends by itself.
    world.run(LONGEST);
    if plan.has_core {
        core_serves(&mut world);
    }
    world.trace_world("faults end");
    world.heal_all();
    retry_removals(&mut world);
    suspend_schedule(&mut world);
    rest(&mut world);
    let runs = runs_once::check(&world, begun).unwrap_or_else(|it| panic!("{it}"));
    world.mark_if(runs > 0, Mark::RunBegan);
    if is_mixed {
        upgrade_all(&mut world);
    }
    single_death(&mut world);
}

/// Draws how reliable the network and the containers are.
pub fn draw_rates(world: &mut World) {
    let rate = |rng: &mut Rng, is_on: bool, rates: &[u64]| if is_on { rng.pick(rates) } else { 0 };
    let has = |kind: Kind| world.kinds.contains(&kind);
    let on = [Kind::Loss, Kind::Duplication, Kind::Reordering, Kind::Containers].map(has);
    let rng = &mut world.rng;
    world.network.faults = NetworkFaults {
        loss: rate(rng, on[0], &[5, 20, 100]),
        duplicated: rate(rng, on[1], &[10, 50]),
        reordered: rate(rng, on[2], &[10, 30]),
        ..NetworkFaults::default()
    };
    world.runtime_faults.fails = rate(rng, on[3], &[0, 100, 400]);
    world.runtime_faults.changes = rate(rng, on[3], &[0, 100, 400]);
}

/// Waits in most runs until there are voters: before, nothing runs under a lease.
fn await_voters(world: &mut World) {
    if world.rng.permille(200) {
        return;
    }
    world.run_until(60_000, "the first voters are chosen", |world| {
        let chosen = world.engine(0).view().cluster.voter_set().is_some();
        chosen.then_some(()).ok_or_else(|| Violation("there are none".to_owned()))
    });
    // A change takes one lease time.
    let others_join = world.rng.within((0, 4 * LEASE_MS));
    world.run(others_join);
}

/// Sets the voters if the majority of them was turned off for good, or does not know that they are voters until it is upgraded, as
/// an operator does: the others cannot decide any more.
fn replace_lost_voters(world: &mut World) {
    let Some(&by) = world.acting().first() else { return };
    let view = world.engine(by).view();
    let Some(set) = view.cluster.voter_set() else { return };
    let votes = |node: &&NodeId| {
        let index = world.node_of(**node);
        let holds = world.running().contains(&index) && world.holds(index);
        !world.nodes[index].off && !holds
    };
    if set.voters.iter().filter(votes).count() >= set.majority() {
        return;
    }
    let acting = world.acting().into_iter().filter(|&index| !world.knows_left(by, index));
    let nodes = acting.take(1).map(|index| format!("m{index}")).collect();
    world.request(by, Mutation::ForceVoters { nodes });
}

/// Waits until the voters have changed for the last time: each change takes a lease time, and there may be one for each voter.
fn settle_voters(world: &mut World) {
    const PAUSE: Millis = 2 * LEASE_MS + 3_000;
    let newest = |world: &World| {
        let views = world.running().into_iter().map(|index| world.engine(index).view());
        views.filter_map(|view| view.cluster.voter_set().map(|set| set.number)).max()
    };
    for _ in 0..2 * MAX_VOTERS {
        let before = newest(world);
        world.run(PAUSE);
        if newest(world) == before {
            return;
        }
    }
}

/// Breaks a part of the cluster for good and checks that the rest serves.
fn core_serves(world: &mut World) {
    let present = world.present();
    if present.len() < 2 {
        return;
    }
    world.heal_all();
    // A node that was removed and has not heard of it is none of the core.
    retry_removals(world);
    world.run(2_000);
    let present: Vec<usize> =
        world.present().into_iter().filter(|&index| world.is_running(index)).collect();
    let size = world.rng.within((1, (present.len() as u64 - 1).max(1))) as usize;
    let mut rest = present.clone();
    let mut core = Vec::new();
    for _ in 0..size {
        core.push(rest.remove(world.rng.index(rest.len())));
    }
    core.sort_unstable();
    world.trace_world(&format!("core {core:?}, the others are broken: {rest:?}"));
    // A node that cannot write is up for as long as it has nothing to write.
    let mut side = core.clone();
    for &index in &rest {
        match world.rng.index(6) {
            0 => world.kill_host(index),
            1 => world.kill_process(index),
            2 => world.set_runtime_available(index, false, false),
            3 => {
                world.trace_node(index, "its disk is read-only");
                world.nodes[index].disk.read_only = true;
                side.push(index);
            }
            4 => world.stall(index, 4 * CORE_SERVES),
            _ => {
                let others: Vec<usize> =
                    present.iter().copied().filter(|&other| other != index).collect();
                world.partition(&[&[index], &others]);
            }
        }
    }
    world.run(replicas_rescheduled::BOUND);
    world.run_until(CORE_SERVES, "a healthy core runs all slots", |world| {
        replicas_rescheduled::core(world, &core, &side)
    });
    // A node that holds documents of a newer version takes no commands.
    if core.iter().any(|&index| world.holds(index)) {
        return;
    }
    let by = world.rng.pick(&core);
    let request =
        world.request(by, deploy(service("core", 1))).expect("a node of the core is awake");
    let operation = &world.operators.operations[&request];
    if !operation.acknowledged() {
        assert!(operation.answer.is_some(), "a command to a healthy core has no answer");
        return;
    }
    world.run_until(CORE_SERVES, "a healthy core runs a new service", |world| {
        replicas_rescheduled::core(world, &core, &side)
    });
    world.mark(Mark::CoreServed);
    world.mark_if(core.len() < rest.len(), Mark::CoreOfMinority);
}

/// Removes the nodes anew that were turned off and are members still: the command was lost with a disk.
fn retry_removals(world: &mut World) {
    for index in (0..world.nodes.len()).filter(|&index| world.nodes[index].off).collect::<Vec<_>>()
    {
        let Some(&by) = world.running().first() else { return };
        if !world.knows_left(by, index) {
            let node = format!("m{index}");
            world.request(by, Mutation::Leave { node, force: true });
        }
    }
}

/// Scales the scheduled service to 0, so that the cluster comes to rest.
fn suspend_schedule(world: &mut World) {
    let service: ServiceKey = SCHEDULED.parse().expect("a service");
    let is_due = |world: &World| {
        let runs = |index: usize| world.engine(index).view().cluster.replicas(&service) > 0;
        let is_there =
            |index: usize| world.engine(index).view().cluster.services.contains_key(&service);
        world.acting().into_iter().find(|&index| is_there(index) && runs(index))
    };
    for _ in 0..100 {
        let Some(by) = is_due(world) else { return };
        world.request(by, Mutation::Scale { service: SCHEDULED.to_owned(), replicas: 0 });
        world.run(2_000);
    }
    panic!("the schedule cannot be suspended");
}

/// Waits without faults until the cluster has converged, and checks that it then takes no actions.
pub fn rest(world: &mut World) {
    let healed = world.history.cursor();
    // A node may be removed by a command that no node of the present has heard of yet.
    world.run(20_000);
    retry_removals(world);
    world.run(2_000);
    replace_lost_voters(world);
    settle_voters(world);
    world.converge(CONVERGENCE);
    world.require(no_flapping::check(world, healed));
    world.require(documents_converge::disks(world));
    let cursor = world.history.cursor();
    let sent = world.network.sent;
    world.run(60_000);
    world.require(no_actions_at_rest::check(world, cursor));
    world.require(bounded_at_rest::check(world, sent, 60_000));
}

/// Upgrades all nodes to the newer version, one at a time.
fn upgrade_all(world: &mut World) {
    for index in world.running() {
        if world.nodes[index].knows.supports() != next().supports() {
            world.change_version(index, next());
            world.converge(CONVERGENCE);
        }
    }
}

/// Returns whether a majority of the voters is left without this node, or nothing needs them.
fn voters_can_lose(world: &World, index: usize) -> bool {
    let view = world.engine(index).view();
    let uses_leases = view.plan.placements.keys().any(|slot| is_exclusive(&view, slot));
    let running = world.running().into_iter().filter(|&it| it != index);
    let running: BTreeSet<NodeId> = running.map(|it| world.nodes[it].id).collect();
    !uses_leases
        || view
            .cluster
            .voter_set()
            .is_none_or(|set| set.voters.intersection(&running).count() >= set.majority())
}

/// Kills a host of a converged cluster and starts it again.
pub fn single_death(world: &mut World) {
    let running = world.running();
    let victims: Vec<usize> =
        running.iter().copied().filter(|&index| voters_can_lose(world, index)).collect();
    if running.len() < 2 || victims.is_empty() {
        return;
    }
    let victim = world.rng.pick(&victims);
    let held = minimal_movement::slots_of(world, victim);
    let affected = minimal_movement::affected_by_death(world, victim);
    let cursor = world.history.cursor();
    world.trace_world(&format!("death of m{victim}, which runs {held:?}"));
    let view = world.engine(victim).view();
    let waits_for_lease = affected.iter().any(|slot| is_exclusive(&view, slot));
    world.kill_host(victim);
    world.run(world.rescheduling_bound());
    if waits_for_lease {
        world.run(LEASE_MS + LEASE_MS / 10);
    }
    let side = world.running();
    world.require(replicas_rescheduled::check(world, &side));
    world.require(minimal_movement::only(world, cursor, &affected));
    world.mark_if(!held.is_empty(), Mark::DeathReplaced);
    // Slots that could not be placed meanwhile may start on the node, and leave a drained one; nothing else.
    let unplaced = world.engine(side[0]).view().plan.unplaced.keys().cloned().collect();
    let cursor = world.history.cursor();
    world.boot(victim);
    world.converge(60_000);
    world.require(minimal_movement::only_stranded(world, cursor, &unplaced));
    world.require(no_overcommit::running(world));
}
