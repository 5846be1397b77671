//! Operators: the mutations that they send, and the answers.

use std::collections::BTreeMap;

use vc_crdt::ClusterState;
use vc_engine::{Engine, Input, Mutation, MutationError, Output};
use vc_protocol::change::{Actor, ClusterVersions, DocumentId, SignedChange, Subject};
use vc_protocol::control::Change;

use crate::disk::Disk;
use crate::world::World;

/// A mutation and its result.
pub struct Operation {
    pub mutation: Mutation,
    /// Versions of the cluster document on the node that received the mutation, at that time.
    pub known: ClusterVersions,
    /// The change that it produced; `None`: the mutation had no effect.
    pub change: Option<Written>,
    /// Entries of the cluster document that it wrote; value `None`: deleted.
    pub writes: BTreeMap<String, Option<String>>,
    /// Whether the change was written to a disk.
    pub persisted: bool,
    /// What of the change must still be on the disks.
    pub kept: Kept,
    pub answer: Option<Result<Vec<Change>, MutationError>>,
}

/// What of a change must still be on the disks. Faults only lower it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// What it wrote may be gone, or not: all disks that had it, or a checkpoint that contains it, have lost it.
    Unknown,
    /// What it wrote, in a checkpoint: all disks that had the change itself have lost it, and no node can get it again.
    InCheckpoint,
    /// The change.
    Change,
}

/// A change of the cluster document.
#[derive(Clone)]
pub struct Written {
    pub generation: u64,
    pub actor: Actor,
    pub seq: u64,
    pub change: SignedChange,
}

impl Operation {
    /// Returns whether the operator has a positive answer.
    pub fn acknowledged(&self) -> bool {
        matches!(self.answer, Some(Ok(_)))
    }

    /// Returns whether what it wrote may be gone, or not.
    pub fn is_unknown(&self) -> bool {
        self.kept == Kept::Unknown
    }
}

/// All operations, by request number.
#[derive(Default)]
pub struct Operators {
    pub operations: BTreeMap<u64, Operation>,
    requests: u64,
    /// Whether a command was refused.
    pub refused: bool,
}

/// State of the cluster document before a mutation is applied.
pub struct PendingOperation {
    request: u64,
    mutation: Mutation,
    known: ClusterVersions,
    state: ClusterState,
}

/// Returns the entries of a cluster document as text.
pub fn entries(state: &ClusterState) -> BTreeMap<String, String> {
    let json = |value: &vc_crdt::ServiceRecord| serde_json::to_string(value).expect("plain data");
    let services =
        state.services.iter().map(|(key, record)| (format!("services {key}"), json(record)));
    let scale =
        state.scale.iter().map(|(key, replicas)| (format!("scale {key}"), replicas.to_string()));
    let drained = state
        .drained
        .iter()
        .map(|(node, drained)| (format!("drained {node}"), drained.to_string()));
    services.chain(scale).chain(drained).collect()
}

impl Operators {
    /// Records the state before an engine handles a mutation; `None` for other inputs.
    pub fn begin(&self, engine: &Engine, input: &Input) -> Option<PendingOperation> {
        let Input::Mutate { request, mutation, .. } = input else { return None };
        Some(PendingOperation {
            request: *request,
            mutation: mutation.clone(),
            known: engine.replica().versions().cluster.clone(),
            state: engine.replica().cluster().clone(),
        })
    }

    /// Records the effect of a mutation, before the outputs are performed.
    pub fn finish(&mut self, engine: &Engine, pending: PendingOperation, outputs: &[Output]) {
        let PendingOperation { request, mutation, known, state } = pending;
        let (old, new) = (entries(&state), entries(engine.replica().cluster()));
        let put = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
        let deleted = old.keys().filter(|key| !new.contains_key(*key));
        let writes = put
            .map(|(k, v)| (k.clone(), Some(v.clone())))
            .chain(deleted.map(|k| (k.clone(), None)))
            .collect();
        let persisted = outputs.iter().filter_map(|output| match output {
            Output::Persist(durable) => Some(&durable.changes),
            _ => None,
        });
        let change = persisted.flatten().find_map(|change| {
            let body = change.decode_unverified().expect("a change");
            let DocumentId::Cluster { generation } = body.document else { return None };
            let (actor, seq, change) = (body.actor, body.seq, change.clone());
            Some(Written { generation, actor, seq, change })
        });
        let operation = Operation {
            mutation,
            known,
            change,
            writes,
            persisted: false,
            kept: Kept::Change,
            answer: None,
        };
        self.operations.insert(request, operation);
    }

    /// Marks the operations whose changes were written to a disk.
    pub fn persisted(&mut self, changes: &[SignedChange]) {
        for operation in self.operations.values_mut() {
            let written = operation.change.as_ref().is_some_and(|it| changes.contains(&it.change));
            operation.persisted |= written;
        }
    }

    /// Returns what these disks have of the change of each request; those of which they have nothing are left out.
    pub fn recorded(&self, disks: &[&Disk]) -> BTreeMap<u64, Kept> {
        let kept = |operation: &Operation| {
            let written = operation.change.as_ref()?;
            if disks.iter().any(|disk| disk.records(written)) {
                return Some(Kept::Change);
            }
            let contains = disks.iter().any(|disk| disk.contains(written));
            contains.then_some(Kept::InCheckpoint)
        };
        let requests = self.operations.iter();
        requests.filter_map(|(&request, it)| kept(it).map(|kept| (request, kept))).collect()
    }

    /// Notes what is left for good of the change of a request.
    pub fn lost(&mut self, request: u64, left: Kept) {
        if let Some(operation) = self.operations.get_mut(&request) {
            operation.kept = operation.kept.min(left);
        }
    }

    /// Records the answer to a request.
    pub fn answered(&mut self, request: u64, answer: Result<Vec<Change>, MutationError>) {
        if let Some(operation) = self.operations.get_mut(&request) {
            self.refused |= answer.is_err();
            operation.answer = Some(answer);
        }
    }
}

impl World {
    /// Sends a mutation to a node. Returns the number of the request; `None` if the node does not run.
    pub fn request(&mut self, index: usize, mutation: Mutation) -> Option<u64> {
        if !self.is_awake(index) {
            return None;
        }
        self.operators.requests += 1;
        let request = self.operators.requests;
        self.trace_node(index, &format!("request {request}: {}", summary(&mutation)));
        let by = Subject { name: "ada".to_owned(), token_id: "t".to_owned(), address: None };
        self.handle(index, Input::Mutate { request, by, mutation });
        Some(request)
    }

    /// Sends a mutation to a node, which must acknowledge it.
    pub fn command(&mut self, index: usize, mutation: Mutation) {
        let request = self.request(index, mutation).expect("the node is running");
        let operation = &self.operators.operations[&request];
        assert!(
            operation.acknowledged(),
            "{}: {:?}",
            summary(&operation.mutation),
            operation.answer
        );
    }

    /// Sends a mutation to a node, which must refuse it. Returns why.
    pub fn refused_command(&mut self, index: usize, mutation: Mutation) -> String {
        let request = self.request(index, mutation).expect("the node is running");
        match &self.operators.operations[&request].answer {
            Some(Err(why)) => why.to_string(),
            other => panic!("not refused: {other:?}"),
        }
    }
}

fn summary(mutation: &Mutation) -> String {
    match mutation {
        Mutation::Deploy { deployments: all, .. } => {
            let one = |it: &vc_protocol::spec::Deployment| {
                format!("{} x{:?} {:?}", it.service, it.replicas, it.spec.container.environment)
            };
            format!("deploy {}", all.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        other => format!("{other:?}"),
    }
}
