//! Two versions of vc-node in one cluster: m0 and m1 are older, m2 is newer.

use vc_crdt::KnownVersions;
use vc_engine::{Engine, report};
use vc_placement::{RULES, plan};
use vc_protocol::Supports;

use super::{cluster, running_on, started_and_stopped};
use vc_simulation::invariants::{documents_converge, minimal_movement, replicas_rescheduled};
use vc_simulation::services::{deploy, resources, service, version};
use vc_simulation::versions::{next, version_text};
use vc_simulation::world::World;

/// Returns a converged cluster of two older nodes and a newer one.
fn mixed(name: &str) -> World {
    let mut world = cluster(2, name);
    world.knows = next();
    world.join(resources(4000, 4096));
    world.converge(30_000);
    world
}

/// Returns a converged cluster of three newer nodes.
fn upgraded(name: &str) -> World {
    let mut world = mixed(name);
    for index in 0..2 {
        world.change_version(index, next());
        world.converge(30_000);
    }
    assert_eq!(versions(&world), [of(next()); 3]);
    world
}

/// Returns what the present version knows.
fn released() -> KnownVersions {
    KnownVersions::default()
}

/// Returns the newest versions of schema and plan that are known.
fn of(knows: KnownVersions) -> (u32, u32) {
    let Supports { schema, plan, .. } = knows.supports();
    (schema, plan)
}

/// Returns the versions of schema and plan in effect, as each running node sees them.
fn versions(world: &World) -> Vec<(u32, u32)> {
    let of = |index| {
        let engine: &Engine = world.engine(index);
        (engine.replica().schema(), engine.view().rules.version)
    };
    world.running().into_iter().map(of).collect()
}

/// Returns the problems that a node shows.
fn problems(world: &World, index: usize) -> String {
    let (engine, node) = (world.engine(index), world.nodes[index].id);
    let status = report::status(&engine.view(), None, engine.vitals(), world.cluster, node, 0);
    status.problems.join("\n")
}

#[test]
fn the_newest_versions_take_effect_when_the_last_older_node_is_upgraded() {
    let mut world = mixed("the_newest_versions_take_effect");
    world.command(2, deploy(service("web", 6)));
    world.converge(30_000);
    let cursor = world.history.cursor();
    assert_eq!(versions(&world), [of(released()); 3]);
    let reported = problems(&world, 2);
    let older = format!("node m0 runs vc-node {}, others a newer one", version_text(&released()));
    assert!(reported.contains(&older), "{reported}");
    world.change_version(0, next());
    world.converge(30_000);
    assert_eq!(versions(&world), [of(released()); 3]);
    world.change_version(1, next());
    world.converge(30_000);
    assert_eq!(versions(&world), [of(next()); 3]);
    assert_eq!(started_and_stopped(&world, cursor), (0, 0));
    assert!(!problems(&world, 2).contains("upgrade"));
    world.command(0, deploy(service("api", 1)));
    world.converge(30_000);
    assert_eq!(versions(&world), [of(next()); 3]);
}

#[test]
fn the_plan_in_effect_decides_where_new_slots_go() {
    let by_version = |world: &World, version: u32| {
        let mut input = world.engine(2).view().input.clone();
        input.nodes.values_mut().for_each(|node| node.claims.clear());
        let rules = next().rules(version);
        let placed = plan(&input, rules).placements.into_iter();
        placed.map(|(slot, it)| (slot, it.node)).collect::<Vec<_>>()
    };
    let in_effect = |world: &World| {
        let placed = world.engine(2).view().plan.placements.clone().into_iter();
        placed.map(|(slot, it)| (slot, it.node)).collect::<Vec<_>>()
    };
    for is_mixed in [true, false] {
        let name = "the_plan_in_effect_decides";
        let mut world = if is_mixed { mixed(name) } else { upgraded(name) };
        let names = ["web", "api", "mail", "jobs"];
        let deployments = names.map(|name| service(name, 1)).to_vec();
        let files = std::collections::BTreeMap::new();
        world.command(
            2,
            vc_engine::Mutation::Deploy { deployments, files, projects: None, trace: None },
        );
        let [older, newer] = [released(), next()].map(|it| by_version(&world, of(it).1));
        assert_ne!(older, newer, "the rules differ");
        assert_eq!(in_effect(&world), if is_mixed { older } else { newer });
        world.converge(30_000);
    }
    assert_eq!(RULES.len() + 1, next().rules.len());
}

#[test]
fn a_mixed_cluster_reschedules_what_a_dead_node_ran() {
    let mut world = mixed("a_mixed_cluster_reschedules");
    world.command(0, deploy(service("web", 6)));
    world.converge(30_000);
    for victim in 0..3 {
        let held = minimal_movement::slots_of(&world, victim);
        let cursor = world.history.cursor();
        world.kill_host(victim);
        world.run(world.rescheduling_bound());
        world.require(replicas_rescheduled::check(&world, &world.running()));
        world.require(minimal_movement::only(&world, cursor, &held));
        world.boot(victim);
        world.converge(30_000);
        assert_eq!(versions(&world), [of(released()); 3], "nodes that are down count");
    }
}

