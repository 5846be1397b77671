use std::collections::BTreeMap;

use vc_protocol::change::{Actor, Batch, ChangeBody, ChangeError, DocumentId, SignedChange};
use vc_protocol::node::{NodeInfo, RuntimeKind};
use vc_protocol::token::{NodeRole, TokenError, issue_certificate};
use vc_protocol::{ClusterId, Keypair, NodeId, Resources, Supports};

use super::{Loaded, NewGeneration, Replica};
use crate::document::{Document, DocumentError, Edit, Schema, SchemaChange};
use crate::known::KnownVersions;
use crate::received::{EntryError, Received, Rejected};
use crate::schema::tests::{NEXT, with_map};
use crate::schema::{AUTHORITY, HISTORY, TOKENS};
use crate::schema::{CLUSTER, NODE};
use crate::state::{ClusterState, NodeState, Revocation, RevocationKey};

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
        document: DocumentId::Cluster { generation: 0 },
        actor,
        seq: written.seq,
        author: id,
        on_behalf_of: None,
        timestamp: 0,
        checkpoint: None,
        payload: written.bytes,
    };
    SignedChange::sign(&body, &key)
}

fn load(certificates: Vec<String>, changes: Vec<SignedChange>) -> Loaded {
    let (key, id, cluster) = key();
    Replica::load(key, id, cluster, KnownVersions::default(), certificates, changes)
        .expect("a replica")
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
    let document = DocumentId::Cluster { generation: 0 };
    let actor = Actor::new(id, 2);
    let body = ChangeBody {
        cluster,
        document,
        actor,
        seq: 1,
        author: id,
        on_behalf_of: None,
        timestamp: 0,
        checkpoint: None,
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

#[test]
fn what_follows_a_damaged_change_counts_again_when_a_peer_has_sent_that_one() {
    let mut document = Document::new(CLUSTER).expect("a document");
    let mut write = |replicas| change_of(&mut document, 1, &[("scale", "shop/web", replicas)]);
    let [first, second, third, fourth, fifth] = ["1", "2", "3", "4", "5"].map(&mut write);

    let stored = vec![first.clone(), third.clone(), fifth.clone()];
    let mut loaded = load(vec![certificate()], stored);
    assert_eq!(loaded.accepted, vec![first]);
    assert_eq!(loaded.rejected.len(), 2, "{:?}", loaded.rejected);
    let batch =
        |change: &SignedChange| Batch { certificates: vec![], changes: vec![change.clone()] };
    let replica = &mut loaded.replica;
    assert_eq!(replica.receive(batch(&fourth)).accepted, []);
    assert_eq!(replica.receive(batch(&second)).accepted, [second, third]);
    assert_eq!(replica.receive(batch(&fourth)).accepted, [fourth, fifth]);
    assert_eq!(replica.cluster().replicas(&service()), 5);
}

#[test]
fn what_depends_on_a_damaged_change_of_another_author_counts_again_when_a_peer_has_sent_that_one() {
    let mut document = Document::new(CLUSTER).expect("a document");
    let mut write =
        |actor, replicas| change_of(&mut document, actor, &[("scale", "shop/web", replicas)]);
    let [first, lost, dependent] = [(1, "1"), (1, "2"), (2, "3")].map(|(at, n)| write(at, n));
    let next = write(2, "4");
    let other = Keypair::ed25519_from_bytes([2; 32]).expect("32 bytes");
    let damaged = SignedChange::sign(&lost.decode_unverified().expect("a change"), &other);

    let stored = vec![first.clone(), damaged, dependent.clone(), next.clone()];
    let mut loaded = load(vec![certificate()], stored);
    assert_eq!(loaded.accepted, vec![first]);
    assert_eq!(loaded.rejected.len(), 3, "{:?}", loaded.rejected);
    let replica = &mut loaded.replica;
    assert!(replica.held().documents.is_empty(), "it can be written");
    let batch = Batch { certificates: vec![], changes: vec![lost.clone()] };
    assert_eq!(replica.receive(batch).accepted, [lost, dependent, next]);
    assert_eq!(replica.cluster().replicas(&service()), 4);
}

#[test]
fn a_node_writes_on_with_another_actor_where_the_disk_has_lost_a_change_of_its_own() {
    let mut document = Document::new(CLUSTER).expect("a document");
    let mut write = |replicas| change_of(&mut document, 1, &[("scale", "shop/web", replicas)]);
    let [first, _lost, third] = ["1", "2", "3"].map(&mut write);
    let mut replica = load(vec![certificate()], vec![first, third.clone()]).replica;
    let mut wanted = replica.cluster().clone();
    wanted.scale.insert(service(), 7);
    let own = replica.write_cluster(&wanted, None, 0, true, 9).expect("written").expect("a change");
    let actor = |change: &SignedChange| change.decode_unverified().expect("a change").actor;
    assert_ne!(actor(&own), actor(&third));
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
    document.upgrade(NEXT).expect("upgraded");
    let second = change_of(&mut document, 1, &[("leases", "a", "1"), ("scale", "shop/web", "3")]);
    let third = change_of(&mut document, 2, &[("scale", "shop/web", "4")]);

    let stored = vec![first, second, third];
    let mut loaded = load(vec![certificate()], stored.clone());
    assert_eq!(loaded.rejected, vec![]);
    let replica = &mut loaded.replica;
    assert_eq!(replica.cluster().replicas(&service()), 2, "what this version can read");
    assert_eq!(replica.versions().cluster[&0].values().copied().collect::<Vec<_>>(), [2, 1]);
    let held = replica.held();
    assert!(held.documents.contains(&DocumentId::Cluster { generation: 0 }));
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
        let mut author =
            Replica::load(key, id, cluster, KnownVersions::default(), vec![certificate()], vec![])
                .expect("a replica")
                .replica;
        let supports = Supports { schema, ..Supports::default() };
        let state = NodeState { info: Some(info(supports)), ..NodeState::default() };
        let change = author.start_generation(&state, 0, schema.into()).expect("written");
        let changes = change.into_iter().collect();
        replica.receive(Batch { certificates: vec![], changes });
    };
    receive_info(&mut replica, 1);
    assert_eq!(replica.receive(batch()).accepted, []);
    receive_info(&mut replica, NEXT);
    assert_eq!(replica.receive(batch()).accepted, stored[1..]);
    assert!(replica.held().documents.contains(&DocumentId::Cluster { generation: 0 }));
}

fn info(supports: Supports) -> NodeInfo {
    NodeInfo {
        name: "n1".parse().expect("a name"),
        version: "0".to_owned(),
        os: "linux".to_owned(),
        arch: "amd64".to_owned(),
        runtime: RuntimeKind::Docker,
        capacity: Resources::default(),
        volume_room: 0,
        generic_resources: BTreeMap::new(),
        labels: BTreeMap::new(),
        addresses: Vec::new(),
        supports,
        epoch: 0,
        mdns: false,
        witness: false,
        dns_problem: String::new(),
        problems: Vec::new(),
        backups: None,
        failed_upgrade: String::new(),
        notify_commands: false,
    }
}

#[test]
fn a_document_of_a_worker_with_an_unknown_map_holds_the_worker_only() {
    let (root, id, cluster) = key();
    let worker = Keypair::ed25519_from_bytes([2; 32]).expect("32 bytes");
    let worker_id = NodeId::of(&worker.public()).expect("ed25519");
    let added = SchemaChange { version: NEXT, maps: &["leases"], bytes: None };
    let node = Schema([NODE.0, &[added]].concat().leak());
    let newer = KnownVersions { node, ..KnownVersions::default() };
    for (role, holds_others) in [(NodeRole::Worker, false), (NodeRole::Server, true)] {
        let issued = issue_certificate(&root, worker_id, role, 0).expect("signed");
        let load = |key: &Keypair, id, knows, changes| {
            let certificates = vec![certificate(), issued.clone()];
            let loaded = Replica::load(key.clone(), id, cluster, knows, certificates, changes);
            loaded.expect("a replica").replica
        };
        let mut author = load(&worker, worker_id, newer, vec![]);
        let mut state = NodeState { incarnation: 1, ..NodeState::default() };
        let first = author.start_generation(&state, 0, 1).expect("written").expect("a change");
        let own = author.nodes.get_mut(&worker_id).expect("its document");
        own.document.upgrade(NEXT).expect("upgraded");
        state.incarnation = 2;
        let second = author.write_node(&state, 0).expect("written").expect("a change");
        let changes = vec![first, second];

        let mut other = load(&root, id, KnownVersions::default(), vec![]);
        let batch = Batch { certificates: vec![], changes: changes.clone() };
        assert_eq!(other.receive(batch).accepted, changes);
        assert_eq!(other.nodes()[&worker_id].incarnation, 2, "what is known is read");
        assert_eq!(other.held().holds().all, holds_others);

        let mut downgraded = load(&worker, worker_id, KnownVersions::default(), changes.clone());
        assert!(downgraded.held().holds().all);
        let third = downgraded.start_generation(&state, 0, 2).expect("written").expect("a change");
        let upgraded = load(&worker, worker_id, newer, vec![third]);
        assert_eq!(upgraded.nodes[&worker_id].document.version(), NEXT, "the map is still there");
        assert!(!upgraded.held().holds().all);
    }
}

#[test]
fn the_newest_schema_is_used_when_every_member_supports_it() {
    let (root, id, cluster) = key();
    let other = Keypair::ed25519_from_bytes([2; 32]).expect("32 bytes");
    let other_id = NodeId::of(&other.public()).expect("ed25519");
    let issued = issue_certificate(&root, other_id, NodeRole::Server, 0).expect("signed");
    let newer = KnownVersions { cluster: with_map(CLUSTER, "leases"), ..KnownVersions::default() };
    let load = |key: &Keypair, id| {
        let certificates = vec![certificate(), issued.clone()];
        let loaded = Replica::load(key.clone(), id, cluster, newer, certificates, vec![]);
        loaded.expect("a replica").replica
    };
    let says = |replica: &mut Replica, schema| {
        let info = info(Supports { schema, ..Supports::default() });
        let state = NodeState { info: Some(info), ..NodeState::default() };
        replica.start_generation(&state, 0, 1).expect("written").expect("a change")
    };
    let (mut replica, mut author) = (load(&root, id), load(&other, other_id));
    says(&mut replica, NEXT);
    replica.upgrade().expect("upgraded");
    assert_eq!(replica.schema(), 1, "a member whose document is missing");
    for schema in [1, TOKENS, AUTHORITY, HISTORY, NEXT] {
        let changes = vec![says(&mut author, schema)];
        replica.receive(Batch { certificates: vec![], changes });
        replica.upgrade().expect("upgraded");
        assert_eq!(replica.schema(), schema);
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
    assert!(!replica.held().documents.contains(&DocumentId::Cluster { generation: 0 }));
    let batch = Batch { certificates: vec![], changes: changes[1..].to_vec() };
    assert_eq!(replica.receive(batch).accepted.len(), 3);
    assert_eq!(replica.cluster().replicas(&service()), 4);
}

/// Replicas of members, each with its own key, and the certificates of all.
fn members(count: usize) -> Vec<Replica> {
    members_that_know(&vec![KnownVersions::default(); count])
}

/// The same, of members of these versions.
fn members_that_know(versions: &[KnownVersions]) -> Vec<Replica> {
    let (root, _, cluster) = key();
    let keys =
        (1..).take(versions.len()).map(|n| Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes"));
    let keys: Vec<(Keypair, NodeId)> =
        keys.map(|key| (key.clone(), NodeId::of(&key.public()).expect("ed25519"))).collect();
    let certificates: Vec<String> = keys
        .iter()
        .map(|(_, id)| issue_certificate(&root, *id, NodeRole::Server, 0).expect("signed"))
        .collect();
    let load = |((key, id), &knows)| {
        let loaded = Replica::load(key, id, cluster, knows, certificates.clone(), vec![]);
        loaded.expect("a replica").replica
    };
    keys.into_iter().zip(versions).map(load).collect()
}

fn send(changes: &[SignedChange], to: &mut Replica) -> Received {
    let received = to.receive(Batch { certificates: vec![], changes: changes.to_vec() });
    assert_eq!(received.rejected, []);
    received
}

/// Returns the changes that `from` has written and `to` lacks.
fn missing(from: &[SignedChange], source: &Replica, to: &Replica) -> Vec<SignedChange> {
    let runs = source.versions().missing_in(to.versions());
    let wanted = |change: &&SignedChange| {
        let body = change.decode_unverified().expect("a change");
        runs.iter().any(|run| {
            run.document == body.document
                && run.actor.is_none_or(|actor| actor == body.actor)
                && (run.from..=run.to).contains(&body.seq)
        })
    };
    from.iter().filter(wanted).cloned().collect()
}

fn scale(replica: &mut Replica, service: &str, replicas: Option<u32>) -> SignedChange {
    let service = service.parse().expect("a key");
    let mut wanted = replica.cluster().clone();
    match replicas {
        Some(replicas) => drop(wanted.scale.insert(service, replicas)),
        None => drop(wanted.scale.remove(&service)),
    }
    replica.write_cluster(&wanted, None, 0, false, 5).expect("written").expect("a change")
}

fn scales(replica: &Replica) -> Vec<(String, u32)> {
    let scale = replica.cluster().scale.iter();
    scale.map(|(service, &replicas)| (service.to_string(), replicas)).collect()
}

fn checkpoint(replica: &mut Replica) -> Vec<SignedChange> {
    replica.write_checkpoint(0, 7).expect("written").expect("not empty").changes
}

#[test]
fn a_checkpoint_replaces_the_history_of_the_generation_before_the_last() {
    let [mut a, mut b]: [Replica; 2] = members(2).try_into().ok().expect("two");
    for n in 0..20 {
        let change = scale(&mut a, "shop/web", Some(n));
        send(&[change], &mut b);
    }
    assert!(a.is_checkpoint_due(20) && !a.is_checkpoint_due(21));
    assert_eq!(a.settled(), b.settled());
    let first = checkpoint(&mut a);
    assert_eq!(first.len(), 1);
    assert!(!a.is_checkpoint_due(1));
    assert_ne!(a.settled(), b.settled());
    let received = send(&first, &mut b);
    assert_eq!((received.accepted.len(), received.replaced), (1, vec![]));
    assert_eq!((scales(&b), a.versions()), (scales(&a), b.versions()));

    let change = scale(&mut b, "shop/web", Some(50));
    send(std::slice::from_ref(&change), &mut a);
    let NewGeneration { changes: second, dropped } =
        a.write_checkpoint(0, 8).expect("written").expect("not empty");
    let generation_0 = DocumentId::Cluster { generation: 0 };
    assert_eq!(dropped, [generation_0]);
    assert_eq!(send(&second, &mut b).replaced, [generation_0]);
    assert_eq!((scales(&b), a.versions()), (scales(&a), b.versions()));

    // What is left on the disk is enough, in any order.
    let (key, id, cluster) = key();
    let mut stored = [first, vec![change], second].concat();
    stored.reverse();
    let knows = KnownVersions::default();
    let loaded = Replica::load(key, id, cluster, knows, a.certificates(), stored);
    let loaded = loaded.expect("a replica");
    assert_eq!(loaded.rejected, []);
    assert_eq!((loaded.replica.versions(), scales(&loaded.replica)), (a.versions(), scales(&a)));
    assert!(loaded.replica.held().is_empty());
}

#[test]
fn an_older_member_that_does_not_read_which_nodes_have_left_blocks_no_checkpoint() {
    let newer = KnownVersions { cluster: with_map(CLUSTER, "next"), ..KnownVersions::default() };
    let all = members_that_know(&[newer, newer, newer, KnownVersions::default()]);
    let [mut a, mut b, leaves, mut older]: [Replica; 4] = all.try_into().ok().expect("four");
    let info = Some(info(Supports { schema: NEXT, ..Supports::default() }));
    let state = NodeState { info, ..NodeState::default() };
    let says = a.start_generation(&state, 0, 1).expect("written").expect("a change");
    a.cluster.upgrade(NEXT).expect("upgraded");
    let change = scale(&mut a, "shop/web", Some(1));
    for replica in [&mut b, &mut older] {
        send(std::slice::from_ref(&says), replica);
        send(std::slice::from_ref(&change), replica);
        assert!(a.agreeing().contains(&replica.settled()));
    }
    assert!(older.cluster.is_held() && !b.cluster.is_held());

    let mut wanted = a.cluster().clone();
    wanted.left.insert(leaves.id(), 0);
    let left = a.write_cluster(&wanted, None, 0, false, 5).expect("written").expect("a change");
    send(std::slice::from_ref(&left), &mut older);
    assert!(older.present_members().any(|node| node == leaves.id()));
    assert!(a.agreeing().contains(&older.settled()));
    // One that reads the document agrees once it knows.
    assert!(!a.agreeing().contains(&b.settled()));
    send(&[left], &mut b);
    assert!(a.agreeing().contains(&b.settled()));
    // What is dropped next has to be known to both.
    let started = checkpoint(&mut a);
    for replica in [&mut b, &mut older] {
        assert!(!a.agreeing().contains(&replica.settled()));
        send(&started, replica);
        assert!(a.agreeing().contains(&replica.settled()));
    }
}

#[test]
fn changes_on_their_way_to_a_checkpoint_are_kept() {
    let [mut a, mut b, mut c]: [Replica; 3] = members(3).try_into().ok().expect("three");
    let mut log = vec![
        scale(&mut a, "shop/web", Some(1)),
        scale(&mut a, "shop/db", Some(1)),
        scale(&mut a, "shop/old", Some(1)),
    ];
    send(&log, &mut b);
    send(&log, &mut c);
    // b writes, c has seen it and writes after it; a has seen neither.
    let late = scale(&mut b, "shop/web", Some(2));
    send(std::slice::from_ref(&late), &mut c);
    log.extend([late, scale(&mut c, "shop/web", Some(3)), scale(&mut b, "shop/db", Some(2))]);
    log.extend([scale(&mut c, "shop/old", None), scale(&mut c, "shop/new", Some(4))]);
    log.extend(checkpoint(&mut a));
    log.push(scale(&mut a, "shop/db", Some(9)));

    let mut all = [a, b, c];
    for _ in 0..2 {
        for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            let changes = missing(&log, &all[from], &all[to]);
            send(&changes, &mut all[to]);
        }
    }
    // The one who wrote in the new generation did not know the late write.
    let expected = [("shop/db", 9), ("shop/new", 4), ("shop/web", 3)];
    let expected = expected.map(|(service, replicas)| (service.to_owned(), replicas));
    for replica in &all {
        assert_eq!(scales(replica), expected);
        assert_eq!((replica.versions(), replica.settled()), (all[0].versions(), all[0].settled()));
    }

    // Late entries can be changed, deleted and written again with the value of the checkpoint.
    let [a, b, c] = &mut all;
    let written =
        [scale(b, "shop/new", None), scale(b, "shop/web", Some(1)), scale(b, "shop/old", Some(1))];
    let expected = [("shop/db", 9), ("shop/old", 1), ("shop/web", 1)];
    let expected = expected.map(|(service, replicas)| (service.to_owned(), replicas));
    assert_eq!(scales(b), expected);
    send(&written, a);
    send(&written, c);
    let next = checkpoint(a);
    assert_eq!(scales(a), expected);
    for replica in [&mut *b, c] {
        send(&next, replica);
        assert_eq!((scales(replica), replica.versions()), (expected.to_vec(), a.versions()));
    }
}

#[test]
fn a_large_checkpoint_counts_once_all_its_parts_are_there() {
    let [mut a, mut b]: [Replica; 2] = members(2).try_into().ok().expect("two");
    let mut log = Vec::new();
    for n in 0..30 {
        let mut wanted = a.cluster().clone();
        let sealed = crate::state::SealedFile { sealed: "x".repeat(100 << 10) };
        let key = format!("shop/config/{n:016x}/big").parse().expect("a key");
        wanted.files.insert(key, sealed);
        log.push(a.write_cluster(&wanted, None, 0, false, 5).expect("written").expect("a change"));
    }
    let parts = checkpoint(&mut a);
    assert!(parts.len() > 5, "{}", parts.len());

    // A node that joins knows nothing until it has the last part.
    let received = send(&parts[..parts.len() - 1], &mut b);
    assert_eq!(received.accepted, []);
    assert!(!b.held().documents.is_empty());
    assert_eq!(send(&parts[parts.len() - 1..], &mut b).accepted.len(), parts.len());
    assert!(b.held().is_empty());
    assert_eq!(b.cluster(), a.cluster());
    assert_eq!(missing(&log, &a, &b), log, "the generation before follows");
    send(&log, &mut b);
    assert_eq!((b.cluster(), b.versions()), (a.cluster(), a.versions()));
}

#[test]
fn a_checkpoint_with_other_content_is_rejected() {
    let [mut a, mut b]: [Replica; 2] = members(2).try_into().ok().expect("two");
    let log = [scale(&mut a, "shop/web", Some(3))];
    send(&log, &mut b);
    let body = checkpoint(&mut a)[0].decode_unverified().expect("a change");
    let mut document = Document::new(CLUSTER).expect("a document");
    let actor = Actor::new(a.id(), 7);
    let edit = Edit { map: "scale", key: "shop/web".to_owned(), value: Some("9".to_owned()) };
    let forged = document.write(&actor, &[edit], 0).expect("written").expect("a change");
    let (key, id, _) = key();
    assert_eq!(id, a.id());
    let forged = SignedChange::sign(&ChangeBody { payload: forged.bytes, ..body }, &key);
    let received = b.receive(Batch { certificates: vec![], changes: vec![forged] });
    let error = DocumentError::Checkpoint;
    assert_eq!(received.rejected, [Rejected::Document { author: id, error }]);
    assert_eq!((received.accepted, scales(&b)), (vec![], vec![("shop/web".to_owned(), 3)]));
}

#[test]
fn only_servers_write_the_cluster_document() {
    let [mut a, b]: [Replica; 2] = members(2).try_into().ok().expect("two");
    let (root, _, cluster) = key();
    let worker = issue_certificate(&root, a.id(), NodeRole::Worker, 0).expect("signed");
    let certificates = vec![worker];
    let (id, change) = (a.id(), scale(&mut a, "shop/web", Some(2)));
    let (key, id_b, knows) = (b.key.clone(), b.id(), KnownVersions::default());
    let loaded = Replica::load(key, id_b, cluster, knows, certificates, vec![]);
    let mut replica = loaded.expect("a replica").replica;
    let received = replica.receive(Batch { certificates: vec![], changes: vec![change] });
    let error = ChangeError::NotPermitted { author: id };
    assert_eq!((received.accepted, received.rejected), (vec![], vec![error.into()]));
    assert_eq!(scales(&replica), vec![]);
}

#[test]
fn revoked_tokens_are_those_of_the_id_or_of_the_user_until_then() {
    let [mut a, _]: [Replica; 2] = members(2).try_into().ok().expect("two");
    a.cluster.upgrade(TOKENS).expect("upgraded");
    let mut wanted = a.cluster().clone();
    let revocation = |before| Revocation { before, at: 7, expires: 90 };
    wanted.revocations.insert(RevocationKey::Token("17".to_owned()), revocation(0));
    wanted.revocations.insert(RevocationKey::User("ada/x".to_owned()), revocation(50));
    a.write_cluster(&wanted, None, 0, false, 5).expect("written").expect("a change");
    let state = a.cluster();
    assert_eq!(state.revocations, wanted.revocations);
    let revoked = |id: &str, user: &str, issued| state.is_revoked(id, user, issued);
    assert!(revoked("17", "bob", 99));
    assert!(revoked("18", "ada/x", 50) && !revoked("18", "ada/x", 51));
    assert!(!revoked("18", "ada", 1) && !revoked("token/17", "bob", 1));
}

mod trust;
