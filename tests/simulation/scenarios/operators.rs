//! Concurrent commands of operators.

use vc_engine::Mutation;

use super::{cluster, moved};
use crate::services::{deploy, service, version};

#[test]
fn two_services_deployed_at_the_same_moment_on_two_nodes_both_run() {
    let mut world = cluster(3, "two_services_deployed");
    world.command(0, deploy(service("web", 3)));
    world.command(1, deploy(service("api", 3)));
    world.converge(30_000);
    assert_eq!(world.engine(2).view().plan.placements.len(), 6);
}

#[test]
fn one_service_deployed_at_the_same_moment_on_two_nodes_runs_in_one_version() {
    let mut world = cluster(3, "one_service_deployed");
    world.command(0, deploy(version(service("web", 3), 1)));
    world.command(1, deploy(version(service("web", 4), 2)));
    world.converge(30_000);
    assert_eq!(world.engine(2).view().cluster.services.len(), 1);
}

#[test]
fn scale_and_update_at_the_same_moment_both_hold() {
    let mut world = cluster(3, "scale_and_update");
    world.command(0, deploy(version(service("web", 2), 1)));
    world.converge(30_000);
    let mut update = version(service("web", 0), 2);
    update.replicas = None;
    world.command(0, deploy(update));
    world.command(1, Mutation::Scale { service: "web".to_owned(), replicas: 5 });
    world.converge(60_000);
    let view = world.engine(2).view();
    assert_eq!(view.plan.placements.len(), 5);
    let record = view.cluster.services.values().next().expect("one");
    assert_eq!(record.spec.container.environment["VERSION"], "2");
}

#[test]
fn what_was_acknowledged_survives_the_death_of_all_right_after() {
    let mut world = cluster(3, "what_was_acknowledged");
    world.command(1, deploy(service("web", 3)));
    world.command(2, deploy(service("api", 1)));
    (0..3).for_each(|of| world.kill_host(of));
    world.run(5_000);
    (0..3).for_each(|of| world.boot(of));
    world.converge(60_000);
    assert_eq!(world.engine(0).view().plan.placements.len(), 4);
}

#[test]
fn what_was_acknowledged_arrives_late_when_its_node_died_right_after() {
    let mut world = cluster(3, "what_was_acknowledged_arrives_late");
    world.network.faults.loss = 1000;
    world.command(1, deploy(service("web", 3)));
    world.kill_host(1);
    world.network.faults.loss = 0;
    world.run(30_000);
    assert_eq!(world.engine(0).view().cluster.services.len(), 0, "nobody else can know");
    world.boot(1);
    world.converge(60_000);
    assert_eq!(world.engine(0).view().plan.placements.len(), 3);
}

#[test]
fn a_drained_node_is_emptied_and_takes_nothing_back_by_itself() {
    let mut world = cluster(3, "a_drained_node");
    world.command(0, deploy(service("web", 6)));
    world.converge(30_000);
    world.command(2, Mutation::Drain { node: "m1".to_owned(), drain: true });
    world.converge(30_000);
    assert_eq!(super::runs(&world, 1), 0);
    let cursor = world.history.cursor();
    world.command(0, Mutation::Drain { node: "m1".to_owned(), drain: false });
    world.converge(30_000);
    assert_eq!(moved(&world, cursor), (0, 0));
}

#[test]
fn a_command_whose_write_fails_is_not_acknowledged_and_leaves_nothing_behind() {
    let mut world = cluster(3, "a_command_whose_write_fails");
    world.nodes[0].disk.failing = 1;
    let request = world.ask(0, deploy(service("web", 3))).expect("it is there");
    assert!(!world.operators.operations[&request].acknowledged());
    world.converge(30_000);
    assert!(world.engine(1).view().cluster.services.is_empty());
    world.command(0, deploy(service("web", 3)));
    world.converge(30_000);
}
