//! Operators: the mutations that they request, and the answers.

use std::collections::BTreeMap;

use vc_crdt::ClusterState;
use vc_engine::{Engine, Input, Mutation, MutationError, Output};
use vc_protocol::change::{Actor, DocumentId, SignedChange, Subject};
use vc_protocol::control::Change;

use crate::world::World;

/// A mutation and what became of it.
pub(crate) struct Operation {
    pub(crate) mutation: Mutation,
    /// What the cluster document of that node was made of when it was asked.
    pub(crate) knew: BTreeMap<Actor, u64>,
    /// The change that it became, with its actor and number; `None`: it changed nothing.
    pub(crate) change: Option<(Actor, u64, SignedChange)>,
    /// What it wrote; `None`: took away.
    pub(crate) writes: BTreeMap<String, Option<String>>,
    /// Whether the change came to a disk.
    pub(crate) persisted: bool,
    pub(crate) answer: Option<Result<Vec<Change>, MutationError>>,
}

impl Operation {
    /// Returns whether the operator has a positive answer.
    pub(crate) fn acknowledged(&self) -> bool {
        matches!(self.answer, Some(Ok(_)))
    }
}

/// All operations, by the number of their request.
#[derive(Default)]
pub(crate) struct Operators {
    pub(crate) operations: BTreeMap<u64, Operation>,
    asked: u64,
}

/// An operation that is being handled.
pub(crate) struct Asked {
    request: u64,
    mutation: Mutation,
    knew: BTreeMap<Actor, u64>,
    state: ClusterState,
}

/// The entries of a cluster document, as text.
pub(crate) fn entries(state: &ClusterState) -> BTreeMap<String, String> {
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
    /// Called before an engine handles an input.
    pub(crate) fn before(&self, engine: &Engine, input: &Input) -> Option<Asked> {
        let Input::Mutate { request, mutation, .. } = input else { return None };
        Some(Asked {
            request: *request,
            mutation: mutation.clone(),
            knew: engine.replica().versions().cluster.clone(),
            state: engine.replica().cluster().clone(),
        })
    }

    /// Called after it did, before anything is done.
    pub(crate) fn after(&mut self, engine: &Engine, asked: Asked, outputs: &[Output]) {
        let Asked { request, mutation, knew, state } = asked;
        let (old, new) = (entries(&state), entries(engine.replica().cluster()));
        let put = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
        let gone = old.keys().filter(|key| !new.contains_key(*key));
        let writes = put
            .map(|(k, v)| (k.clone(), Some(v.clone())))
            .chain(gone.map(|k| (k.clone(), None)))
            .collect();
        let persisted = outputs.iter().filter_map(|output| match output {
            Output::Persist(durable) => Some(&durable.changes),
            _ => None,
        });
        let change = persisted.flatten().find_map(|change| {
            let body = change.decode_unverified().expect("a change");
            (body.document == DocumentId::Cluster).then(|| (body.actor, body.seq, change.clone()))
        });
        let operation =
            Operation { mutation, knew, change, writes, persisted: false, answer: None };
        self.operations.insert(request, operation);
    }

    /// Changes have come to a disk.
    pub(crate) fn persisted(&mut self, changes: &[SignedChange]) {
        for operation in self.operations.values_mut() {
            let is_there =
                operation.change.as_ref().is_some_and(|(_, _, change)| changes.contains(change));
            operation.persisted |= is_there;
        }
    }

    /// An answer reached its operator.
    pub(crate) fn answered(&mut self, request: u64, answer: Result<Vec<Change>, MutationError>) {
        if let Some(operation) = self.operations.get_mut(&request) {
            operation.answer = Some(answer);
        }
    }
}

impl World {
    /// Sends a mutation to a node. Returns the number of the request; `None` if the node does not run.
    pub(crate) fn ask(&mut self, of: usize, mutation: Mutation) -> Option<u64> {
        if !self.is_awake(of) {
            return None;
        }
        self.operators.asked += 1;
        let request = self.operators.asked;
        self.note(of, &format!("is asked {request}: {}", short(&mutation)));
        let by = Subject { name: "ada".to_owned(), token_id: "t".to_owned() };
        self.handle(of, Input::Mutate { request, by, mutation });
        Some(request)
    }

    /// Sends a mutation to a node, which must acknowledge it.
    pub(crate) fn command(&mut self, of: usize, mutation: Mutation) {
        let request = self.ask(of, mutation).expect("the node is there");
        let operation = &self.operators.operations[&request];
        assert!(operation.acknowledged(), "{}: {:?}", short(&operation.mutation), operation.answer);
    }
}

fn short(mutation: &Mutation) -> String {
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
