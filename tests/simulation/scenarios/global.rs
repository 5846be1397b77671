//! Services with an instance on each node.

use std::collections::BTreeSet;

use vc_crdt::KnownVersions;
use vc_engine::{Mutation, report};
use vc_placement::RULES;
use vc_protocol::Slot;
use vc_protocol::spec::{Deployment, ServiceMode};

use super::{cluster, running_on, started_and_stopped};
use vc_simulation::services::{deploy, resources, service, version};
use vc_simulation::world::World;

fn agent() -> Deployment {
    let mut agent = service("agent", 1);
    agent.spec.mode = ServiceMode::Global;
    agent
}

/// Returns the slots of the agent that a node runs.
fn slots(world: &World, index: usize) -> BTreeSet<Slot> {
    let containers = world.nodes[index].runtime.containers.iter();
    containers.filter(|(_, it)| it.runs()).map(|(id, _)| id.slot.clone()).collect()
}

/// Returns the numbers of nodes that should have an instance, and of those that have one.
fn counts(world: &World) -> (u32, u32) {
    let row = report::services(&world.engine(0).view()).pop().expect("a service");
    (row.replicas, row.running)
}

#[test]
fn nodes_that_come_and_go_get_and_lose_an_instance_and_no_other_one_is_touched() {
    let mut world = cluster(3, "nodes_that_come_and_go");
    world.command(0, deploy(agent()));
    world.converge(20_000);
    let all = [0, 1, 2].map(|index| slots(&world, index));
    assert!(all.iter().all(|it| it.len() == 1));
    assert_eq!(counts(&world), (3, 3));

    let cursor = world.history.cursor();
    world.join(resources(4000, 4096));
    world.converge(30_000);
    assert_eq!(running_on(&world, 3), 1, "it joined after the deployment");
    assert_eq!(started_and_stopped(&world, cursor), (1, 0));
    assert_eq!(counts(&world), (4, 4));

    world.kill_host(2);
    world.run(world.rescheduling_bound());
    assert_eq!(counts(&world), (4, 3), "a node that is down keeps its slot");
    assert_eq!(started_and_stopped(&world, cursor), (1, 0), "which goes nowhere");
    let drain = |drain| Mutation::Drain { node: "m1".to_owned(), drain };
    world.command(0, drain(true));
    world.run(20_000);
    assert_eq!((running_on(&world, 1), counts(&world)), (0, (3, 2)));
    world.command(0, drain(false));
    world.boot(2);
    world.converge(60_000);
    assert_eq!(counts(&world), (4, 4));
    assert_eq!([0, 1, 2].map(|index| slots(&world, index)), all, "each node has its slot again");
}

#[test]
fn a_global_service_is_updated_node_by_node_and_cannot_be_scaled() {
    let mut world = cluster(3, "a_global_service_is_updated");
    world.command(0, deploy(agent()));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.command(1, deploy(version(agent(), 2)));
    world.converge(120_000);
    assert_eq!(started_and_stopped(&world, cursor), (3, 3));
    assert_eq!(counts(&world), (3, 3));
    let scale = Mutation::Scale { service: "agent".to_owned(), replicas: 7 };
    let why = world.refused_command(0, scale);
    assert_eq!(why, "shop/agent runs on each node that it suits: it cannot be scaled");
    world.converge(20_000);
    assert_eq!(counts(&world), (3, 3));
}

#[test]
fn both_sides_of_a_partition_agree_on_the_slots() {
    let mut world = cluster(4, "both_sides_of_a_partition_agree");
    world.command(0, deploy(agent()));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.partition(&[&[0, 1], &[2, 3]]);
    world.run(60_000);
    world.heal();
    world.converge(60_000);
    assert_eq!(started_and_stopped(&world, cursor), (0, 0));
}

#[test]
fn instances_stay_while_a_member_is_up_that_does_not_know_the_mode() {
    let older = KnownVersions { rules: &RULES[..5], ..KnownVersions::default() };
    let mut world = cluster(3, "a_member_is_up_that_does_not_know");
    world.command(0, deploy(agent()));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.knows = older;
    world.join(resources(4000, 4096));
    world.converge(30_000);
    assert_eq!(world.engine(0).view().rules.version, 5);
    assert_eq!(started_and_stopped(&world, cursor), (0, 0));
    let mut other = agent();
    other.service = "shop/other".parse().expect("a service");
    let why = world.refused_command(0, deploy(other));
    assert!(why.ends_with("vc-node on m3 does not know that"), "{why}");
    world.converge(30_000);
    world.change_version(3, KnownVersions::default());
    world.converge(60_000);
    assert_eq!(counts(&world), (4, 4));
}
