//! Stop first: the old instance is stopped when nothing that can fail beforehand keeps the new one, here or on another node, from
//! starting.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, VecDeque};

use vc_crdt::KnownVersions;
use vc_engine::runtime::{Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_engine::volumes::ready_at_once;
use vc_engine::{Config, Durable, Engine, HISTORY, Input, Mutation, Output, Timing, report};
use vc_protocol::change::{Batch, SignedChange, Subject};
use vc_protocol::control::{InstanceRow, RolloutState};
use vc_protocol::gossip::SyncMessage;
use vc_protocol::instance::InstanceState;
use vc_protocol::node::NodeInfo;
use vc_protocol::spec::{
    Attribute, Constraint, ContainerSpec, Deployment, Mount, ServiceSpec, UpdateOrder,
};
use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{ClusterId, InstanceId, Keypair, Millis, NodeId};

/// Returns the engine of one of the nodes with these keys; the first one's is the cluster's.
fn engine(keys: &[u8], index: usize) -> Engine {
    let key = |byte: u8| Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes");
    let id = |byte: u8| NodeId::of(&key(byte).public()).expect("ed25519");
    let issue = |byte: &u8| issue_certificate(&key(keys[0]), id(*byte), NodeRole::Server, 0);
    let certificates = keys.iter().map(|byte| issue(byte).expect("signed")).collect();
    let config = Config {
        key: key(keys[index]),
        id: id(keys[index]),
        cluster: ClusterId::of(&key(keys[0]).public()).expect("ed25519"),
        info: NodeInfo::for_tests(&format!("n{}", index + 1)),
        nonce: 1,
        timing: Timing::default(),
        history: HISTORY,
        knows: KnownVersions::default(),
        audit: false,
        deadlines: Default::default(),
    };
    let durable = Durable { certificates, ..Durable::default() };
    Engine::new(config, durable, 0).expect("an engine")
}

fn ada() -> Subject {
    Subject { name: "ada".to_owned(), token_id: "t".to_owned(), address: None }
}

fn deploy(spec: ServiceSpec) -> Mutation {
    let service = "shop/db".parse().expect("a service");
    let deployments = vec![Deployment { service, replicas: None, spec: spec.into() }];
    Mutation::Deploy { deployments, files: BTreeMap::new(), projects: None, trace: None }
}

fn running(started: Millis) -> Phase {
    Phase::Running { health: None, started, said: String::new() }
}

/// A node that is alone in its cluster, and the actions of its engine that the test has not answered.
struct Node {
    engine: Engine,
    actions: Vec<RuntimeAction>,
    now: Millis,
}

impl Node {
    fn start() -> Self {
        let engine = engine(&[1], 0);
        let mut node = Self { engine, actions: Vec::new(), now: 0 };
        node.input(Input::Runtime(RuntimeEvent::Listed(Vec::new())));
        node
    }

    fn input(&mut self, input: Input) {
        for output in self.engine.handle(self.now, input) {
            match output {
                Output::Runtime(action) => self.actions.push(action),
                Output::Volumes(tasks) => {
                    for (volume, copy) in ready_at_once(&tasks) {
                        self.input(Input::Volume(volume, copy));
                    }
                }
                _ => {}
            }
        }
    }

    /// Passes time, until the engine requests something of the runtime or `limit` has passed.
    fn wait(&mut self, limit: Millis) {
        let end = self.now + limit;
        while self.actions.is_empty() && self.engine.poll_timeout().0 < end {
            self.now = self.engine.poll_timeout().0.max(self.now);
            self.input(Input::Wake);
        }
        if self.actions.is_empty() {
            self.now = end;
        }
    }

    fn deploy(&mut self, image: &str) {
        let data = Mount::volume("data".parse().expect("a name"), "/data", false);
        let container = ContainerSpec {
            image: image.to_owned(),
            mounts: vec![data],
            ..ContainerSpec::default()
        };
        let mutation = deploy(ServiceSpec { container, ..ServiceSpec::default() });
        self.input(Input::Mutate { request: 1, by: ada(), mutation });
    }

    fn observe(&mut self, id: &InstanceId, phase: Phase) {
        let observed = Observed { id: id.clone(), phase, address: String::new() };
        self.input(Input::Runtime(RuntimeEvent::Changed(observed)));
    }

    fn run(&mut self, id: &InstanceId) {
        self.observe(id, running(self.now));
    }

    /// Returns the instance that the only action is to prepare.
    fn prepares(&mut self) -> InstanceId {
        match self.actions.drain(..).collect::<Vec<_>>().as_slice() {
            [RuntimeAction::Prepare { id, .. }] => id.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn starts(&mut self) -> InstanceId {
        match self.actions.drain(..).collect::<Vec<_>>().as_slice() {
            [RuntimeAction::Start { id, .. }] => id.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn removes(&mut self) -> InstanceId {
        match self.actions.drain(..).collect::<Vec<_>>().as_slice() {
            [RuntimeAction::Remove { id, .. }] => id.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn rollout(&self) -> (RolloutState, String) {
        let rows = report::services(&self.engine.view());
        (rows[0].rollout.state, rows[0].rollout.reason.clone())
    }

    fn row(&self, id: &InstanceId) -> InstanceRow {
        let rows = report::instances(&self.engine.view());
        rows.into_iter().find(|row| row.digest == id.digest).expect("its row")
    }

    /// A node that runs version 1 and was told to run version 2; returns both.
    fn updating() -> (Self, InstanceId, InstanceId) {
        let mut node = Self::start();
        node.deploy("db:1");
        let old = node.starts();
        node.run(&old);
        node.wait(10_000);
        assert_eq!(node.rollout().0, RolloutState::Complete);
        node.deploy("db:2");
        let new = node.prepares();
        assert_ne!(old, new);
        (node, old, new)
    }
}

fn no_image() -> Phase {
    Phase::NoImage { reason: "nowhere".to_owned() }
}

#[test]
fn the_old_instance_is_stopped_when_the_new_one_is_prepared() {
    let (mut node, old, new) = Node::updating();
    node.observe(&new, Phase::Pulling { progress: "50%".to_owned() });
    node.wait(300_000);
    assert_eq!(node.actions, [], "it runs for as long as the image takes");
    node.observe(&new, Phase::Prepared);
    assert_eq!(node.removes(), old);
    node.wait(1000);
    assert_eq!(node.actions, [], "the new one waits until the old one is gone");
    node.observe(&old, Phase::Gone);
    assert_eq!(node.starts(), new);
    node.run(&new);
    node.wait(10_000);
    assert_eq!((node.rollout().0, node.actions.as_slice()), (RolloutState::Complete, &[][..]));
}

#[test]
fn an_update_whose_image_is_not_found_fails_after_two_minutes_and_stops_nothing() {
    let (mut node, old, new) = Node::updating();
    let begin = node.now;
    let mut tries = Vec::new();
    loop {
        node.observe(&new, no_image());
        if node.rollout().0 != RolloutState::Updating {
            break;
        }
        let row = node.row(&new);
        assert_eq!((row.state, row.reason.as_str()), (InstanceState::Pending, "nowhere"));
        node.wait(300_000);
        assert_eq!(node.prepares(), new, "it is looked for again");
        tries.push((node.now - begin) / 1000);
        node.observe(&new, Phase::Pulling { progress: String::new() });
        assert_eq!(node.row(&new).reason, "nowhere", "the reason stays while it is looked for");
    }
    assert_eq!(tries, [5, 15, 35, 75, 135]);
    assert_eq!(node.rollout(), (RolloutState::RolledBack, "shop/db.1 on n1: nowhere".to_owned()));
    assert_eq!(node.removes(), new, "the old instance runs on");
    node.observe(&new, Phase::Gone);
    assert_eq!(node.row(&old).state, InstanceState::Running);
}

#[test]
fn a_preparation_that_fails_rolls_the_update_back_before_anything_is_stopped() {
    let (mut node, old, new) = Node::updating();
    node.observe(&new, Phase::Failed { reason: "bind source path does not exist".to_owned() });
    let reason = "shop/db.1 on n1: bind source path does not exist";
    let (state, said) = node.rollout();
    assert!(state == RolloutState::RolledBack && said.starts_with(reason), "{state:?} {said}");
    assert_eq!(node.removes(), new);
    assert_eq!(node.row(&old).state, InstanceState::Running);
}

#[test]
fn the_new_instance_starts_at_once_when_the_old_one_ends_by_itself() {
    let (mut node, old, new) = Node::updating();
    node.observe(&old, Phase::Exited { code: 1, output: String::new(), out_of_memory: false });
    assert_eq!(node.removes(), old);
    node.observe(&old, Phase::Gone);
    node.wait(1000);
    assert_eq!(node.actions, [], "the preparation is under way");
    node.observe(&new, Phase::Prepared);
    assert_eq!(node.starts(), new);
}

#[test]
fn an_image_that_appears_starts_a_new_service_after_the_deadline() {
    let mut node = Node::start();
    node.deploy("db:1");
    let id = node.starts();
    while node.now < 300_000 {
        node.observe(&id, no_image());
        node.wait(100_000);
        assert_eq!(node.starts(), id);
    }
    assert_eq!(node.row(&id).state, InstanceState::Failed);
    assert!(node.row(&id).terminal);
    node.run(&id);
    assert!(!node.row(&id).terminal);
    node.wait(10_000);
    assert_eq!(
        (node.row(&id).state, node.rollout().0),
        (InstanceState::Running, RolloutState::Complete)
    );
}

/// Two connected nodes, and the actions of their engines that the test has not answered.
struct Pair {
    engines: [Engine; 2],
    stored: [Vec<SignedChange>; 2],
    actions: Vec<(usize, RuntimeAction)>,
    now: Millis,
}

impl Pair {
    fn start() -> Self {
        let engines = [0, 1].map(|index| engine(&[1, 2], index));
        let stored = [Vec::new(), Vec::new()];
        let mut pair = Self { engines, stored, actions: Vec::new(), now: 0 };
        for index in [0, 1] {
            pair.input(index, Input::Runtime(RuntimeEvent::Listed(Vec::new())));
        }
        for index in [0, 1] {
            pair.input(index, Input::Connected(pair.id(1 - index)));
        }
        pair.wait(5000);
        pair
    }

    fn input(&mut self, index: usize, input: Input) {
        let mut inputs = VecDeque::from([(index, input)]);
        while let Some((index, input)) = inputs.pop_front() {
            let peer = 1 - index;
            let from = self.id(index);
            for output in self.engines[index].handle(self.now, input) {
                match output {
                    Output::Runtime(action) => self.actions.push((index, action)),
                    Output::Gossip(gossip) => {
                        inputs.push_back((peer, Input::Gossip(from, gossip)));
                    }
                    Output::Send(_, message) => {
                        inputs.push_back((peer, Input::Sync(from, message)));
                    }
                    Output::Volumes(tasks) => {
                        let all = ready_at_once(&tasks).into_iter();
                        let ready = all.map(|(volume, copy)| Input::Volume(volume, copy));
                        inputs.extend(ready.map(|input| (index, input)));
                    }
                    // More than is asked for.
                    Output::Replay(..) => {
                        let changes = self.stored[index].clone();
                        let batch = Batch { certificates: Vec::new(), changes };
                        let message = SyncMessage::Changes(batch);
                        inputs.push_back((peer, Input::Sync(from, message)));
                    }
                    Output::Persist(durable) => self.stored[index].extend(durable.changes),
                    Output::Answer(_, answer) => drop(answer.expect("the change is accepted")),
                    _ => {}
                }
            }
        }
    }

    fn id(&self, index: usize) -> NodeId {
        self.engines[index].replica().id()
    }

    /// Passes time, with all heartbeats.
    fn wait(&mut self, duration: Millis) {
        let end = self.now + duration;
        loop {
            let due = self.engines.iter().map(|it| it.poll_timeout().0).enumerate();
            match due.min_by_key(|(_, at)| *at) {
                Some((index, at)) if at < end => {
                    self.now = at.max(self.now);
                    self.input(index, Input::Wake);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// Deploys a service that may run on a node of this name only.
    fn deploy(&mut self, order: UpdateOrder, node: &str) {
        let name = |value: &str| Constraint {
            attribute: Attribute::Name,
            equal: true,
            value: value.to_owned(),
        };
        let container = ContainerSpec { image: "db:1".to_owned(), ..ContainerSpec::default() };
        let constraints = vec![name(node)];
        let mut spec = ServiceSpec { container, constraints, ..ServiceSpec::default() };
        spec.update.order = Some(order);
        self.mutate(deploy(spec));
    }

    fn mutate(&mut self, mutation: Mutation) {
        self.input(0, Input::Mutate { request: 1, by: ada(), mutation });
    }

    fn observe(&mut self, index: usize, id: &InstanceId, phase: Phase) {
        let observed = Observed { id: id.clone(), phase, address: String::new() };
        self.input(index, Input::Runtime(RuntimeEvent::Changed(observed)));
        self.wait(2000);
    }

    /// Returns what the engines request since the last call, in short: `n1 starts`.
    fn requests(&mut self) -> Vec<String> {
        let short = |(index, action)| {
            let what = match action {
                RuntimeAction::Start { .. } => "starts",
                RuntimeAction::Prepare { .. } => "prepares",
                RuntimeAction::Remove { .. } => "removes",
            };
            format!("n{} {what}", index + 1)
        };
        self.actions.drain(..).map(short).collect()
    }

    /// Two nodes of which the first runs a service.
    fn with_instance(order: UpdateOrder) -> (Self, InstanceId) {
        let mut pair = Self::start();
        pair.deploy(order, "n1");
        let id = match pair.actions.as_slice() {
            [(0, RuntimeAction::Start { id, .. })] => id.clone(),
            other => panic!("{other:?}"),
        };
        pair.actions.clear();
        pair.observe(0, &id, running(pair.now));
        pair.wait(20_000);
        (pair, id)
    }
}

#[test]
fn an_instance_that_moves_is_stopped_when_the_other_node_has_prepared_it() {
    let (mut pair, id) = Pair::with_instance(UpdateOrder::StopFirst);
    pair.deploy(UpdateOrder::StopFirst, "n2");
    pair.observe(1, &id, Phase::Pulling { progress: "50%".to_owned() });
    assert_eq!(pair.requests(), ["n2 prepares"]);
    pair.observe(1, &id, no_image());
    pair.wait(30_000);
    assert_eq!(pair.requests(), ["n2 prepares"], "it looks for the image again");
    pair.observe(1, &id, Phase::Prepared);
    assert_eq!(pair.requests(), ["n1 removes"]);
    pair.observe(0, &id, Phase::Gone);
    assert_eq!(pair.requests(), ["n2 starts"]);
    pair.observe(1, &id, running(pair.now));
    pair.wait(20_000);
    let rows = report::instances(&pair.engines[0].view());
    let rows: Vec<_> = rows.iter().map(|row| (row.node_name.as_deref(), row.state)).collect();
    assert_eq!(rows, [(Some("n2"), InstanceState::Running)]);
    assert_eq!(pair.requests(), [""; 0]);
}

#[test]
fn a_drained_node_stops_an_instance_when_the_other_node_has_prepared_it() {
    let (mut pair, id) = Pair::with_instance(UpdateOrder::StopFirst);
    // From now on both may run it.
    let container = ContainerSpec { image: "db:1".to_owned(), ..ContainerSpec::default() };
    let mut spec = ServiceSpec { container, ..ServiceSpec::default() };
    spec.update.order = Some(UpdateOrder::StopFirst);
    pair.mutate(deploy(spec));
    pair.mutate(Mutation::Drain { node: "n1".to_owned(), drain: true });
    pair.wait(10_000);
    assert_eq!(pair.requests(), ["n2 prepares"]);
    pair.observe(1, &id, Phase::Prepared);
    assert_eq!(pair.requests(), ["n1 removes"]);
    pair.observe(0, &id, Phase::Gone);
    assert_eq!(pair.requests(), ["n2 starts"]);
}

#[test]
fn an_instance_that_a_constraint_moves_runs_until_its_successor_is_available() {
    let (mut pair, id) = Pair::with_instance(UpdateOrder::StartFirst);
    pair.deploy(UpdateOrder::StartFirst, "n2");
    pair.wait(10_000);
    assert_eq!(pair.requests(), ["n2 starts"]);
    pair.observe(1, &id, running(pair.now));
    pair.wait(20_000);
    assert_eq!(pair.requests(), ["n1 removes"]);
}
