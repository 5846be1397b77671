//! Rolling updates without a coordinator.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::UpdateStatus;
use vc_engine::routes::Routes;
use vc_engine::{Mutation, rollout};
use vc_protocol::spec::{Deployment, FailureAction, Healthcheck, UpdateOrder};
use vc_protocol::{InstanceId, Slot};

use super::cluster;
use vc_simulation::history::Action;
use vc_simulation::services::{deploy, service, version};
use vc_simulation::world::World;

/// Returns the running instances of each slot.
fn running(world: &World) -> BTreeMap<Slot, Vec<InstanceId>> {
    let mut slots: BTreeMap<Slot, Vec<InstanceId>> = BTreeMap::new();
    for node in &world.nodes {
        for (id, _) in node.runtime.containers.iter().filter(|(_, it)| it.runs()) {
            slots.entry(id.slot.clone()).or_default().push(id.clone());
        }
    }
    slots
}

/// Advances time and calls `check` every 50 ms.
fn run_checking(world: &mut World, millis: u64, check: impl Fn(&World)) {
    for _ in 0..millis / 50 {
        world.run(50);
        check(world);
    }
}

/// Returns whether on every node each service has an endpoint that runs.
fn every_connection_is_served(world: &World) -> bool {
    world.running().into_iter().all(|index| {
        let routes = Routes::of(&world.engine(index).view());
        routes.services.values().all(|service| {
            service.endpoints.iter().any(|it| {
                let node = &world.nodes[world.node_of(it.node)];
                node.runtime.containers.get(&it.instance).is_some_and(|it| it.runs())
            })
        })
    })
}

/// Adds a healthcheck to a service.
fn checked(mut service: Deployment) -> Deployment {
    service.spec.container.healthcheck = Some(Healthcheck {
        test: vec!["CMD".to_owned(), "true".to_owned()],
        interval_ms: None,
        timeout_ms: None,
        retries: None,
        start_period_ms: None,
        start_interval_ms: None,
    });
    service
}

fn image(mut service: Deployment, image: &str) -> Deployment {
    service.spec.container.image = image.to_owned();
    service
}

#[test]
fn a_rolling_update_keeps_every_slot_running() {
    let mut world = cluster(3, "a_rolling_update_keeps");
    world.command(0, deploy(checked(version(service("web", 6), 1))));
    world.converge(60_000);
    let before: BTreeSet<InstanceId> = running(&world).into_values().flatten().collect();
    world.command(1, deploy(checked(version(service("web", 6), 2))));
    run_checking(&mut world, 30_000, |world| {
        let slots = running(world);
        assert_eq!(slots.len(), 6, "every slot is running");
        assert!(every_connection_is_served(world), "a service has no running endpoint");
        let twice = slots.values().filter(|ids| ids.len() > 1).count();
        assert!(twice <= 2, "{twice} slots are replaced concurrently");
    });
    world.converge(60_000);
    let after: BTreeSet<InstanceId> = running(&world).into_values().flatten().collect();
    assert!(before.is_disjoint(&after) && after.len() == 6);
}

#[test]
fn an_update_to_a_version_that_exits_rolls_back_with_the_reason() {
    let mut world = cluster(3, "rolls_back_with_the_reason");
    world.command(0, deploy(service("web", 6)));
    world.converge(60_000);
    let cursor = world.history.cursor();
    let before = running(&world);
    world.command(1, deploy(image(service("web", 6), "broken")));
    world.converge(120_000);
    assert_eq!(running(&world), before, "the same instances run");
    let stopped =
        world.history.since(cursor).iter().any(|it| matches!(it.action, Action::Stopped(_)));
    assert!(!stopped, "no running instance was stopped");
    let failed = world
        .history
        .since(cursor)
        .iter()
        .filter(|it| matches!(it.action, Action::Ended(_)))
        .count();
    assert!(failed <= 2, "{failed} instances of the new version were started");
    for index in 0..3 {
        let view = world.engine(index).view();
        let Some(UpdateStatus::Failed(why)) = view.updates.values().next() else {
            panic!("the update did not fail")
        };
        assert!(why.contains("exited with code 1: cannot open its configuration"), "{why}");
    }
}