#[test]
fn a_downgraded_node_holds_and_goes_on_when_it_is_upgraded_again() {
    let mut world = upgraded("a_downgraded_node_holds");
    world.command(0, deploy(service("web", 6)));
    world.converge(30_000);
    let cursor = world.history.cursor();
    world.change_version(1, KnownVersions::default());
    world.converge(30_000);
    assert!(world.holds(1) && world.up(0).contains(&1));
    assert_eq!(started_and_stopped(&world, cursor), (0, 0));
    for index in 0..3 {
        let said = problems(&world, index);
        assert!(said.contains("node m1: starts and stops nothing"), "m{index}: {said}");
    }

    // The others go on, and give it nothing new.
    let runs = running_on(&world, 1);
    world.command(0, deploy(service("api", 6)));
    world.converge(30_000);
    assert_eq!(
        (running_on(&world, 0) + running_on(&world, 2), running_on(&world, 1)),
        (12 - runs, runs)
    );
    world.kill_host(2);
    world.run(world.rescheduling_bound());
    world.require(replicas_rescheduled::check(&world, &[0, 1]));
    assert_eq!(running_on(&world, 1), runs);
    world.boot(2);
    world.converge(60_000);

    let cursor = world.history.cursor();
    world.change_version(1, next());
    world.converge(60_000);
    assert_eq!(versions(&world), [of(next()); 3]);
    assert_eq!(started_and_stopped(&world, cursor), (0, 0));
    assert_eq!(world.engine(1).view().cluster.services.len(), 2);
    world.command(1, deploy(service("mail", 6)));
    world.converge(60_000);
    assert!(running_on(&world, 1) > runs);
}

#[test]
fn an_older_node_follows_checkpoints_that_it_cannot_read() {
    let mut world = upgraded("an_older_node_follows_checkpoints");
    world.document_history = 3;
    for index in 0..3 {
        world.change_version(index, next());
        world.converge(30_000);
    }
    world.change_version(1, KnownVersions::default());
    world.converge(30_000);
    world.knows = KnownVersions::default();
    let joined = world.join(resources(4000, 4096));
    world.converge(30_000);
    for number in 0..8 {
        world.command(0, deploy(version(service("web", 3), number)));
        world.converge(60_000);
    }
    assert!(world.holds(1) && world.holds(joined));
    assert_eq!(running_on(&world, joined), 0);
    let generations = &world.engine(0).replica().versions().cluster;
    assert!(generations.keys().next().is_some_and(|&first| first > 0), "no checkpoint");
    for index in [1, joined] {
        world.change_version(index, next());
        world.converge(60_000);
    }
    assert_eq!(versions(&world), [of(next()); 4]);
    world.require(documents_converge::disks(&world));
}

#[test]
fn what_a_downgraded_node_ran_is_rescheduled_when_it_dies() {
    let mut world = upgraded("what_a_downgraded_node_ran");
    world.command(0, deploy(service("web", 6)));
    world.converge(30_000);
    world.change_version(1, KnownVersions::default());
    world.converge(30_000);
    let held = minimal_movement::slots_of(&world, 1);
    assert_eq!(held.len(), running_on(&world, 1));
    let cursor = world.history.cursor();
    world.kill_host(1);
    world.run(world.rescheduling_bound());
    world.require(replicas_rescheduled::check(&world, &[0, 2]));
    world.require(minimal_movement::only(&world, cursor, &held));
    let cursor = world.history.cursor();
    world.boot(1);
    world.converge(30_000);
    world.require(minimal_movement::none(&world, cursor));
    assert!(world.holds(1) && running_on(&world, 1) == 0);
}

#[test]
fn a_downgraded_node_that_was_down_for_long_keeps_what_it_runs() {
    let mut world = upgraded("a_downgraded_node_that_was_down");
    world.command(0, deploy(service("web", 6)));
    world.converge(30_000);
    let runs = running_on(&world, 1);
    world.kill_process(1);
    world.run(20_000);
    assert_eq!(running_on(&world, 0) + running_on(&world, 2), 6, "its slots were rescheduled");
    world.change_version(1, KnownVersions::default());
    world.converge(60_000);
    assert!(world.holds(1));
    assert_eq!(running_on(&world, 1), runs);
    assert_eq!(running_on(&world, 0) + running_on(&world, 2), 6 - runs, "one of two stopped");
}

#[test]
fn an_older_node_that_joins_an_upgraded_cluster_holds() {
    let mut world = upgraded("an_older_node_that_joins");
    world.command(0, deploy(service("web", 6)));
    world.converge(30_000);
    world.knows = KnownVersions::default();
    let index = world.join(resources(4000, 4096));
    world.converge(30_000);
    assert!(world.holds(index));
    world.command(0, deploy(service("api", 6)));
    world.converge(30_000);
    assert_eq!(running_on(&world, index), 0);
    world.change_version(index, next());
    world.converge(30_000);
    assert!(!world.holds(index));
}
