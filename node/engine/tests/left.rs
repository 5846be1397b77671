//! A node that was removed from the cluster.

#![allow(clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;

use vc_crdt::KnownVersions;
use vc_engine::runtime::RuntimeEvent;
use vc_engine::{Config, Durable, Engine, HISTORY, Input, Mutation, MutationError, Output, Timing};
use vc_protocol::change::Subject;
use vc_protocol::node::NodeInfo;
use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{ClusterId, Keypair, NodeId};

fn key(byte: u8) -> (Keypair, NodeId) {
    let key = Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes");
    let id = NodeId::of(&key.public()).expect("ed25519");
    (key, id)
}

/// Returns why a command is refused, if it is.
fn refused(engine: &mut Engine, mutation: Mutation) -> Option<MutationError> {
    let by = Subject { name: "ada".to_owned(), token_id: "t".to_owned(), address: None };
    let outputs = engine.handle(0, Input::Mutate { request: 1, by, mutation });
    let answer = outputs.into_iter().find_map(|output| match output {
        Output::Answer(_, answer) => Some(answer.err()),
        _ => None,
    });
    answer.expect("an answer")
}

/// Returns the engine of node 1, which has founded the cluster; node 2 is a server, node 3 a worker.
fn engine() -> Engine {
    let (key_1, id) = key(1);
    let issue = |(byte, role)| issue_certificate(&key_1, key(byte).1, role, 0).expect("signed");
    let roles = [(1, NodeRole::Server), (2, NodeRole::Server), (3, NodeRole::Worker)];
    let certificates = roles.map(issue).to_vec();
    let config = Config {
        key: key_1.clone(),
        id,
        cluster: ClusterId::of(&key_1.public()).expect("ed25519"),
        info: NodeInfo::for_tests("n1"),
        nonce: 1,
        timing: Timing::default(),
        history: HISTORY,
        knows: KnownVersions::default(),
        audit: false,
        deadlines: BTreeMap::new(),
    };
    let durable = Durable { certificates, ..Durable::default() };
    let mut engine = Engine::new(config, durable, 0).expect("an engine");
    engine.handle(Timing::default().first_contact, Input::Wake);
    engine.handle(0, Input::Runtime(RuntimeEvent::Listed(Vec::new())));
    engine
}

#[test]
fn a_node_that_was_removed_takes_no_commands() {
    let mut engine = engine();
    let drain = |drain| Mutation::Drain { node: "n1".to_owned(), drain };
    assert_eq!(refused(&mut engine, drain(true)), None);
    let leave = Mutation::Leave { node: "n1".to_owned(), force: true };
    assert_eq!(refused(&mut engine, leave), None);
    let before = engine.replica().versions().clone();
    assert_eq!(refused(&mut engine, drain(false)), Some(MutationError::NodeLeft));
    assert_eq!(engine.replica().versions().cluster, before.cluster);
}

#[test]
fn a_node_that_cannot_receive_its_removal_believes_a_server() {
    let mut engine = engine();
    engine.handle(0, Input::Removed(key(3).1));
    assert!(!engine.has_left(), "a worker removes nobody");
    engine.handle(0, Input::Removed(key(4).1));
    assert!(!engine.has_left(), "nor does a stranger");
    engine.handle(0, Input::Removed(key(2).1));
    assert!(engine.has_left());
    let drain = Mutation::Drain { node: "n1".to_owned(), drain: true };
    assert_eq!(refused(&mut engine, drain), Some(MutationError::NodeLeft));
}