#[test]
fn a_failed_version_is_not_tried_again_when_the_node_leaves_that_saw_it_fail() {
    let mut world = cluster(3, "that_saw_it_fail");
    world.command(0, deploy(service("web", 3)));
    world.converge(60_000);
    let cursor = world.history.cursor();
    world.command(0, deploy(image(service("web", 3), "broken")));
    world.converge(120_000);
    let ends = |world: &World, cursor| -> Vec<usize> {
        let all = world.history.since(cursor).iter();
        all.filter(|it| matches!(it.action, Action::Ended(_))).map(|it| it.node).collect()
    };
    let saw_it = ends(&world, cursor)[0];
    let (other, cursor) = ((saw_it + 1) % 3, world.history.cursor());
    world.command(other, Mutation::Leave { node: format!("m{saw_it}"), force: true });
    world.converge(120_000);
    let others: Vec<usize> = ends(&world, cursor).into_iter().filter(|at| *at != saw_it).collect();
    assert!(others.is_empty(), "{others:?}: the failed version was started again");
    let view = world.engine(other).view();
    assert!(matches!(view.updates.values().next(), Some(UpdateStatus::Failed(_))));
}

#[test]
fn a_failed_version_is_tried_again_when_deployed_again() {
    let mut world = cluster(3, "is_tried_again");
    world.command(0, deploy(service("web", 2)));
    world.converge(60_000);
    world.command(0, deploy(image(service("web", 2), "broken")));
    world.converge(60_000);
    let cursor = world.history.cursor();
    world.command(0, deploy(image(service("web", 2), "broken")));
    world.converge(60_000);
    let restarted =
        world.history.since(cursor).iter().any(|it| matches!(it.action, Action::Ended(_)));
    assert!(restarted, "a new deployment restarts the update");
}

#[test]
fn an_update_that_pauses_on_failure_leaves_both_versions() {
    let mut world = cluster(3, "that_pauses_on_failure");
    world.command(0, deploy(service("web", 3)));
    world.converge(60_000);
    let mut update = image(service("web", 3), "broken");
    update.spec.update.failure_action = FailureAction::Pause;
    let old = service("web", 3).spec.container.digest();
    world.command(0, deploy(update));
    world.run(60_000);
    let slots = running(&world);
    assert_eq!(slots.len(), 3, "the old instances keep running");
    assert!(slots.values().flatten().all(|id| id.digest == old));
    let view = world.engine(1).view();
    let new = view
        .plan
        .placements
        .keys()
        .filter(|slot| rollout::version(&view, slot).as_deref() != Some(&old));
    assert_eq!(new.count(), 1, "the update was tried on one slot only");
}

#[test]
fn with_stop_first_a_slot_never_runs_twice() {
    let mut world = cluster(3, "with_stop_first");
    let ordered = |number| {
        let mut it = checked(version(service("web", 4), number));
        it.spec.update.order = Some(UpdateOrder::StopFirst);
        it
    };
    world.command(0, deploy(ordered(1)));
    world.converge(60_000);
    world.command(1, deploy(ordered(2)));
    let once = |world: &World| {
        assert!(running(world).values().all(|ids| ids.len() == 1), "a slot runs twice");
    };
    run_checking(&mut world, 30_000, once);
    world.command(1, Mutation::Drain { node: "m1".to_owned(), drain: true });
    run_checking(&mut world, 30_000, once);
    world.converge(60_000);
}

#[test]
fn a_drained_node_stops_instances_after_their_replacements_run() {
    let mut world = cluster(3, "stops_instances_after");
    world.command(0, deploy(service("web", 6)));
    world.converge(60_000);
    world.command(2, Mutation::Drain { node: "m1".to_owned(), drain: true });
    run_checking(&mut world, 30_000, |world| {
        assert_eq!(running(world).len(), 6);
        assert!(every_connection_is_served(world), "a service has no running endpoint");
    });
    world.converge(60_000);
    assert_eq!(super::running_on(&world, 1), 0);
}

#[test]
fn instances_that_fit_on_no_other_node_keep_running_on_a_drained_node() {
    let mut world = cluster(2, "keep_running_on_a_drained_node");
    let mut large = service("web", 2);
    large.spec.container.reservation = vc_simulation::services::resources(3000, 512);
    world.command(0, deploy(large));
    world.converge(60_000);
    world.command(0, Mutation::Drain { node: "m1".to_owned(), drain: true });
    world.run(30_000);
    assert_eq!(running(&world).len(), 2, "the other node has too little capacity for both");
}

#[test]
fn an_update_completes_after_a_node_dies() {
    let mut world = cluster(3, "an_update_completes_after");
    world.command(0, deploy(checked(version(service("web", 6), 1))));
    world.converge(60_000);
    world.command(0, deploy(checked(version(service("web", 6), 2))));
    world.run(2_000);
    world.kill_host(0);
    world.run(60_000);
    let view = world.engine(1).view();
    let new = version(service("web", 6), 2);
    let digest = checked(new).spec.container.digest();
    let slots = running(&world);
    assert_eq!(slots.len(), 6);
    assert!(slots.values().flatten().all(|id| id.digest == digest));
    assert!(matches!(view.updates.values().next(), Some(UpdateStatus::Complete)));
}
