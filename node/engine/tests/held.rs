//! A node whose store has what a newer version wrote: it keeps what runs, loses nothing, and says what to upgrade.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{ActorId, Automerge, Change, ObjType, ROOT, ReadDoc as _};
use vc_crdt::KnownVersions;
use vc_engine::runtime::{Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_engine::{Config, Durable, Engine, HISTORY, Input, Mutation, Output, Timing, report};
use vc_protocol::change::{Actor, ChangeBody, DocumentId, SignedChange, Subject};
use vc_protocol::node::{Holds, NodeInfo};
use vc_protocol::spec::{ContainerSpec, Deployment, ServiceSpec};
use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{ApiError, ClusterId, ErrorCode, InstanceId, Keypair, Millis, NodeId};

/// A node, its store and its runtime, in which every start succeeds at once.
struct Node {
    engine: Engine,
    stored: Vec<SignedChange>,
    running: Vec<InstanceId>,
    /// Instances that the engine stopped.
    stopped: Vec<InstanceId>,
    answers: Vec<Result<(), ApiError>>,
    now: Millis,
}

fn key() -> (Keypair, NodeId, ClusterId) {
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let id = NodeId::of(&key.public()).expect("ed25519");
    let cluster = ClusterId::of(&key.public()).expect("ed25519");
    (key, id, cluster)
}

impl Node {
    /// Starts a node on these changes, with these containers.
    fn start(stored: Vec<SignedChange>, running: Vec<InstanceId>, now: Millis) -> Self {
        let (key, id, cluster) = key();
        let certificate = issue_certificate(&key, id, NodeRole::Server, 0).expect("signed");
        let info = NodeInfo::for_tests("n1");
        let config = Config {
            key,
            id,
            cluster,
            info,
            nonce: now,
            timing: Timing::default(),
            history: HISTORY,
            knows: KnownVersions::default(),
            audit: false,
            deadlines: Default::default(),
        };
        let changes = stored.clone();
        let durable = Durable { changes, certificates: vec![certificate], ..Durable::default() };
        let engine = Engine::new(config, durable, now).expect("an engine");
        let (stopped, answers) = (Vec::new(), Vec::new());
        let mut node = Self { engine, stored, running, stopped, answers, now };
        let observed = node.running.iter().map(|id| Observed {
            id: id.clone(),
            phase: Phase::Running { health: None, started: now, said: String::new() },
            address: String::new(),
        });
        let listed = RuntimeEvent::Listed(observed.collect());
        node.input(Input::Runtime(listed));
        node
    }

    fn input(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in self.engine.handle(self.now, input) {
                match output {
                    Output::Runtime(RuntimeAction::Start { id, .. }) => {
                        self.running.push(id.clone());
                        let started = self.now;
                        let phase = Phase::Running { health: None, started, said: String::new() };
                        let seen = Observed { id, phase, address: String::new() };
                        inputs.push(Input::Runtime(RuntimeEvent::Changed(seen)));
                    }
                    Output::Runtime(RuntimeAction::Remove { id, .. }) => {
                        self.running.retain(|it| *it != id);
                        self.stopped.push(id);
                    }
                    Output::Persist(durable) => {
                        self.stored.retain(|it| {
                            let body = it.decode_unverified().expect("decodes");
                            !durable.replaced.contains(&body.document)
                        });
                        self.stored.extend(durable.changes);
                    }
                    Output::Answer(_, result) => {
                        self.answers.push(result.map(drop).map_err(ApiError::from))
                    }
                    _ => {}
                }
            }
        }
    }

    /// Passes the time until all of the engine's timers of the next 20 seconds have fired.
    fn wait(&mut self) {
        let end = self.now + 20_000;
        while self.engine.poll_timeout().0 < end {
            self.now = self.engine.poll_timeout().0.max(self.now);
            self.input(Input::Wake);
        }
        self.now = end;
    }

    fn mutate(&mut self, mutation: Mutation) -> Result<(), ApiError> {
        let by = Subject { name: "ada".to_owned(), token_id: "t".to_owned(), address: None };
        self.input(Input::Mutate { request: 1, by, mutation });
        self.wait();
        self.answers.pop().expect("an answer")
    }

    fn deploy(&mut self, service: &str) -> Result<(), ApiError> {
        let container = ContainerSpec { image: "web:1".to_owned(), ..ContainerSpec::default() };
        let deployment = Deployment {
            service: service.parse().expect("a service"),
            replicas: None,
            spec: ServiceSpec { container, ..ServiceSpec::default() }.into(),
        };
        self.mutate(Mutation::Deploy {
            deployments: vec![deployment],
            files: BTreeMap::new(),
            projects: None,
            trace: None,
        })
    }

    /// Stores what a newer version writes into the cluster document, and starts the node again.
    fn restart_with(mut self, newer: impl FnOnce(&mut Newer)) -> Self {
        self.stored.extend(Newer::changes(&self.stored, newer));
        Self::start(self.stored, self.running, self.now)
    }

    /// Returns what the node's document says that it holds.
    fn holds(&self) -> Holds {
        self.engine.replica().nodes()[&key().1].holds.clone()
    }

    /// Returns whether the node's document says of all instances that they are available.
    fn all_available(&self) -> bool {
        let claims = &self.engine.replica().nodes()[&key().1].claims;
        claims.len() == self.running.len() && claims.values().all(|claim| claim.available)
    }

    fn problems(&self) -> String {
        let (view, vitals) = (self.engine.view(), self.engine.vitals());
        let (_, id, cluster) = key();
        report::status(&view, None, vitals, cluster, id, self.now).problems.join("; ")
    }
}

