use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{ClusterState, NodeState, ServiceRecord, UpdateResult};
use vc_protocol::node::{NodeInfo, RuntimeKind};
use vc_protocol::spec::{FailureAction, ServiceSpec};
use vc_protocol::{Keypair, Resources, ServiceKey};

use super::*;

/// Three nodes, and what was told of them so far.
struct World {
    cluster: ClusterState,
    nodes: BTreeMap<NodeId, NodeState>,
    last: View,
}

fn id(n: u8) -> NodeId {
    NodeId::of(&Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes").public()).expect("ed25519")
}

fn key(text: &str) -> ServiceKey {
    text.parse().expect("a service")
}

fn node(n: u8) -> NodeState {
    let info = NodeInfo {
        name: format!("n{n}").parse().expect("a name"),
        version: String::new(),
        os: "linux".to_owned(),
        arch: "amd64".to_owned(),
        runtime: RuntimeKind::Docker,
        capacity: Resources { cpu_millis: 4000, memory_bytes: 1 << 32 },
        labels: BTreeMap::new(),
        addresses: Vec::new(),
    };
    NodeState {
        incarnation: 1,
        info: Some(info),
        observed: (1..=3).map(id).collect::<BTreeSet<_>>(),
        ..NodeState::default()
    }
}

impl World {
    fn new() -> Self {
        let (cluster, nodes): (_, BTreeMap<_, _>) =
            (ClusterState::default(), (1..=3).map(|n| (id(n), node(n))).collect());
        let last = View::from_states(cluster.clone(), nodes.clone());
        Self { cluster, nodes, last }
    }

    fn node(&mut self, n: u8) -> &mut NodeState {
        self.nodes.get_mut(&id(n)).expect("a node")
    }

    /// What is told of what has changed since this was asked before: the first letter of the level, then the line.
    fn told(&mut self) -> Vec<String> {
        let view = View::from_states(self.cluster.clone(), self.nodes.clone());
        let rows = between(&self.last, &view, 7);
        assert!(between(&view, &view, 8).is_empty(), "nothing changed");
        self.last = view;
        let level = |row: &EventRow| match row.level {
            EventLevel::Info => 'i',
            EventLevel::Warning => 'w',
            EventLevel::Error => 'e',
        };
        assert!(rows.iter().all(|row| row.time == 7));
        rows.iter().map(|row| format!("{} {}: {}", level(row), row.subject, row.text)).collect()
    }

    fn deploy(&mut self, service: &str, image: &str, revision: Millis) {
        let mut spec = ServiceSpec::default();
        spec.container.image = image.to_owned();
        let held = self.cluster.services.get(&key(service)).map(|held| held.spec.clone());
        let record = ServiceRecord {
            spec,
            previous: held,
            updated: revision,
            deployed_by: "ada".to_owned(),
        };
        self.cluster.services.insert(key(service), record);
    }

    /// The digest of what a service is to run.
    fn digest(&self, service: &str) -> String {
        self.cluster.services[&key(service)].spec.container.digest()
    }

    /// Where the plan wants a slot.
    fn place(&self, slot: &str) -> u8 {
        let node = self.last.plan.placements[&slot.parse().expect("a slot")].node;
        (1..=3).find(|n| id(*n) == node).expect("one of three")
    }

    fn claim(&mut self, n: u8, slot: &str, digest: &str, state: InstanceState, restarts: u32) {
        let reason = match state {
            InstanceState::Failed => "exit code 1\nlast words",
            InstanceState::Unhealthy => "the check failed",
            _ => "",
        };
        let claim = Claim {
            state,
            reason: reason.to_owned(),
            address: String::new(),
            restarts,
            since: 1,
            available: false,
        };
        let id = format!("{slot}@{digest}").parse().expect("an instance");
        self.node(n).claims.insert(id, claim);
    }
}

#[test]
fn nodes_come_and_go() {
    let mut world = World::new();
    world.nodes.insert(id(4), NodeState { incarnation: 1, ..NodeState::default() });
    assert!(world.told().is_empty(), "who has not said his name is nobody yet");
    world.nodes.insert(id(4), node(4));
    assert_eq!(world.told(), ["i n4: joined the cluster"]);
    world.node(4).runtime_error = Some("Docker does not answer".to_owned());
    assert_eq!(world.told(), ["e n4: cannot run instances: Docker does not answer"]);
    world.node(4).runtime_error = None;
    world.cluster.drained.insert(id(4), true);
    assert_eq!(world.told(), ["i n4: is being drained", "i n4: can run instances again"]);
    world.cluster.drained.insert(id(4), false);
    assert_eq!(world.told(), ["i n4: takes instances again"]);
    for n in 1..=3 {
        world.node(n).observed.insert(id(4));
        world.node(n).unreachable.insert(id(4), 1);
    }
    assert_eq!(world.told(), ["e n4: is down: the other nodes cannot hear it"]);
    world.node(4).incarnation = 2;
    assert_eq!(world.told(), ["i n4: is up again"]);
    world.cluster.left.insert(id(4), 1);
    assert_eq!(world.told(), ["i n4: left the cluster"]);
}

#[test]
fn a_service_is_deployed_scaled_updated_and_removed() {
    let mut world = World::new();
    world.cluster.scale.insert(key("shop/web"), 2);
    world.deploy("shop/web", "web:1", 1);
    assert_eq!(world.told(), ["i shop/web: deployed by ada: 2 of web:1"]);
    world.cluster.scale.insert(key("shop/web"), 1);
    assert_eq!(world.told(), ["i shop/web: scaled from 2 to 1"]);

    world.deploy("shop/web", "web:2", 2);
    assert_eq!(world.told(), ["i shop/web: ada updates it to web:2"]);
    world
        .node(2)
        .update_results
        .insert(key("shop/web"), UpdateResult { revision: 2, failed: None });
    assert_eq!(world.told(), ["i shop/web: the update is complete"]);
    world.deploy("shop/web", "web:3", 3);
    let failed = Some("web.1 failed: exit code 1\nlast words".to_owned());
    world.told();
    world.node(2).update_results.insert(key("shop/web"), UpdateResult { revision: 3, failed });
    assert_eq!(
        world.told(),
        ["e shop/web: the update failed, the version before returns: web.1 failed: exit code 1"]
    );
    let record = world.cluster.services.get_mut(&key("shop/web")).expect("deployed");
    record.spec.update.failure_action = FailureAction::Pause;
    assert_eq!(
        world.told(),
        ["e shop/web: the update failed and is paused: web.1 failed: exit code 1"]
    );
    world.cluster.services.remove(&key("shop/web"));
    assert_eq!(world.told(), ["i shop/web: removed"]);
}

#[test]
fn an_instance_lives_its_life() {
    use InstanceState::{Failed, Healthy, Running, Starting, Stopping, Unhealthy};
    let mut world = World::new();
    world.deploy("shop/web", "web:1", 1);
    world.told();
    let (n, digest) = (world.place("shop/web.1"), world.digest("shop/web"));
    let life: [(InstanceState, u32, Option<&str>); 10] = [
        (Starting, 0, None),
        (Running, 0, Some("i runs on N")),
        (Healthy, 0, Some("i is healthy")),
        (Unhealthy, 0, Some("w is unhealthy: the check failed")),
        (Healthy, 0, Some("i is healthy")),
        (Healthy, 1, Some("w ended and was started again on N")),
        (Failed, 1, Some("e failed on N: exit code 1")),
        (Failed, 2, Some("e failed again on N: exit code 1")),
        (Running, 3, Some("i runs on N")),
        (Stopping, 3, None),
    ];
    for (state, restarts, told) in life {
        world.claim(n, "shop/web.1", &digest, state, restarts);
        let told = told.map(|told| {
            let (level, text) = told.split_once(' ').expect("two words");
            format!("{level} shop/web.1: {}", text.replace('N', &format!("n{n}")))
        });
        assert_eq!(world.told(), Vec::from_iter(told), "{state:?}");
    }
    world.node(n).claims.clear();
    assert_eq!(world.told(), [format!("i shop/web.1: stopped on n{n}")]);
}

#[test]
fn an_update_names_the_version_that_stops() {
    let mut world = World::new();
    world.deploy("shop/web", "web:1", 1);
    world.told();
    let n = world.place("shop/web.1");
    let old = world.digest("shop/web");
    world.claim(n, "shop/web.1", &old, InstanceState::Running, 0);
    world.told();
    world.deploy("shop/web", "web:2", 2);
    let new = world.digest("shop/web");
    world.claim(n, "shop/web.1", &new, InstanceState::Running, 0);
    world.told();
    world.node(n).claims.remove(&format!("shop/web.1@{old}").parse().expect("an instance"));
    assert_eq!(world.told(), [format!("i shop/web.1: an earlier version stopped on n{n}")]);
}

#[test]
fn what_a_dead_node_held_moves_or_waits() {
    let mut world = World::new();
    world.deploy("shop/web", "web:1", 1);
    world.told();
    let (n, digest) = (world.place("shop/web.1"), world.digest("shop/web"));
    world.claim(n, "shop/web.1", &digest, InstanceState::Running, 0);
    world.told();
    for by in (1..=3).filter(|by| *by != n) {
        world.node(by).unreachable.insert(id(n), 1);
    }
    let told = world.told();
    let to = world.place("shop/web.1");
    let expected = [
        format!("e n{n}: is down: the other nodes cannot hear it"),
        format!("i shop/web.1: moves from n{n} to n{to}"),
    ];
    assert_eq!(told, expected, "that nobody hears its instances is no news");

    // Nobody is left who may run it.
    for n in 1..=3 {
        world.cluster.drained.insert(id(n), true);
    }
    let told = world.told();
    let waits: Vec<_> = told.iter().filter(|line| line.contains("shop/web.1")).collect();
    assert_eq!(waits.len(), 1, "{told:?}");
    assert!(waits[0].starts_with("w shop/web.1: has no node: "), "{told:?}");
    world.cluster.drained.clear();
    let told = world.told();
    let back = format!("i shop/web.1: has a node: n{}", world.place("shop/web.1"));
    assert!(told.contains(&back), "{told:?}");
}
