//! Mutations of operators: concurrent ones, and ones interrupted by faults.

use vc_engine::Mutation;

use super::{cluster, started_and_stopped};
use vc_simulation::services::{deploy, service, version};

#[test]
fn concurrent_deploys_of_two_services_both_run() {
    let mut world = cluster(3, "concurrent_deploys_of_two");
    world.command(0, deploy(service("web", 3)));
    world.command(1, deploy(service("api", 3)));
    world.converge(30_000);
    assert_eq!(world.engine(2).view().plan.placements.len(), 6);
}

#[test]
fn concurrent_deploys_of_one_service_converge_to_one_version() {
    let mut world = cluster(3, "concurrent_deploys_of_one");
    world.command(0, deploy(version(service("web", 3), 1)));
    world.command(1, deploy(version(service("web", 4), 2)));
    world.converge(30_000);
    assert_eq!(world.engine(2).view().cluster.services.len(), 1);
}

#[test]
fn a_concurrent_scale_and_update_both_apply() {
    let mut world = cluster(3, "concurrent_scale_and_update");
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
fn acknowledged_deploys_survive_a_power_loss_of_all_hosts() {
    let mut world = cluster(3, "acknowledged_deploys_survive");
    world.command(1, deploy(service("web", 3)));
    world.command(2, deploy(service("api", 1)));
    (0..3).for_each(|index| world.kill_host(index));
    world.run(5_000);
    (0..3).for_each(|index| world.boot(index));
    world.converge(60_000);
    assert_eq!(world.engine(0).view().plan.placements.len(), 4);
}

#[test]
fn an_acknowledged_deploy_spreads_when_its_dead_node_returns() {
    let mut world = cluster(3, "an_acknowledged_deploy_spreads");
    world.network.faults.loss = 1000;
    world.command(1, deploy(service("web", 3)));
    world.kill_host(1);
    world.network.faults.loss = 0;
    world.run(30_000);
    assert_eq!(
        world.engine(0).view().cluster.services.len(),
        0,
        "no other node received the change"
    );
    world.boot(1);
    world.converge(60_000);
    assert_eq!(world.engine(0).view().plan.placements.len(), 3);
}

#[test]
fn a_drained_node_is_emptied_and_gets_nothing_back_after_undrain() {
    let mut world = cluster(3, "a_drained_node_is_emptied");
    world.command(0, deploy(service("web", 6)));
    world.converge(30_000);
    world.command(2, Mutation::Drain { node: "m1".to_owned(), drain: true });
    world.converge(30_000);
    assert_eq!(super::running_on(&world, 1), 0);
    let cursor = world.history.cursor();
    world.command(0, Mutation::Drain { node: "m1".to_owned(), drain: false });
    world.converge(30_000);
    assert_eq!(started_and_stopped(&world, cursor), (0, 0));
}

#[test]
fn a_mutation_whose_write_fails_is_not_acknowledged_and_has_no_effect() {
    let mut world = cluster(3, "a_mutation_whose_write_fails");
    world.nodes[0].disk.failing = 1;
    let request = world.request(0, deploy(service("web", 3))).expect("the node is running");
    assert!(!world.operators.operations[&request].acknowledged());
    world.converge(30_000);
    assert!(world.engine(1).view().cluster.services.is_empty());
    world.command(0, deploy(service("web", 3)));
    world.converge(30_000);
}
