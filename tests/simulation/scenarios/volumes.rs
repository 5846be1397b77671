//! Volumes: their data follows their service. `write` checks that no two instances write to one volume.

use std::collections::BTreeSet;

use vc_crdt::NodeState;
use vc_engine::Mutation;
use vc_protocol::spec::{Attribute, Constraint, Deployment, Mount};
use vc_protocol::volume::{OnLoss, SnapshotId, VolumeSpec};
use vc_protocol::{NodeId, VolumeKey};
use vc_simulation::Mark;
use vc_simulation::check::Violation;
use vc_simulation::invariants::minimal_movement;
use vc_simulation::services::{deploy, resources, service};
use vc_simulation::volumes::{Content, Copy};
use vc_simulation::world::World;

use super::cluster;

fn data() -> VolumeKey {
    "shop/data".parse().expect("a volume")
}

fn database(volume: VolumeSpec) -> Deployment {
    let mut deployment = service("db", 1);
    let name = data().volume;
    let mount = Mount::volume(name.clone(), "/data", false);
    deployment.spec.container.mounts = vec![mount];
    if volume != VolumeSpec::default() {
        deployment.spec.volumes.insert(name, volume);
    }
    deployment
}

/// Writes until a write succeeds. Returns where, and its number.
fn write(world: &mut World, limit: u64) -> (usize, u64) {
    let until = world.now + limit;
    loop {
        match world.write(&data()) {
            Some(written) => return written,
            None => assert!(world.now < until, "no instance writes within {limit} ms"),
        }
        world.run(50);
    }
}

fn working(world: &World, index: usize) -> Content {
    world.nodes[index].volumes.copies.get(&data()).map(|it| it.working.clone()).unwrap_or_default()
}

/// Returns the nodes that have a snapshot with this write.
fn having(world: &World, number: u64) -> Vec<usize> {
    let has = |index: &usize| {
        let copy = world.nodes[*index].volumes.copies.get(&data());
        copy.is_some_and(|it| it.snapshots.values().any(|content| content.contains(&number)))
    };
    (0..world.nodes.len()).filter(has).collect()
}

fn await_copies(world: &mut World, number: u64, count: usize) -> Vec<usize> {
    world.run_until(30_000, "the write is copied", |world| {
        let having = having(world, number);
        (having.len() >= count).then_some(()).ok_or_else(|| Violation(format!("{having:?}")))
    });
    having(world, number)
}

/// Returns a world of three nodes in which a database has made a write that two nodes have, the node that runs it, and the
/// other one.
fn running(name: &str, volume: VolumeSpec) -> (World, usize, usize, u64) {
    let mut world = cluster(3, name);
    world.command(0, deploy(database(volume)));
    let (primary, number) = write(&mut world, 20_000);
    let having = await_copies(&mut world, number, 2);
    let [replica] = having.into_iter().filter(|it| *it != primary).collect::<Vec<_>>()[..] else {
        panic!("one other node has a copy")
    };
    world.converge(30_000);
    (world, primary, replica, number)
}

#[test]
fn a_service_goes_on_where_its_data_is_and_what_was_not_copied_is_kept_aside() {
    let (mut world, primary, replica, copied) = running("a_service_goes_on", VolumeSpec::default());
    let (at, lost) = write(&mut world, 1_000);
    assert_eq!(at, primary);
    world.kill_host(primary);
    let (at, later) = write(&mut world, 12_000);
    assert_eq!(at, replica, "the node with the copy");
    assert_eq!(working(&world, replica), Content::from([copied, later]));
    // The third node becomes the second copy only when the first one is lost for good; the primary returns before.
    world.boot(primary);
    await_copies(&mut world, later, 2);
    world.converge(60_000);
    assert_eq!(working(&world, primary), Content::from([copied, later]));
    let conflicts = &world.nodes[primary].volumes.copies[&data()].conflicts;
    assert_eq!(conflicts[..], [Content::from([copied, lost])]);
    let record = &world.engine(0).view().nodes[&world.nodes[primary].id].volumes[&data()];
    assert_eq!(record.copy.as_ref().map(|copy| copy.conflicts), Some(1));
    assert_eq!(write(&mut world, 1_000).0, replica, "it stays where it is");
}

