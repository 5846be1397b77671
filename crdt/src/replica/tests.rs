use std::collections::BTreeMap;

use vc_protocol::change::{Actor, Batch, ChangeBody, DocumentId, SignedChange};
use vc_protocol::node::{NodeInfo, RuntimeKind};
use vc_protocol::token::{NodeRole, TokenError, issue_certificate};
use vc_protocol::{ClusterId, Keypair, NodeId, Resources, Supports};

use super::{Loaded, Replica};
use crate::document::{Document, DocumentError, Edit};
use crate::received::{EntryError, Rejected};
use crate::schema::CLUSTER;
use crate::schema::tests::with_map;
use crate::state::{ClusterState, NodeState};

fn key() -> (Keypair, NodeId, ClusterId) {
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let id = NodeId::of(&key.public()).expect("ed25519");
    let cluster = ClusterId::of(&key.public()).expect("ed25519");
    (key, id, cluster)
}

/// Returns a valid change of the cluster document that makes these edits.
fn change(edits: &[(&'static str, &str, &str)]) -> SignedChange {
    let mut document = Document::new(CLUSTER).expect("a document");
    change_of(&mut document, 1, edits)
}

/// Returns the change that makes these edits in a cluster document, by an actor with this nonce.
fn change_of(
    document: &mut Document,
    nonce: u64,
    edits: &[(&'static str, &str, &str)],
) -> SignedChange {
    let (key, id, cluster) = key();
    let actor = Actor::new(id, nonce);
    let edits: Vec<Edit> = edits
        .iter()
        .map(|&(map, key, value)| Edit { map, key: key.to_owned(), value: Some(value.to_owned()) })
        .collect();
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

fn service() -> vc_protocol::ServiceKey {
    "shop/web".parse().expect("a key")
}

fn record(extra: &str) -> String {
    let spec = format!(r#"{{"container": {{"image": "web:1"{extra}}}}}"#);
    format!(
        r#"{{"spec": {spec}, "previous": null, "revision": 1, "updated": 1, "deployed_by": "ada", "note": 7}}"#
    )
}

/// Writes `edit` into the cluster document, as a command on this node would.
fn write(
    replica: &mut Replica,
    edit: impl FnOnce(&mut ClusterState),
) -> Result<Option<SignedChange>, DocumentError> {
    let mut wanted = replica.cluster().clone();
    edit(&mut wanted);
    replica.write_cluster(&wanted, None, 0, false, 9)
}

#[test]
fn a_store_with_one_more_map_is_held_and_written_by_no_one() {
    let newer = with_map(CLUSTER, "leases");
    let mut document = Document::new(newer).expect("a document");
    let first = change_of(&mut document, 1, &[("scale", "shop/web", "2")]);
    document.upgrade(2).expect("upgraded");
    let second = change_of(&mut document, 1, &[("leases", "a", "1"), ("scale", "shop/web", "3")]);
    let third = change_of(&mut document, 2, &[("scale", "shop/web", "4")]);

    let stored = vec![first, second, third];
    let mut loaded = load(vec![certificate()], stored.clone());
    assert_eq!(loaded.rejected, vec![]);
    let replica = &mut loaded.replica;
    assert_eq!(replica.cluster().replicas(&service()), 2, "what this version can read");
    assert_eq!(replica.versions().cluster.values().copied().collect::<Vec<_>>(), [2, 1]);
    let held = replica.held();
    assert!(held.documents.contains(&DocumentId::Cluster));
    assert!(held.reason(&service()).is_some());
    let refused = write(replica, |state| {
        state.scale.insert(service(), 9);
    });
    assert_eq!(refused, Err(DocumentError::Held));

    // Received from peers: only a node of a newer version may depend on what this one does not know.
    let mut replica = load(vec![certificate()], vec![]).replica;
    let batch = || Batch { certificates: vec![], changes: stored.clone() };
    assert_eq!(replica.receive(batch()).accepted, stored[..1]);
    assert!(replica.held().is_empty());
    let receive_info = |replica: &mut Replica, schema| {
        let (key, id, cluster) = key();
        let mut author = Replica::load(key, id, cluster, vec![certificate()], vec![])
            .expect("a replica")
            .replica;
        let supports = Supports { schema, plan: 1 };
        let state = NodeState { info: Some(info(supports)), ..NodeState::default() };
        let change = author.start_generation(&state, 0, schema.into()).expect("written");
        let changes = change.into_iter().collect();
        replica.receive(Batch { certificates: vec![], changes });
    };
    receive_info(&mut replica, 1);
    assert_eq!(replica.receive(batch()).accepted, []);
    receive_info(&mut replica, 2);
    assert_eq!(replica.receive(batch()).accepted, stored[1..]);
    assert!(replica.held().documents.contains(&DocumentId::Cluster));
}

fn info(supports: Supports) -> NodeInfo {
    NodeInfo {
        name: "n1".parse().expect("a name"),
        version: "0".to_owned(),
        os: "linux".to_owned(),
        arch: "amd64".to_owned(),
        runtime: RuntimeKind::Docker,
        capacity: Resources::default(),
        labels: BTreeMap::new(),
        addresses: Vec::new(),
        supports,
    }
}

#[test]
fn unknown_fields_survive_a_write_and_hold_the_service() {
    let written = change(&[("services", "shop/web", &record(r#", "gpus": {"count": 1}"#))]);
    let mut replica = load(vec![certificate()], vec![written]).replica;
    let held = replica.held();
    assert!(!held.has_unreadable);
    let reason = held.reason(&service()).expect("held");
    assert!(reason.contains("container.gpus.count"), "{reason}");
    assert_eq!(held.reason(&"shop/db".parse().expect("a key")), None);

    let edited = write(&mut replica, |state| {
        let record = state.services.get_mut(&service()).expect("the service");
        record.spec.container.force_update = 5;
        record.previous = Some(record.spec.clone());
    });
    edited.expect("written").expect("a change");
    let stored = serde_json::to_value(&replica.cluster().services[&service()]).expect("JSON");
    assert_eq!(stored["note"], 7);
    assert_eq!(stored["spec"]["container"]["gpus"]["count"], 1);
    assert_eq!(stored["spec"]["container"]["force_update"], 5);
    assert_eq!(stored["previous"]["container"]["gpus"]["count"], 1);
}

#[test]
fn an_unreadable_service_is_held_and_cannot_be_overwritten() {
    let newer = r#"{"spec": {"container": {"image": "web:2"}, "on_partition": "quorum"}, "revision": 1, "updated": 1, "deployed_by": "ada"}"#;
    let written = change(&[("services", "shop/web", newer), ("services", "shop/db", &record(""))]);
    let mut replica = load(vec![certificate()], vec![written]).replica;
    let held = replica.held();
    assert!(held.has_unreadable);
    assert!(held.reason(&service()).is_some_and(|it| it.contains("quorum")), "{held:?}");
    assert_eq!(held.reason(&"shop/db".parse().expect("a key")), None);

    let record = replica.cluster().services.values().next().expect("shop/db").clone();
    let overwritten = write(&mut replica, |state| drop(state.services.insert(service(), record)));
    let key = "shop/web".to_owned();
    assert_eq!(overwritten, Err(DocumentError::Unreadable { map: "services", key }));
    let scaled = write(&mut replica, |state| {
        state.scale.insert(service(), 2);
    });
    assert!(scaled.is_ok_and(|change| change.is_some()), "other entries can be written");
}

#[test]
fn what_follows_a_missing_change_is_left_to_the_peers() {
    let mut document = Document::new(CLUSTER).expect("a document");
    let changes: Vec<_> = (1..=4)
        .map(|n| change_of(&mut document, 1, &[("scale", "shop/web", &n.to_string())]))
        .collect();
    let mut damaged = changes.clone();
    damaged.remove(1);
    let Loaded { mut replica, rejected, .. } = load(vec![certificate()], damaged);
    let (_, id, _) = key();
    assert_eq!(rejected, [3, 4].map(|seq| Rejected::Gap { author: id, seq }));
    assert!(!replica.held().documents.contains(&DocumentId::Cluster));
    let batch = Batch { certificates: vec![], changes: changes[1..].to_vec() };
    assert_eq!(replica.receive(batch).accepted.len(), 3);
    assert_eq!(replica.cluster().replicas(&service()), 4);
}