/// The cluster document as a newer version sees it.
struct Newer(Automerge);

impl Newer {
    /// Returns the changes that `edit` makes in the cluster document of a store.
    fn changes(stored: &[SignedChange], edit: impl FnOnce(&mut Self)) -> Vec<SignedChange> {
        let (key, id, cluster) = key();
        let schema = KnownVersions::default().cluster.0.iter().filter_map(|step| step.bytes);
        let bodies = stored.iter().map(|it| it.decode_unverified().expect("decodes"));
        let of_cluster = bodies.filter(|body| matches!(body.document, DocumentId::Cluster { .. }));
        let payloads = schema.map(<[u8]>::to_vec).chain(of_cluster.map(|body| body.payload));
        let mut newer = Self(Automerge::new());
        let changes = payloads.map(|it| Change::from_bytes(it).expect("a change"));
        newer.0.apply_changes(changes).expect("applies");
        let actor = Actor::new(id, u64::MAX);
        newer.0.set_actor(ActorId::from(actor.as_bytes()));
        let before = newer.0.get_heads();
        edit(&mut newer);
        let made = newer.0.get_changes(&before);
        let own = made.iter().filter(|change| change.actor_id().to_bytes() == actor.as_bytes());
        let signed = own.map(|change| {
            let body = ChangeBody {
                cluster,
                document: DocumentId::Cluster { generation: 0 },
                actor,
                seq: change.seq(),
                author: id,
                on_behalf_of: None,
                timestamp: 0,
                checkpoint: None,
                payload: change.raw_bytes().to_vec(),
            };
            SignedChange::sign(&body, &key)
        });
        signed.collect()
    }

    /// Adds a map, as a schema change does.
    fn add_map(&mut self, name: &str) {
        let actor = self.0.get_actor().clone();
        self.0.set_actor(ActorId::from(b"genesis".as_slice()));
        let mut transaction = self.0.transaction();
        transaction.put_object(ROOT, name, ObjType::Map).expect("a map");
        transaction.commit_with(CommitOptions::default().with_time(0));
        self.0.set_actor(actor);
    }

    fn put(&mut self, map: &str, key: &str, value: Option<&str>) {
        let (_, map) = self.0.get(ROOT, map).expect("readable").expect("the map");
        let mut transaction = self.0.transaction();
        match value {
            Some(value) => transaction.put(&map, key, value).expect("written"),
            None => transaction.delete(&map, key).expect("deleted"),
        }
        transaction.commit();
    }

    fn value(&self, map: &str, key: &str) -> String {
        let (_, map) = self.0.get(ROOT, map).expect("readable").expect("the map");
        let (value, _) = self.0.get(&map, key).expect("readable").expect("the entry");
        value.as_str().expect("a text").to_owned()
    }