#[test]
fn a_service_begins_with_what_was_imported_and_goes_on_elsewhere_with_it() {
    let mut world = cluster(3, "a_service_begins_with_what_was_imported");
    let imported = 1_000_000;
    let mut copy = Copy::default();
    copy.snapshots.insert(SnapshotId { epoch: 0, number: 1 }, Content::from([imported]));
    world.nodes[1].volumes.copies.insert(data(), copy);
    world.report_copies(1);
    // It gets copies before any service mounts it.
    await_copies(&mut world, imported, 2);
    world.command(0, deploy(database(VolumeSpec::default())));
    let (at, number) = write(&mut world, 20_000);
    assert_eq!(at, 1, "the node that has it");
    assert_eq!(working(&world, 1), Content::from([imported, number]));
    await_copies(&mut world, number, 2);
    world.kill_host(1);
    let (at, later) = write(&mut world, 20_000);
    assert_eq!(working(&world, at), Content::from([imported, number, later]));
    let conflicts =
        |index: usize| world.nodes[index].volumes.copies.get(&data()).map(|it| it.conflicts.len());
    assert!((0..3).all(|index| conflicts(index).unwrap_or(0) == 0), "nothing was put aside");
}

#[test]
fn a_drain_loses_nothing() {
    let (mut world, primary, replica, copied) =
        running("a_drain_loses_nothing", VolumeSpec::default());
    let name = format!("m{primary}");
    world.command(0, Mutation::Drain { node: name.clone(), drain: true });
    let mut written = Content::from([copied]);
    let mut at = primary;
    let until = world.now + 30_000;
    while at == primary {
        assert!(world.now < until, "it does not move");
        if let Some((index, number)) = world.write(&data()) {
            (at, _) = (index, written.insert(number));
        }
        world.run(50);
    }
    assert_eq!(at, replica);
    assert_eq!(working(&world, replica), written);
    world.converge(60_000);
    world.command(0, Mutation::Drain { node: name, drain: false });
    let (_, last) = write(&mut world, 1_000);
    await_copies(&mut world, last, 2);
    world.converge(60_000);
    let conflicts = world.nodes.iter().filter_map(|it| it.volumes.copies.get(&data()));
    assert!(conflicts.into_iter().all(|copy| copy.conflicts.is_empty()));
}

#[test]
fn what_an_instance_writes_while_its_service_is_removed_is_there_on_the_next_node() {
    let (mut world, primary, replica, copied) =
        running("what_an_instance_writes_while", VolumeSpec::default());
    world.runtime_faults.stop = (800, 800);
    world.command(0, Mutation::Remove("shop/db".to_owned()));
    let mut written = Content::from([copied]);
    for _ in 0..100 {
        world.run(20);
        written.extend(world.write(&data()).map(|(_, number)| number));
    }
    assert!(written.len() > 10, "it writes until it has stopped");
    world.command(0, Mutation::Drain { node: format!("m{primary}"), drain: true });
    world.command(0, deploy(database(VolumeSpec::default())));
    let (at, number) = write(&mut world, 20_000);
    written.insert(number);
    assert_eq!((at, working(&world, replica)), (replica, written));
}

/// Returns a world in which `m1` has written a volume under an epoch that both disks then lost, and with it the vote of `m0`, the only
/// voter; and the writes. With `restarts`, what `m0` still has is later than what `m1` has.
fn without_last_epoch(name: &str, restarts: bool) -> (World, Content) {
    let mut world = cluster(2, name);
    world.command(0, Mutation::Drain { node: "m0".to_owned(), drain: true });
    world.command(0, deploy(database(VolumeSpec::default())));
    let (_, first) = write(&mut world, 20_000);
    world.command(0, Mutation::Drain { node: "m0".to_owned(), drain: false });
    await_copies(&mut world, first, 2);
    let theirs = world.nodes[1].disk.backup();
    if restarts {
        world.kill_process(1);
        world.boot(1);
        world.run(5_000);
    }
    let voter = world.nodes[0].disk.backup();
    let mut written = Content::from([first]);
    for to in 0..2 {
        world.command(0, Mutation::MoveVolume { volume: data(), to: format!("m{to}") });
        written.extend(write_until_on(&mut world, to));
    }
    world.converge(60_000);
    for (index, copy) in [voter, theirs].into_iter().enumerate() {
        world.kill_host(index);
        world.lose(index, |node| node.disk.set_back(copy));
        world.boot(index);
    }
    (world, written)
}

