//! Exclusive services. `invariants/one_holder.rs` checks every container that begins to run.

use vc_protocol::Millis;
use vc_protocol::spec::{Deployment, OnPartition};
use vc_simulation::services::{deploy, service};
use vc_simulation::world::World;

use super::{cluster, running_on};

/// The longest time from the loss of a holder until another node runs its slot: its lease, and the start.
const FAILOVER: Millis = 8_000;

fn exclusive(name: &str, replicas: u32) -> Deployment {
    let mut deployment = service(name, replicas);
    deployment.spec.on_partition = Some(OnPartition::Exclusive);
    deployment
}

/// Returns the nodes that run an instance of the service.
fn holders(world: &World) -> Vec<usize> {
    (0..world.nodes.len()).filter(|&index| running_on(world, index) > 0).collect()
}

/// Returns a world whose only service has one exclusive slot, and the node that runs it.
fn one_slot(nodes: usize, name: &str) -> (World, usize) {
    let mut world = cluster(nodes, name);
    world.command(0, deploy(exclusive("db", 1)));
    world.converge(20_000);
    let [holder] = holders(&world)[..] else { panic!("{:?}", holders(&world)) };
    (world, holder)
}

#[test]
fn a_slot_whose_node_is_cut_off_stops_there_and_runs_elsewhere() {
    let (mut world, holder) = one_slot(3, "a_slot_whose_node_is_cut_off");
    let others: Vec<usize> = (0..3).filter(|index| *index != holder).collect();
    world.partition(&[&[holder], &others]);
    world.run(5_000);
    assert!(holders(&world).is_empty(), "it stops before another node may have the lease");
    world.run(FAILOVER - 5_000);
    let next = holders(&world);
    assert!(next.len() == 1 && next[0] != holder, "{next:?}");
    world.heal();
    world.converge(30_000);
    assert_eq!(holders(&world), next, "the lease stays where it is");
}

#[test]
fn the_watchdog_ends_the_slot_of_a_process_that_hangs() {
    let (mut world, holder) = one_slot(3, "the_watchdog_ends_the_slot");
    world.stall(holder, 20_000);
    world.run(5_000);
    assert!(holders(&world).is_empty());
    world.run(FAILOVER - 5_000);
    assert!(holders(&world).len() == 1 && !holders(&world).contains(&holder));
    world.converge(60_000);
    assert_eq!(holders(&world).len(), 1);
}

#[test]
fn a_slot_stays_where_its_process_is_back_in_time() {
    let (mut world, holder) = one_slot(3, "a_slot_stays_where_its_process");
    let epochs = world.epochs.clone();
    world.announce_restart(holder);
    world.run(100);
    world.kill_process(holder);
    world.run(2_000);
    world.boot(holder);
    world.converge(30_000);
    assert_eq!((holders(&world), &world.epochs), (vec![holder], &epochs));
    // Without a word, as after a crash.
    world.kill_process(holder);
    world.run(1_000);
    world.boot(holder);
    world.converge(30_000);
    assert_eq!((holders(&world), &world.epochs), (vec![holder], &epochs));
}

#[test]
fn the_minority_of_the_voters_runs_nothing_exclusive_and_all_else() {
    let mut world = cluster(5, "the_minority_of_the_voters");
    world.command(0, deploy(exclusive("db", 5)));
    world.command(0, deploy(service("web", 5)));
    world.converge(30_000);
    world.partition(&[&[0, 1], &[2, 3, 4]]);
    world.run(20_000);
    assert_eq!(running_on(&world, 0) + running_on(&world, 1), 5, "web alone");
    assert_eq!((2..5).map(|index| running_on(&world, index)).sum::<usize>(), 10);
    world.heal();
    world.converge(60_000);
    assert_eq!((0..5).map(|index| running_on(&world, index)).sum::<usize>(), 10);
}

#[test]
fn of_two_servers_one_can_be_lost_without_an_effect() {
    let mut world = cluster(2, "of_two_servers_one_can_be_lost");
    world.command(0, deploy(exclusive("db", 2)));
    world.converge(20_000);
    let view = world.engine(0).view();
    let voters = &view.cluster.voter_set().expect("voters").voters;
    let voter = world.node_of(*voters.first().expect("a voter"));
    world.kill_host(1 - voter);
    world.run(FAILOVER + 2_000);
    assert_eq!(running_on(&world, voter), 2);
}

#[test]
fn an_exclusive_slot_never_runs_twice_whatever_breaks() {
    for n in 0..10 {
        let nodes = 3 + n % 3;
        let mut world = cluster(nodes, &format!("an_exclusive_slot_never_runs_twice{n}"));
        for index in 0..nodes {
            let rate = world.rng.within((900, 1100));
            let now = world.now;
            world.nodes[index].clocks.drift(now, rate);
        }
        world.command(0, deploy(exclusive("db", 3)));
        world.converge(30_000);
        for _ in 0..15 {
            let victim = world.rng.index(nodes);
            let other = (victim + 1 + world.rng.index(nodes - 1)) % nodes;
            let rest: Vec<usize> = (0..nodes).filter(|index| *index != victim).collect();
            match world.rng.index(8) {
                0 => world.partition(&[&[victim], &rest]),
                1 => world.cut_one_way(victim, other),
                2 => world.kill_process(victim),
                3 => world.kill_host(victim),
                4 => {
                    let duration = world.rng.within((500, 9_000));
                    world.stall(victim, duration);
                }
                5 if world.is_running(victim) => world.announce_restart(victim),
                _ => {
                    world.heal();
                    (0..nodes).for_each(|index| world.boot(index));
                }
            }
            let duration = world.rng.within((200, 9_000));
            world.run(duration);
        }
        world.heal();
        (0..nodes).for_each(|index| world.boot(index));
        world.converge(120_000);
        assert_eq!((0..nodes).map(|index| running_on(&world, index)).sum::<usize>(), 3);
    }
}
