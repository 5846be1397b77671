//! Two nodes of which one does not know leases: services that write a volume run as before, and go on when it is upgraded; and it
//! places nothing on a witness.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, VecDeque};

use vc_crdt::{KnownVersions, Schema};
use vc_engine::runtime::{Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_engine::volumes::ready_at_once;
use vc_engine::{
    Config, Durable, Engine, HISTORY, Input, Mutation, MutationError, Output, Timing, report,
    voters,
};
use vc_protocol::change::{Batch, Subject};
use vc_protocol::control::Change;
use vc_protocol::gossip::SyncMessage;
use vc_protocol::instance::InstanceState;
use vc_protocol::lease::Epoch;
use vc_protocol::node::NodeInfo;
use vc_protocol::spec::{
    Attribute, Constraint, ContainerSpec, Deployment, Mount, OnPartition, ServiceSpec,
};
use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{ApiError, ClusterId, InstanceId, Keypair, Millis, NodeId};

/// What a version without the map of voters knows.
fn older() -> KnownVersions {
    let knows = KnownVersions::default();
    let cluster = knows.cluster.0;
    let at = cluster.iter().position(|step| step.maps.contains(&"voters")).expect("the map");
    let node = Schema(&knows.node.0[..1]);
    KnownVersions { cluster: Schema(&cluster[..at]), node, ..knows }
}

fn key(index: usize) -> Keypair {
    let byte = u8::try_from(index + 1).expect("few");
    Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes")
}

fn id(index: usize) -> NodeId {
    NodeId::of(&key(index).public()).expect("ed25519")
}

/// Returns the engine of a node on this store; the first one's key is the cluster's.
fn engine(
    index: usize,
    knows: KnownVersions,
    witness: bool,
    store: &Durable,
    now: Millis,
) -> Engine {
    let issue = |index| issue_certificate(&key(0), id(index), NodeRole::Server, 0).expect("signed");
    let config = Config {
        key: key(index),
        id: id(index),
        cluster: ClusterId::of(&key(0).public()).expect("ed25519"),
        info: NodeInfo { witness, ..NodeInfo::for_tests(&format!("n{}", index + 1)) },
        nonce: now + 1,
        timing: Timing::default(),
        history: HISTORY,
        knows,
        audit: false,
        deadlines: BTreeMap::new(),
    };
    let durable = Durable { certificates: [0, 1].map(issue).to_vec(), ..store.clone() };
    Engine::new(config, durable, now).expect("an engine")
}

/// Two connected nodes with their stores, whose runtimes start and end everything at once.
struct Pair {
    engines: [Engine; 2],
    stores: [Durable; 2],
    /// What the runtimes were told, with the epochs of starts.
    told: Vec<(usize, &'static str, Option<Epoch>)>,
    answers: Vec<Result<Vec<Change>, ApiError>>,
    now: Millis,
}

impl Pair {
    /// `witness`: whether the second node is one.
    fn start(knows: [KnownVersions; 2], witness: bool) -> Self {
        let stores = [Durable::default(), Durable::default()];
        let engines = [0, 1]
            .map(|index| engine(index, knows[index], witness && index == 1, &stores[index], 0));
        let mut pair = Self { engines, stores, told: Vec::new(), answers: Vec::new(), now: 0 };
        for index in [0, 1] {
            pair.input(index, Input::Runtime(RuntimeEvent::Listed(Vec::new())));
        }
        pair.connect();
        pair
    }

    fn connect(&mut self) {
        for index in [0, 1] {
            self.input(index, Input::Connected(id(1 - index)));
        }
        self.wait(10_000);
    }

    /// Starts the process of a node again, which runs no instances.
    fn restart(&mut self, index: usize, knows: KnownVersions) {
        self.input(1 - index, Input::Disconnected(id(index)));
        self.engines[index] = engine(index, knows, false, &self.stores[index], self.now);
        self.input(index, Input::Runtime(RuntimeEvent::Listed(Vec::new())));
        self.connect();
    }

    fn input(&mut self, index: usize, input: Input) {
        let mut inputs = VecDeque::from([(index, input)]);
        while let Some((index, input)) = inputs.pop_front() {
            let (peer, from) = (1 - index, id(index));
            for output in self.engines[index].handle(self.now, input) {
                match output {
                    Output::Runtime(action) => {
                        let (what, observed, epoch) = self.perform(action);
                        self.told.push((index, what, epoch));
                        let event = RuntimeEvent::Changed(observed);
                        inputs.push_back((index, Input::Runtime(event)));
                    }
                    Output::Gossip(gossip) => {
                        inputs.push_back((peer, Input::Gossip(from, gossip)));
                    }
                    Output::Send(_, message) => {
                        inputs.push_back((peer, Input::Sync(from, message)));
                    }
                    Output::Lease(_, message) => {
                        inputs.push_back((peer, Input::Lease(from, message)));
                    }
                    Output::Volumes(tasks) => {
                        let all = ready_at_once(&tasks).into_iter();
                        let ready = all.map(|(volume, copy)| Input::Volume(volume, copy));
                        inputs.extend(ready.map(|input| (index, input)));
                    }
                    // More than is asked for.
                    Output::Replay(..) => {
                        let changes = self.stores[index].changes.clone();
                        let batch = Batch { certificates: Vec::new(), changes };
                        let message = SyncMessage::Changes(batch);
                        inputs.push_back((peer, Input::Sync(from, message)));
                    }
                    Output::Persist(durable) => {
                        let store = &mut self.stores[index];
                        store.changes.extend(durable.changes);
                        store.votes.leases.extend(durable.votes.leases);
                        store.votes.change = durable.votes.change.or(store.votes.change.take());
                    }
                    Output::Answer(_, answer) => {
                        self.answers.push(answer.map_err(ApiError::from));
                    }
                    _ => {}
                }
            }
        }
    }

    fn perform(&self, action: RuntimeAction) -> (&'static str, Observed, Option<Epoch>) {
        let observed = |id: InstanceId, phase| Observed { id, phase, address: String::new() };
        match action {
            RuntimeAction::Start { id, epoch, .. } => {
                let running =
                    Phase::Running { health: None, started: self.now, said: String::new() };
                ("starts", observed(id, running), epoch)
            }
            RuntimeAction::Prepare { id, epoch, .. } => {
                ("prepares", observed(id, Phase::Prepared), epoch)
            }
            RuntimeAction::Remove { id, .. } => ("removes", observed(id, Phase::Gone), None),
        }
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

    fn mutate(&mut self, mutation: Mutation) -> Result<Vec<Change>, ApiError> {
        let by = Subject { name: "ada".to_owned(), token_id: "t".to_owned(), address: None };
        self.input(0, Input::Mutate { request: 1, by, mutation });
        let answer = self.answers.pop().expect("an answer");
        self.wait(20_000);
        answer
    }

    /// Deploys a service that writes a volume, on the first node.
    fn deploy(&mut self, image: &str) {
        self.deploy_on("n1", image);
    }

    fn deploy_on(&mut self, node: &str, image: &str) {
        let mount = Mount::volume("data".parse().expect("a name"), "/data", false);
        let container = ContainerSpec {
            image: image.to_owned(),
            mounts: vec![mount],
            ..ContainerSpec::default()
        };
        let on_node =
            Constraint { attribute: Attribute::Name, equal: true, value: node.to_owned() };
        let spec = ServiceSpec { container, constraints: vec![on_node], ..ServiceSpec::default() };
        let service = "shop/db".parse().expect("a service");
        let deployments = vec![Deployment { service, replicas: None, spec: spec.into() }];
        let deploy =
            Mutation::Deploy { deployments, files: BTreeMap::new(), projects: None, trace: None };
        self.mutate(deploy).expect("deployed");
    }

    /// Returns what the runtimes were told since the last call.
    fn told(&mut self) -> Vec<(usize, &'static str, Option<Epoch>)> {
        std::mem::take(&mut self.told)
    }

    fn states(&self) -> Vec<InstanceState> {
        report::instances(&self.engines[0].view()).iter().map(|row| row.state).collect()
    }
}

#[test]
fn a_service_with_a_volume_runs_without_leases_while_a_member_does_not_know_them() {
    let mut pair = Pair::start([KnownVersions::default(), older()], false);
    pair.deploy("db:1");
    assert_eq!(pair.told(), [(0, "starts", None)], "without an epoch");
    assert_eq!(pair.states(), [InstanceState::Running]);
    pair.deploy("db:2");
    let told: Vec<_> = pair.told().into_iter().map(|(_, what, epoch)| (what, epoch)).collect();
    assert_eq!(told, [("prepares", None), ("removes", None), ("starts", None)]);

    let report = voters::report(&pair.engines[0].view());
    assert_eq!(report.number, 0);
    assert!(report.waits_for.contains("version of vc-node that knows leases"), "{report:?}");
    let exclusive =
        ServiceSpec { on_partition: Some(OnPartition::Exclusive), ..ServiceSpec::default() };
    let service = "shop/lock".parse().expect("a service");
    let deployments = vec![Deployment { service, replicas: None, spec: exclusive.into() }];
    for mutation in [
        Mutation::SetVoter { node: "n1".to_owned(), votes: Some(true) },
        Mutation::ForceVoters { nodes: vec!["n1".to_owned()] },
        Mutation::Deploy { deployments, files: BTreeMap::new(), projects: None, trace: None },
    ] {
        let refused = pair.mutate(mutation).expect_err("an older member");
        assert_eq!(refused, MutationError::OlderMembers("grant leases").into());
    }

    // What runs is not touched when the last member is upgraded; what is started from then on has a lease.
    pair.restart(1, KnownVersions::default());
    pair.wait(30_000);
    assert_eq!(voters::report(&pair.engines[0].view()).reachable(), (1, 1));
    assert_eq!(pair.told(), [], "it goes on");
    assert_eq!(pair.states(), [InstanceState::Running]);
    pair.deploy("db:3");
    let told = pair.told();
    let starts: Vec<_> = told.iter().filter(|(_, what, _)| *what == "starts").collect();
    assert!(matches!(starts[..], [(0, _, Some(_))]), "{told:?}");
    assert_eq!(pair.states(), [InstanceState::Running]);
}

#[test]
fn a_member_that_does_not_know_witnesses_places_nothing_on_one() {
    let mut pair = Pair::start([older(), KnownVersions::default()], true);
    pair.deploy_on("n2", "db:1");
    assert_eq!(pair.told(), []);
    for engine in &pair.engines {
        let rows = report::instances(&engine.view());
        let reason = "n2: has no working runtime: it is a witness, which runs nothing";
        assert!(rows[0].reason.contains(reason), "{rows:?}");
    }
    pair.deploy("db:1");
    assert_eq!(pair.told(), [(0, "starts", None)]);
    let rows = report::nodes(&pair.engines[1].view(), &BTreeMap::new());
    let rows: Vec<_> = rows.iter().map(|row| (row.role.as_str(), row.problem.as_str())).collect();
    assert_eq!(rows, [("server", ""), ("witness", "")]);
    // When all know leases, it votes.
    pair.restart(0, KnownVersions::default());
    pair.wait(30_000);
    assert_eq!(voters::report(&pair.engines[1].view()).reachable(), (1, 1));
    for node in ["n1", "n2"] {
        let wished = Mutation::SetVoter { node: node.to_owned(), votes: Some(true) };
        pair.mutate(wished).expect("a server");
    }
    pair.wait(30_000);
    assert_eq!(voters::report(&pair.engines[0].view()).reachable(), (2, 2));
}