#[test]
fn a_volume_is_written_again_although_its_last_epoch_was_lost_with_the_disks() {
    let (mut world, mut written) = without_last_epoch("its_last_epoch_was_lost", false);
    let (at, last) = write(&mut world, 30_000);
    written.insert(last);
    assert_eq!((at, working(&world, 1)), (1, written));
    await_copies(&mut world, last, 2);
    world.converge(60_000);
}

#[test]
fn what_a_node_has_of_a_volume_counts_over_an_earlier_document_of_its_own() {
    let (mut world, _) = without_last_epoch("counts_over_an_earlier_document", true);
    world.run_until(10_000, "m1 hears of its document", |world| {
        let heard = world.marks.contains(&Mark::SetBack);
        heard.then_some(()).ok_or_else(|| Violation("it has not".to_owned()))
    });
    // It gets no lease, under which it would begin anew.
    world.kill_host(0);
    world.run_until(10_000, "m1 says what it has", |world| {
        let view = world.engine(1).view();
        let said = view.nodes[&world.nodes[1].id].copy(&data()).expect("a copy");
        let has = &world.nodes[1].volumes.copies[&data()];
        let newest = has.snapshots.last_key_value().map(|(id, _)| *id);
        let is_said = (said.written, said.snapshot) == (has.written(), newest);
        is_said.then_some(()).ok_or_else(|| Violation(format!("{said:?}")))
    });
    world.boot(0);
    world.converge(60_000);
}

#[test]
fn a_service_may_wait_for_its_data() {
    let wait = VolumeSpec { on_loss: OnLoss::Wait, ..VolumeSpec::default() };
    let (mut world, primary, _, copied) = running("a_service_may_wait_for_its_data", wait);
    let (_, last) = write(&mut world, 1_000);
    world.kill_host(primary);
    world.run(60_000);
    assert_eq!(world.write(&data()), None);
    world.boot(primary);
    let (at, next) = write(&mut world, 20_000);
    assert_eq!((at, working(&world, primary)), (primary, Content::from([copied, last, next])));
}

#[test]
fn a_copy_is_made_anew_where_a_node_is_lost_for_good() {
    let (mut world, primary, replica, _) = running("a_copy_is_made_anew", VolumeSpec::default());
    world.kill_host(replica);
    world.run(330_000);
    let (at, number) = write(&mut world, 1_000);
    assert_eq!(at, primary);
    let having = await_copies(&mut world, number, 2);
    assert!(!having.contains(&replica), "{having:?}");
}

/// Writes until an instance on node `to` does. Returns all that was written.
fn write_until_on(world: &mut World, to: usize) -> Content {
    let (mut written, until) = (Content::new(), world.now + 60_000);
    loop {
        assert!(world.now < until, "it does not move");
        if let Some((index, number)) = world.write(&data()) {
            written.insert(number);
            if index == to {
                return written;
            }
        }
        world.run(50);
    }
}

#[test]
fn a_volume_moves_to_a_node_without_a_copy_and_loses_nothing() {
    let (mut world, primary, replica, copied) =
        running("a_volume_moves_to_a_node", VolumeSpec::default());
    let third = 3 - primary - replica;
    world.command(0, Mutation::MoveVolume { volume: data(), to: format!("m{third}") });
    let mut written = write_until_on(&mut world, third);
    written.insert(copied);
    assert_eq!(working(&world, third), written);
    world.converge(60_000);
}

