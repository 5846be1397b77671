use vc_protocol::change::{Actor, Batch, ChangeBody, DocumentId, SignedChange};
use vc_protocol::token::{NodeRole, TokenError, issue_certificate};
use vc_protocol::{ClusterId, Keypair, NodeId};

use super::{Loaded, Replica};
use crate::document::{Document, DocumentError, Edit};
use crate::received::{EntryError, Rejected};
use crate::state::CLUSTER;

fn key() -> (Keypair, NodeId, ClusterId) {
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let id = NodeId::of(&key.public()).expect("ed25519");
    let cluster = ClusterId::of(&key.public()).expect("ed25519");
    (key, id, cluster)
}

/// Returns a valid change of the cluster document that makes these edits.
fn change(edits: &[(&'static str, &str, &str)]) -> SignedChange {
    let (key, id, cluster) = key();
    let actor = Actor::new(id, 1);
    let edits: Vec<Edit> = edits
        .iter()
        .map(|&(map, key, value)| Edit { map, key: key.to_owned(), value: Some(value.to_owned()) })
        .collect();
    let mut document = Document::new(CLUSTER).expect("a document");
    let written = document.write(&actor, &edits, 0).expect("written").expect("a change");
    let body = ChangeBody {
        cluster,
        document: DocumentId::Cluster,
        actor,
        seq: written.seq,
        author: id,
        on_behalf_of: None,
        timestamp: 0,
        payload: written.bytes,
    };
    SignedChange::sign(&body, &key)
}

fn load(certificates: Vec<String>, changes: Vec<SignedChange>) -> Loaded {
    let (key, id, cluster) = key();
    Replica::load(key, id, cluster, certificates, changes).expect("a replica")
}

fn certificate() -> String {
    let (key, id, _) = key();
    issue_certificate(&key, id, NodeRole::Server, 0).expect("signed")
}

#[test]
fn loading_returns_the_certificates_and_changes_that_are_invalid() {
    let loaded = load(vec![certificate()], vec![change(&[("scale", "shop/web", "2")])]);
    assert_eq!((loaded.rejected, loaded.unreadable), (vec![], vec![]));
    assert_eq!(loaded.replica.cluster().replicas(&"shop/web".parse().expect("a key")), 2);

    let (key, id, cluster) = key();
    let document = DocumentId::Cluster;
    let actor = Actor::new(id, 2);
    let body = ChangeBody {
        cluster,
        document,
        actor,
        seq: 1,
        author: id,
        on_behalf_of: None,
        timestamp: 0,
        payload: vec![1, 2, 3],
    };
    let certificates = vec![certificate(), "not a certificate".to_owned()];
    let loaded = load(certificates, vec![SignedChange::sign(&body, &key)]);
    let error = DocumentError::Malformed;
    let expected = vec![
        Rejected::Certificate(TokenError::Malformed),
        Rejected::Document { author: id, error },
    ];
    assert_eq!(loaded.rejected, expected);
    assert!(loaded.replica.is_member(id));
}

#[test]
fn unreadable_entries_are_left_out_and_reported_once() {
    let written = change(&[
        ("scale", "shop/web", "3"),
        ("scale", "not a service", "2"),
        ("drained", "x", "true"),
        ("tombstones", "shop/data", "\"soon\""),
    ]);
    let loaded = load(vec![certificate()], vec![written.clone()]);
    assert_eq!(loaded.rejected, vec![]);
    let found: Vec<_> = loaded.unreadable.iter().map(|it| (it.map, it.key.as_str())).collect();
    let expected = [("scale", "not a service"), ("drained", "x"), ("tombstones", "shop/data")];
    assert_eq!(found, expected);
    assert!(matches!(loaded.unreadable[0].error, EntryError::Key(_)));
    assert!(matches!(loaded.unreadable[2].error, EntryError::Value(_)));
    assert_eq!(loaded.replica.cluster().replicas(&"shop/web".parse().expect("a key")), 3);

    let mut replica = load(vec![certificate()], vec![]).replica;
    let batch = Batch { certificates: vec![], changes: vec![written] };
    assert_eq!(replica.receive(batch.clone()).unreadable, loaded.unreadable);
    assert_eq!(replica.receive(batch).unreadable, vec![]);
}