    /// Replaces a part of the text of an entry.
    fn replace(&mut self, map: &str, key: &str, from: &str, to: &str) {
        let value = self.value(map, key);
        assert!(value.contains(from), "{value}");
        self.put(map, key, Some(&value.replace(from, to)));
    }
}

/// A node that runs `shop/web` and `shop/db`.
fn node() -> Node {
    let mut node = Node::start(Vec::new(), Vec::new(), 1_000_000);
    node.deploy("shop/web").expect("deployed");
    node.deploy("shop/db").expect("deployed");
    assert_eq!(node.running.len(), 2);
    node
}

fn scale(service: &str) -> Mutation {
    Mutation::Scale { service: service.to_owned(), replicas: 2 }
}

#[test]
fn nothing_starts_or_stops_while_a_document_needs_a_newer_version() {
    let mut node = node().restart_with(|newer| {
        newer.add_map("leases");
        newer.put("services", "shop/web", None);
        newer.put("scale", "shop/db", Some("3"));
    });
    let before = node.running.clone();
    node.wait();
    assert_eq!((node.running.clone(), node.stopped.len()), (before.clone(), 0));
    assert!(node.problems().contains("starts and stops nothing"), "{}", node.problems());
    assert!(node.holds().all && node.all_available(), "they were available before");
    let refused = node.mutate(scale("shop/db")).expect_err("refused");
    assert_eq!(refused.code, ErrorCode::FailedPrecondition, "{refused:?}");
    assert!(refused.message.contains("upgrade"), "{refused:?}");
    assert_eq!((node.running.clone(), node.stopped.len()), (before, 0));
}

#[test]
fn a_service_that_cannot_be_read_is_held_and_others_are_not() {
    let mut node = node().restart_with(|newer| {
        let spec = r#"{"container":{"image":"web:2"},"on_partition":"quorum"}"#;
        let record = format!(
            r#"{{"spec":{spec},"previous":null,"revision":9,"updated":9,"deployed_by":"ada"}}"#
        );
        newer.put("services", "shop/web", Some(&record));
    });
    let before = node.running.clone();
    node.wait();
    assert_eq!((node.running.clone(), node.stopped.len()), (before, 0));
    assert!(node.problems().contains("shop/web cannot be read"), "{}", node.problems());

    for refused in [node.deploy("shop/web"), node.mutate(scale("web"))] {
        let refused = refused.expect_err("refused");
        assert_eq!(refused.code, ErrorCode::FailedPrecondition, "{refused:?}");
        assert!(refused.hint.contains("upgrade"), "{refused:?}");
    }
    node.mutate(scale("shop/db")).expect("scaled");
    assert_eq!((node.running.len(), node.stopped.len()), (3, 0));
    node.mutate(Mutation::Remove("shop/db".to_owned())).expect("removed");
    assert_eq!((node.running.len(), node.stopped.len()), (1, 2));
}

#[test]
fn a_service_with_an_unknown_field_is_held_and_keeps_it() {
    let mut node = node().restart_with(|newer| {
        newer.replace("services", "shop/web", r#""image":"web:1""#, r#""gpus":1,"image":"web:2""#);
    });
    let before = node.running.clone();
    node.wait();
    assert_eq!((node.running.clone(), node.stopped.len()), (before, 0));
    assert!(node.problems().contains("container.gpus"), "{}", node.problems());
    let said = node.holds();
    assert!(!said.all && said.services.iter().eq(&["shop/web".parse().expect("a service")]));
    let refused = node.deploy("shop/web").expect_err("refused").message;
    assert!(refused.contains("container.gpus"), "{refused}");

    node.mutate(Mutation::Restart { service: "web".to_owned() }).expect("written");
    assert_eq!(node.stopped.len(), 0, "a node that knows the field restarts it");
    let mut record = String::new();
    Newer::changes(&node.stored, |newer| record = newer.value("services", "shop/web"));
    assert!(record.contains(r#""gpus":1"#) && record.contains(r#""force_update":1"#), "{record}");
}