#[test]
fn a_volume_follows_its_service_to_the_only_node_that_may_run_it() {
    let (mut world, primary, replica, copied) =
        running("a_volume_follows_its_service", VolumeSpec::default());
    let third = 3 - primary - replica;
    let mut moved = database(VolumeSpec::default());
    let (attribute, value) = (Attribute::Name, format!("m{third}"));
    moved.spec.constraints.push(Constraint { attribute, equal: true, value });
    world.command(0, deploy(moved));
    world.run(100);
    let (at, number) = write(&mut world, 1_000);
    assert_eq!(at, primary, "it runs on until its data is there");
    let mut written = write_until_on(&mut world, third);
    written.extend([copied, number]);
    assert_eq!(working(&world, third), written);
    world.converge(60_000);
}

#[test]
fn a_service_without_room_beside_its_data_starts_where_that_goes_when_its_node_dies() {
    let (mut world, primary, replica, copied) =
        running("a_service_without_room_beside_its_data", VolumeSpec::default());
    world.command(0, Mutation::Scale { service: "shop/db".to_owned(), replicas: 0 });
    world.converge(30_000);
    let mut filler = service("filler", 1);
    filler.spec.container.reservation = resources(4000, 64);
    let (attribute, value) = (Attribute::Name, format!("m{primary}"));
    filler.spec.constraints.push(Constraint { attribute, equal: true, value });
    world.command(0, deploy(filler));
    world.command(0, Mutation::Scale { service: "shop/db".to_owned(), replicas: 1 });
    world.converge(30_000);
    assert_eq!(world.write(&data()), None, "there is no room");
    let held = minimal_movement::slots_of(&world, primary);
    let affected = minimal_movement::affected_by_death(&world, primary);
    let waits: Vec<_> = affected.difference(&held).map(ToString::to_string).collect();
    assert_eq!(waits, ["shop/db.1"]);
    for other in (0..3).filter(|&other| other != primary) {
        let held = minimal_movement::slots_of(&world, other);
        assert_eq!(minimal_movement::affected_by_death(&world, other), held);
    }
    let cursor = world.history.cursor();
    world.kill_host(primary);
    let (at, number) = write(&mut world, 12_000);
    assert_eq!((at, working(&world, replica)), (replica, Content::from([copied, number])));
    world.require(minimal_movement::only(&world, cursor, &affected));
}

/// Returns the nodes on which slots of the service have running instances.
fn serving(world: &World) -> BTreeSet<usize> {
    let view = world.engine(0).view();
    let is_up = |(id, _): &(&NodeId, &NodeState)| view.up.contains(id);
    let runs = |(_, state): &(&NodeId, &NodeState)| {
        state.claims.values().any(|claim| claim.state.is_running())
    };
    let ids = view.nodes.iter().filter(is_up).filter(runs).map(|(id, _)| *id);
    ids.filter_map(|id| world.nodes.iter().position(|node| node.id == id)).collect()
}

#[test]
fn what_no_service_writes_is_copied_too_and_any_node_with_a_copy_serves_it() {
    let mut world = cluster(4, "what_no_service_writes_is_copied");
    let mut reader = service("web", 2);
    reader.spec.container.mounts = vec![Mount::volume(data().volume, "/data", true)];
    reader.spec.volumes =
        [(data().volume, VolumeSpec { replicas: Some(3), ..VolumeSpec::default() })].into();
    world.command(0, deploy(reader.clone()));
    world.converge(20_000);
    let home = serving(&world);
    assert_eq!(home.len(), 1, "no other node has a copy yet");
    let home = *home.first().expect("one node");
    // Somebody puts a page there.
    world.nodes[home].volumes.copies.entry(data()).or_default().working.insert(7);
    let having = await_copies(&mut world, 7, 3);
    world.kill_host(home);
    world.run(12_000);
    world.boot(home);
    world.converge(60_000);
    reader.replicas = Some(6);
    world.command(home, deploy(reader));
    world.converge(20_000);
    assert_eq!(serving(&world), having.into_iter().collect(), "spread over the copies");
    for index in serving(&world) {
        assert_eq!(working(&world, index), Content::from([7]));
    }
    // A change of the page reaches all of them.
    world.nodes[home].volumes.copies.get_mut(&data()).expect("there").working.insert(8);
    await_copies(&mut world, 8, 3);
    world.converge(20_000);
    for index in serving(&world) {
        assert_eq!(working(&world, index), Content::from([7, 8]));
    }
}

