//! Updates with stop first: the old instance is stopped when nothing that can fail beforehand keeps the new one from starting.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use vc_crdt::KnownVersions;
use vc_engine::runtime::{Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_engine::{Config, Durable, Engine, HISTORY, Input, Mutation, Output, Timing, report};
use vc_protocol::change::Subject;
use vc_protocol::control::{InstanceRow, RolloutState};
use vc_protocol::instance::InstanceState;
use vc_protocol::node::NodeInfo;
use vc_protocol::spec::{ContainerSpec, Deployment, Mount, ServiceSpec};
use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{ClusterId, InstanceId, Keypair, Millis, NodeId};

/// A node that is alone in its cluster, and the actions of its engine that the test has not answered.
struct Node {
    engine: Engine,
    actions: Vec<RuntimeAction>,
    now: Millis,
}

impl Node {
    fn start() -> Self {
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let id = NodeId::of(&key.public()).expect("ed25519");
        let cluster = ClusterId::of(&key.public()).expect("ed25519");
        let certificate = issue_certificate(&key, id, NodeRole::Server, 0).expect("signed");
        let config = Config {
            key,
            id,
            cluster,
            info: NodeInfo::for_tests("n1"),
            nonce: 1,
            timing: Timing::default(),
            history: HISTORY,
            knows: KnownVersions::default(),
            audit: false,
        };
        let durable = Durable { certificates: vec![certificate], ..Durable::default() };
        let engine = Engine::new(config, durable, 0).expect("an engine");
        let mut node = Self { engine, actions: Vec::new(), now: 0 };
        node.input(Input::Runtime(RuntimeEvent::Listed(Vec::new())));
        node
    }

    fn input(&mut self, input: Input) {
        for output in self.engine.handle(self.now, input) {
            if let Output::Runtime(action) = output {
                self.actions.push(action);
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
        let data = Mount::Volume {
            name: "data".parse().expect("a name"),
            target: "/data".to_owned(),
            read_only: false,
        };
        let container = ContainerSpec {
            image: image.to_owned(),
            mounts: vec![data],
            ..ContainerSpec::default()
        };
        let service = "shop/db".parse().expect("a service");
        let spec = ServiceSpec { container, ..ServiceSpec::default() };
        let deployments = vec![Deployment { service, replicas: None, spec: spec.into() }];
        let mutation = Mutation::Deploy { deployments, files: BTreeMap::new(), projects: None };
        let by = Subject { name: "ada".to_owned(), token_id: "t".to_owned(), address: None };
        self.input(Input::Mutate { request: 1, by, mutation });
    }

    fn observe(&mut self, id: &InstanceId, phase: Phase) {
        let observed = Observed { id: id.clone(), phase, address: String::new() };
        self.input(Input::Runtime(RuntimeEvent::Changed(observed)));
    }

    fn run(&mut self, id: &InstanceId) {
        let started = self.now;
        self.observe(id, Phase::Running { health: None, started, said: String::new() });
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
    node.observe(&old, Phase::Exited { code: 1, output: String::new() });
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
    node.run(&id);
    node.wait(10_000);
    assert_eq!(
        (node.row(&id).state, node.rollout().0),
        (InstanceState::Running, RolloutState::Complete)
    );
}
