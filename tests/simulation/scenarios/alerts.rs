//! Alerts: what a receiver gets when nodes die, the one that sends among them.

use std::collections::BTreeMap;

use vc_crdt::{Receiver, ReceiverTarget, SealedFile};
use vc_engine::Mutation;
use vc_engine::alerts::{Alert, AlertStatus};
use vc_protocol::alert::{AlertFilter, AlertFormat, ProblemKind};
use vc_simulation::check::Violation;
use vc_simulation::world::World;

use super::cluster;

/// The longest time from a death until it is sent: its detection, the time that it has to hold, and the look at the problems.
const SENT: u64 = 22_000;

fn watched(nodes: usize, name: &str) -> World {
    let mut world = cluster(nodes, name);
    let url = SealedFile { sealed: String::new() };
    let receiver = Receiver {
        target: ReceiverTarget::Webhook { url, origin: "http://10.0.0.9".to_owned() },
        format: AlertFormat::Json,
        filter: AlertFilter { kinds: [ProblemKind::NodeDown].into(), ..AlertFilter::default() },
        added: 1,
        added_by: "ann".to_owned(),
    };
    let name = "ops".parse().expect("a name");
    world.command(0, Mutation::AddReceiver { name, receiver: Box::new(receiver) });
    world.converge(30_000);
    world.run(30_000);
    world
}

/// Returns how often the receiver got each alert, by the name of the node that it is about.
fn got(world: &World, status: AlertStatus) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let is = |alert: &&Alert| alert.status == status;
    for alert in world.notified.iter().flat_map(|(_, it)| &it.alerts).filter(is) {
        *counts.entry(alert.labels["node"].clone()).or_default() += 1;
    }
    counts
}

fn sender(world: &World) -> usize {
    let view = world.engine(world.running()[0]).view();
    let (name, receiver) = view.cluster.receivers.first_key_value().expect("a receiver");
    world.node_of(vc_engine::alerts::sender(&view, name, receiver).expect("a sender"))
}

fn once(index: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([(format!("m{index}"), 1)])
}

#[test]
fn the_death_of_a_node_is_sent_once_and_its_return_once() {
    let mut world = watched(3, "the_death_of_a_node_is_sent_once");
    let victim = (sender(&world) + 1) % 3;
    world.kill_host(victim);
    world.run(SENT);
    assert_eq!(got(&world, AlertStatus::Firing), once(victim));
    world.run(600_000);
    world.boot(victim);
    world.converge(30_000);
    world.run(SENT);
    assert_eq!(got(&world, AlertStatus::Firing), once(victim));
    assert_eq!(got(&world, AlertStatus::Resolved), once(victim));
    let alerts = &world.engine(0).view().cluster.alerts;
    assert!(alerts.is_empty(), "{alerts:?}");
}

#[test]
fn the_death_of_the_sender_is_sent_by_the_next() {
    let mut world = watched(3, "the_death_of_the_sender_is_sent");
    let first = sender(&world);
    world.kill_host(first);
    world.run(SENT + 15_000);
    assert_eq!(got(&world, AlertStatus::Firing), once(first));
    // It sends again once it is back, and knows what was sent meanwhile.
    world.boot(first);
    world.converge(30_000);
    world.run(SENT + 15_000);
    assert_eq!(sender(&world), first);
    assert_eq!(got(&world, AlertStatus::Firing), once(first));
    assert_eq!(got(&world, AlertStatus::Resolved), once(first));
}

#[test]
fn what_the_sender_has_not_confirmed_is_sent_by_the_next() {
    let mut world = watched(4, "what_the_sender_has_not_confirmed");
    let first = sender(&world);
    let victim = (first + 1) % 4;
    world.kill_host(victim);
    world.run_until(SENT, "an alert is sent", |world| {
        let sent = world.notified.len();
        (sent == 1).then_some(()).ok_or_else(|| Violation(format!("{sent} deliveries")))
    });
    // Before the receiver's answer reaches it.
    world.kill_host(first);
    world.run(2 * SENT);
    let of_victim = got(&world, AlertStatus::Firing)[&format!("m{victim}")];
    assert_eq!(of_victim, 2, "at least once: no node knows that the first arrived");
    assert_eq!(got(&world, AlertStatus::Firing)[&format!("m{first}")], 1);
    world.boot(victim);
    world.boot(first);
    world.converge(60_000);
    world.run(2 * SENT);
    let ends = got(&world, AlertStatus::Resolved);
    assert_eq!(ends, BTreeMap::from([(format!("m{victim}"), 1), (format!("m{first}"), 1)]));
}

#[test]
fn a_cluster_at_rest_sends_nothing_and_writes_nothing() {
    let mut world = watched(3, "a_cluster_at_rest_sends_nothing");
    let versions = world.engine(0).replica().versions().clone();
    world.run(300_000);
    assert!(world.notified.is_empty(), "{:?}", world.notified);
    assert_eq!(world.engine(0).replica().versions(), &versions);
}