#[test]
fn what_was_imported_is_served_by_services_that_only_read_it() {
    let mut world = cluster(3, "what_was_imported_is_served");
    let mut copy = Copy::default();
    copy.snapshots.insert(SnapshotId { epoch: 0, number: 1 }, Content::from([7]));
    world.nodes[1].volumes.copies.insert(data(), copy);
    world.report_copies(1);
    // One copy alone: what the archive has is not in the volume yet.
    world.run(500);
    let mut reader = service("web", 4);
    reader.spec.container.mounts = vec![Mount::volume(data().volume, "/data", true)];
    world.command(0, deploy(reader));
    world.converge(20_000);
    let serving = serving(&world);
    assert!(!serving.is_empty());
    for index in serving {
        assert_eq!(working(&world, index), Content::from([7]));
    }
}

#[test]
fn whatever_breaks_one_instance_writes_and_what_two_nodes_have_stays() {
    for n in 0..10 {
        let nodes = 3 + n % 3;
        let mut world = cluster(nodes, &format!("whatever_breaks_one_instance_writes{n}"));
        for index in 0..nodes {
            let rate = world.rng.within((900, 1100));
            let now = world.now;
            world.nodes[index].clocks.drift(now, rate);
        }
        world.command(0, deploy(database(VolumeSpec::default())));
        let (_, number) = write(&mut world, 20_000);
        let mut safe = Content::from([number]);
        await_copies(&mut world, number, 2);
        for _ in 0..12 {
            let victim = world.rng.index(nodes);
            let other = (victim + 1 + world.rng.index(nodes - 1)) % nodes;
            let rest: Vec<usize> = (0..nodes).filter(|index| *index != victim).collect();
            let via = *world.running().first().unwrap_or(&0);
            let name = format!("m{victim}");
            match world.rng.index(10) {
                0 => world.partition(&[&[victim], &rest]),
                1 => world.cut_one_way(victim, other),
                2 => world.kill_process(victim),
                3 => world.kill_host(victim),
                4 => {
                    let duration = world.rng.within((500, 9_000));
                    world.stall(victim, duration);
                }
                5 => {
                    world.request(via, Mutation::Drain { node: name, drain: true });
                }
                6 => {
                    world.request(via, Mutation::MoveVolume { volume: data(), to: name });
                }
                _ => {
                    world.heal();
                    for index in 0..nodes {
                        world.boot(index);
                        let node = format!("m{index}");
                        world.request(index, Mutation::Drain { node, drain: false });
                    }
                    let (_, number) = write(&mut world, 60_000);
                    // What was written where the lease was about to end may not be copied.
                    world.run(15_000);
                    if having(&world, number).len() >= 2 {
                        safe.insert(number);
                    }
                }
            }
            for _ in 0..10 {
                let duration = world.rng.within((20, 900));
                world.run(duration);
                world.write(&data());
            }
        }
        world.heal();
        (0..nodes).for_each(|index| world.boot(index));
        world.converge(120_000);
        let (at, _) = write(&mut world, 20_000);
        let kept = world.nodes.iter().filter_map(|it| it.volumes.copies.get(&data()));
        let kept: Content =
            kept.flat_map(|copy| copy.conflicts.iter().flatten().copied()).collect();
        let present = working(&world, at);
        // With more nodes, both that had it may be down while the others go on from an older copy.
        let lost = safe.difference(&present).filter(|it| nodes == 3 || !kept.contains(it));
        let lost: Vec<&u64> = lost.collect();
        assert!(safe.len() > 1, "nothing was copied");
        assert!(lost.is_empty(), "{lost:?} of {safe:?} are lost; kept aside: {kept:?}");
    }
}
