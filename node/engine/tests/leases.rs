//! Exclusive services of a node that is the only voter, and what becomes of their instances when it starts again.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use vc_crdt::KnownVersions;
use vc_engine::runtime::{Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_engine::volumes::ready_at_once;
use vc_engine::{Config, Durable, Engine, HISTORY, Input, Mutation, Output, Timing};
use vc_protocol::change::Subject;
use vc_protocol::node::NodeInfo;
use vc_protocol::spec::{ContainerSpec, Deployment, Mount, OnPartition, ServiceSpec};
use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{ClusterId, InstanceId, Keypair, Millis, NodeId};

fn key() -> Keypair {
    Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes")
}

fn engine(durable: Durable, deadlines: BTreeMap<InstanceId, Millis>, now: Millis) -> Engine {
    let config = Config {
        key: key(),
        id: NodeId::of(&key().public()).expect("ed25519"),
        cluster: ClusterId::of(&key().public()).expect("ed25519"),
        info: NodeInfo::for_tests("desk"),
        nonce: now,
        timing: Timing::default(),
        history: HISTORY,
        knows: KnownVersions::default(),
        audit: false,
        deadlines,
    };
    Engine::new(config, durable, now).expect("an engine")
}

/// A node that is alone in its cluster.
struct Node {
    engine: Engine,
    disk: Durable,
    actions: Vec<RuntimeAction>,
    deadlines: BTreeMap<InstanceId, Millis>,
    now: Millis,
}

impl Node {
    fn start() -> Self {
        let id = NodeId::of(&key().public()).expect("ed25519");
        let certificate = issue_certificate(&key(), id, NodeRole::Server, 0).expect("signed");
        let disk = Durable { certificates: vec![certificate], ..Durable::default() };
        let engine = engine(disk.clone(), BTreeMap::new(), 1);
        let mut node =
            Self { engine, disk, actions: Vec::new(), deadlines: BTreeMap::new(), now: 1 };
        node.input(Input::Runtime(RuntimeEvent::Listed(Vec::new())));
        node
    }

    /// Ends the process, and starts it again with these instances in the runtime and what the watchdog knows.
    fn restart(
        &mut self,
        after: Millis,
        watchdog: BTreeMap<InstanceId, Millis>,
        seen: Vec<Observed>,
    ) {
        self.now += after;
        self.engine = engine(self.disk.clone(), watchdog, self.now);
        self.actions.clear();
        self.input(Input::Runtime(RuntimeEvent::Listed(seen)));
    }

    fn input(&mut self, input: Input) {
        let mut ready = Vec::new();
        for output in self.engine.handle(self.now, input) {
            match output {
                Output::Runtime(action) => self.actions.push(action),
                Output::Deadlines(deadlines) => self.deadlines = deadlines,
                Output::Persist(durable) => {
                    self.disk.changes.extend(durable.changes);
                    self.disk.votes.leases.extend(durable.votes.leases);
                    let gone = durable.replaced;
                    self.disk.changes.retain(|change| {
                        let body = change.decode_unverified().expect("readable");
                        !gone.contains(&body.document)
                    });
                }
                Output::Volumes(tasks) => {
                    let all = ready_at_once(&tasks).into_iter();
                    ready.extend(all.map(|(volume, copy)| Input::Volume(volume, copy)));
                }
                _ => {}
            }
        }
        // The data is there at once.
        ready.into_iter().for_each(|input| self.input(input));
    }

    fn deploy(&mut self, image: &str, on_partition: Option<OnPartition>) {
        let data = Mount::volume("data".parse().expect("a name"), "/data", false);
        let container = ContainerSpec {
            image: image.to_owned(),
            mounts: vec![data],
            stop_grace_ms: 10_000,
            ..ContainerSpec::default()
        };
        let spec = ServiceSpec { container, on_partition, ..ServiceSpec::default() };
        let service = "shop/db".parse().expect("a service");
        let deployments = vec![Deployment { service, replicas: None, spec: spec.into() }];
        let mutation =
            Mutation::Deploy { deployments, files: BTreeMap::new(), projects: None, trace: None };
        let by = Subject { name: "ada".to_owned(), token_id: "t".to_owned(), address: None };
        self.input(Input::Mutate { request: 1, by, mutation });
    }

    /// Returns the instance that the only action starts, with its epoch.
    fn started(&mut self) -> (InstanceId, Option<u64>) {
        match self.actions.drain(..).collect::<Vec<_>>().as_slice() {
            [RuntimeAction::Start { id, epoch, .. }] => (id.clone(), *epoch),
            other => panic!("{other:?}"),
        }
    }

    fn runs(&mut self, id: &InstanceId) -> Observed {
        let phase = Phase::Running { health: None, started: self.now, said: String::new() };
        let seen = Observed { id: id.clone(), phase, address: String::new() };
        self.input(Input::Runtime(RuntimeEvent::Changed(seen.clone())));
        seen
    }
}

#[test]
fn a_service_that_writes_a_volume_starts_under_a_lease_and_others_without() {
    let mut node = Node::start();
    node.deploy("db:1", None);
    let (id, epoch) = node.started();
    assert!(epoch.is_some_and(|epoch| epoch > 1_000_000), "{epoch:?}");
    assert_eq!(node.deadlines, BTreeMap::from([(id, Millis::MAX)]), "it is the only voter");

    let mut node = Node::start();
    node.deploy("db:1", Some(OnPartition::Available));
    assert_eq!(node.started().1, None);
    assert!(node.deadlines.is_empty());
}

#[test]
fn a_restart_of_the_only_voter_keeps_the_instance_and_its_epoch() {
    let mut node = Node::start();
    node.deploy("db:1", None);
    let (id, epoch) = node.started();
    let seen = node.runs(&id);
    // Longer than a lease, and the watchdog knows nothing of it.
    node.restart(60_000, BTreeMap::new(), vec![seen]);
    assert_eq!(node.actions, []);
    let view = node.engine.view();
    let claim = view.nodes.values().find_map(|state| state.claims.get(&id)).expect("a claim");
    assert_eq!(claim.epoch, epoch);
    assert_eq!(node.deadlines, BTreeMap::from([(id, Millis::MAX)]));
}

#[test]
fn an_update_runs_under_the_lease_that_the_node_has() {
    let mut node = Node::start();
    node.deploy("db:1", None);
    let (old, epoch) = node.started();
    node.runs(&old);
    node.deploy("db:2", None);
    let new = match node.actions.drain(..).collect::<Vec<_>>().as_slice() {
        [RuntimeAction::Prepare { id, epoch: prepared, .. }] => {
            assert_eq!(*prepared, epoch);
            id.clone()
        }
        other => panic!("{other:?}"),
    };
    let seen = |id: &InstanceId, phase| Observed { id: id.clone(), phase, address: String::new() };
    node.input(Input::Runtime(RuntimeEvent::Changed(seen(&new, Phase::Prepared))));
    // Clients that stay connected do not use up its time for stopping.
    let removal = RuntimeAction::Remove { id: old.clone(), drain_ms: 1_000, grace_ms: 10_000 };
    assert_eq!(node.actions.pop(), Some(removal));
    node.input(Input::Runtime(RuntimeEvent::Changed(seen(&old, Phase::Gone))));
    assert_eq!(node.started(), (new, epoch));
}

#[test]
fn the_instances_of_a_lone_node_outlive_a_runtime_that_does_not_answer() {
    let mut node = Node::start();
    node.deploy("db:1", None);
    let (id, _) = node.started();
    let seen = node.runs(&id);
    node.input(Input::Runtime(RuntimeEvent::Unavailable("it hangs".to_owned())));
    node.now += 60_000;
    node.input(Input::Wake);
    assert_eq!(
        node.deadlines,
        BTreeMap::from([(id.clone(), Millis::MAX)]),
        "no other could run it"
    );
    node.input(Input::Runtime(RuntimeEvent::Listed(vec![seen])));
    assert_eq!(node.actions, []);
}
