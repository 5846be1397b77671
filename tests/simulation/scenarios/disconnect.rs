//! Nodes that are down for a while or isolated, and services that say what becomes of their slots.

use vc_protocol::spec::{DisconnectPolicy, Reconcile};

use super::{cluster, running_on, started_and_stopped};
use vc_simulation::invariants::{minimal_movement, replicas_rescheduled};
use vc_simulation::services::{deploy, service};
use vc_simulation::world::World;

const MINUTE: u64 = 60_000;

/// Deploys a service with these options.
fn deploy_with(world: &mut World, name: &str, replicas: u32, disconnect: DisconnectPolicy) {
    let mut wanted = service(name, replicas);
    wanted.spec.disconnect = disconnect;
    world.command(0, deploy(wanted));
    world.converge(20_000);
}

fn lost_after(lost_after_ms: u64) -> DisconnectPolicy {
    DisconnectPolicy { lost_after_ms, ..DisconnectPolicy::default() }
}

#[test]
fn slots_of_a_dead_node_go_elsewhere_after_the_time_that_their_service_says() {
    let mut world = cluster(3, "slots_of_a_dead_node_go_elsewhere");
    deploy_with(&mut world, "web", 6, lost_after(MINUTE));
    deploy_with(&mut world, "api", 6, DisconnectPolicy::default());
    let (held, cursor) = (minimal_movement::slots_of(&world, 2), world.history.cursor());
    world.kill_host(2);
    world.run(10_000);
    let of_api = started_and_stopped(&world, cursor).0;
    assert!(of_api > 0, "a service that says nothing does not wait");
    let documents = world.engine(0).replica().versions().clone();
    world.run(45_000);
    assert_eq!(started_and_stopped(&world, cursor).0, of_api);
    assert_eq!(*world.engine(0).replica().versions(), documents, "nothing is written meanwhile");
    let view = world.engine(0).view();
    let waiting: Vec<String> =
        view.plan.unplaced.values().flatten().map(|it| it.reason.clone()).collect();
    assert!(!waiting.is_empty());
    for reason in waiting {
        assert_eq!(reason, "is down; goes elsewhere after 1 min (lost_after)");
    }
    world.run(5_000 + world.rescheduling_bound());
    assert_eq!(world.engine(0).view().plan.unplaced.len(), 0);
    world.require(replicas_rescheduled::check(&world, &[0, 1]));
    world.require(minimal_movement::only(&world, cursor, &held));
}

#[test]
fn a_node_that_returns_in_time_keeps_its_instances() {
    let mut world = cluster(3, "a_node_that_returns_in_time");
    deploy_with(&mut world, "web", 6, lost_after(MINUTE));
    let cursor = world.history.cursor();
    world.kill_process(2);
    world.run(50_000);
    assert!(!world.up(0).contains(&2));
    world.boot(2);
    world.converge(30_000);
    world.run(2 * MINUTE);
    assert_eq!(started_and_stopped(&world, cursor), (0, 0));
}

#[test]
fn observers_that_are_restarted_count_on_from_the_last_time_that_they_reported() {
    let mut world = cluster(3, "observers_that_are_restarted");
    deploy_with(&mut world, "web", 6, lost_after(MINUTE));
    deploy_with(&mut world, "api", 3, lost_after(MINUTE / 2));
    world.kill_host(2);
    world.run(40_000);
    for index in [0, 1] {
        world.kill_process(index);
        world.run(1_000);
        world.boot(index);
        world.run(5_000);
    }
    let waits = |world: &World| world.engine(0).view().plan.unplaced.len();
    assert!(waits(&world) > 0);
    // Half a minute before the restarts, half a minute after them.
    world.run(30_000);
    assert_eq!(waits(&world), 0);
}

#[test]
fn slots_go_nowhere_while_a_node_is_only_down_if_their_service_says_so() {
    let mut world = cluster(3, "slots_go_nowhere");
    let policy = DisconnectPolicy { replace: false, ..DisconnectPolicy::default() };
    deploy_with(&mut world, "web", 6, policy);
    let cursor = world.history.cursor();
    world.kill_host(2);
    world.run(20 * MINUTE);
    assert_eq!(started_and_stopped(&world, cursor).0, 0);
    world.command(0, vc_engine::Mutation::Drain { node: "m2".to_owned(), drain: true });
    world.run(world.rescheduling_bound());
    world.require(replicas_rescheduled::check(&world, &[0, 1]));
    assert_eq!(running_on(&world, 0) + running_on(&world, 1), 6);
}

#[test]
fn an_isolated_node_stops_instances_after_the_time_that_their_service_says() {
    let mut world = cluster(3, "an_isolated_node_stops_instances");
    let policy = DisconnectPolicy {
        stop_on_client_after_ms: Some(MINUTE / 2),
        ..DisconnectPolicy::default()
    };
    deploy_with(&mut world, "web", 3, policy);
    world.partition(&[&[0, 1], &[2]]);
    world.run(25_000);
    assert_eq!(running_on(&world, 2), 3, "each side runs it");
    world.run(25_000);
    assert_eq!((running_on(&world, 0) + running_on(&world, 1), running_on(&world, 2)), (3, 0));
    // Nor does it start them after a restart in which it reaches none.
    world.kill_process(2);
    world.run(1_000);
    world.boot(2);
    world.run(MINUTE);
    assert_eq!(running_on(&world, 2), 0);
    let cursor = world.history.cursor();
    world.heal();
    world.converge(MINUTE);
    assert_eq!(started_and_stopped(&world, cursor), (0, 0), "those of the majority stay");
}

#[test]
fn of_two_instances_the_replacement_stays_if_their_service_says_so() {
    let runs_on_original = |reconcile: Reconcile, name: &str| {
        let mut world = cluster(3, name);
        deploy_with(
            &mut world,
            "web",
            1,
            DisconnectPolicy { reconcile, ..DisconnectPolicy::default() },
        );
        let original = (0..3).find(|&index| running_on(&world, index) == 1).expect("it runs");
        let others: Vec<usize> = (0..3).filter(|&index| index != original).collect();
        world.partition(&[&[original], &others]);
        world.run(30_000);
        assert_eq!((0..3).map(|index| running_on(&world, index)).sum::<usize>(), 2);
        world.heal();
        world.converge(MINUTE);
        running_on(&world, original) == 1
    };
    assert!(runs_on_original(Reconcile::KeepOriginal, "of_two_instances_the_original"));
    assert!(runs_on_original(Reconcile::LongestRunning, "of_two_instances_the_longest"));
    assert!(!runs_on_original(Reconcile::KeepReplacement, "of_two_instances_the_replacement"));
}
