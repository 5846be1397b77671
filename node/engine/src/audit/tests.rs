use vc_crdt::{ClusterState, KnownVersions, NodeState, Replica, ServiceRecord, Tombstone};
use vc_protocol::change::Subject;
use vc_protocol::node::NodeInfo;
use vc_protocol::spec::ServiceSpec;
use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{ClusterId, Keypair, Stored};

use super::*;

fn key(n: u8) -> Keypair {
    Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes")
}

fn id(n: u8) -> NodeId {
    NodeId::of(&key(n).public()).expect("ed25519")
}

fn replica(n: u8) -> Replica {
    let root = key(9);
    let certificates = [1, 2]
        .map(|n| issue_certificate(&root, id(n), NodeRole::Server, 0).expect("a certificate"));
    let cluster = ClusterId::of(&root.public()).expect("ed25519");
    let knows = KnownVersions::default();
    let loaded = Replica::load(key(n), id(n), cluster, knows, certificates.into(), Vec::new());
    loaded.expect("loads").replica
}

fn write(replica: &mut Replica, change: impl Fn(&mut ClusterState), at: u64) -> SignedChange {
    let mut state = replica.cluster().clone();
    change(&mut state);
    let by = Subject {
        name: "ann".to_owned(),
        token_id: "t1".to_owned(),
        address: Some("10.0.0.5".to_owned()),
    };
    let written = replica.write_cluster(&state, Some(by), at, true, 1);
    written.expect("writes").expect("something changes")
}

fn service(state: &mut ClusterState, edit: impl Fn(&mut ServiceSpec)) {
    let key: ServiceKey = "shop/web".parse().expect("a service");
    let before = state.services.get(&key).map(|record| record.spec.clone());
    let mut spec = before.clone().unwrap_or_else(|| {
        let json = r#"{"container":{"image":"web:1"},"update":{}}"#;
        serde_json::from_str::<Stored<ServiceSpec>>(json).expect("a spec")
    });
    edit(&mut spec);
    let record = ServiceRecord {
        spec,
        previous: before,
        revision: state.services.len() as u64,
        updated: 0,
        deployed_by: "ann".to_owned(),
        trace: None,
    };
    state.services.insert(key, record.into());
}

fn texts(trail: &mut AuditTrail) -> Vec<String> {
    trail.take().into_iter().map(|row| row.text).collect()
}

#[test]
fn changes_are_told_in_words_without_values() {
    let mut replica = replica(1);
    let web: ServiceKey = "shop/web".parse().expect("a service");
    let mut trail = AuditTrail::default();
    let mut told = |change: &dyn Fn(&mut ClusterState)| {
        let view = View::of(&replica);
        let signed = write(&mut replica, change, 5);
        trail.accept(&signed, &view);
        texts(&mut trail)
    };
    let deployed = told(&|state| {
        service(state, |_| {});
        state.scale.insert(web.clone(), 2);
    });
    assert_eq!(deployed, ["deployed shop/web (image web:1, 2 replicas)"]);
    let updated = told(&|state| {
        service(state, |spec| {
            spec.container.image = "web:2".to_owned();
            spec.container.environment.insert("PASSWORD".to_owned(), "hunter2".to_owned());
        });
    });
    assert_eq!(updated, ["updated shop/web (image web:1 -> web:2, environment)"]);
    let restarted = told(&|state| service(state, |spec| spec.container.force_update += 1));
    assert_eq!(restarted, ["restarted shop/web"]);
    assert_eq!(
        told(&|state| {
            state.scale.insert(web.clone(), 3);
        }),
        ["scaled shop/web from 2 to 3"]
    );
    let node = id(2).short();
    assert_eq!(
        told(&|state| {
            state.drained.insert(id(2), true);
        }),
        [format!("drained {node}")]
    );
    assert_eq!(
        told(&|state| {
            state.drained.remove(&id(2));
        }),
        [format!("ended the drain of {node}")]
    );
    assert_eq!(
        told(&|state| {
            state.left.insert(id(2), 1);
        }),
        [format!("removed {node} from the cluster")]
    );
    let volume = "shop/data".parse().expect("a volume");
    let removed = Tombstone { lamport: 1, at: 1, forgotten: false };
    assert_eq!(
        told(&|state| {
            state.tombstones.insert(vc_protocol::VolumeKey::clone(&volume), removed.clone());
        }),
        ["removed volume shop/data"]
    );
    let gone = told(&|state| {
        state.services.remove(&web);
        state.scale.remove(&web);
    });
    assert_eq!(gone, ["removed shop/web"]);
}

#[test]
fn a_rollback_to_an_older_version_is_told_as_one() {
    let web: ServiceKey = "shop/web".parse().expect("a service");
    let mut author = replica(1);
    for n in [1, 2] {
        let supports = KnownVersions::default().supports();
        let info = Some(NodeInfo { supports, ..NodeInfo::for_tests("a") });
        let state = NodeState { info, ..NodeState::default() };
        let mut of = replica(n);
        let change = of.start_generation(&state, 0, 1).expect("writes").expect("a change");
        author.receive(of.batch(vec![change]));
    }
    author.upgrade().expect("upgraded");
    let mut trail = AuditTrail::default();
    let mut image = |by_rollback: bool, image: &str| {
        let signed = write(
            &mut author,
            |state| {
                let replaced = state.services.get(&web).map(|held| VersionRecord {
                    number: 1,
                    spec: held.spec.clone(),
                    deployed: 1,
                    deployed_by: "ann".to_owned(),
                    complete: true,
                    failed: None,
                    rolled_back: by_rollback,
                });
                let revision = state.history.len() as u64;
                let key = VersionKey { service: web.clone(), revision };
                std::sync::Arc::make_mut(&mut state.history)
                    .extend(replaced.map(|replaced| (key, replaced.into())));
                service(state, |spec| spec.container.image = image.to_owned());
            },
            5,
        );
        trail.accept(&signed, &View::of(&author));
        texts(&mut trail).remove(0)
    };
    image(false, "web:1");
    assert_eq!(image(false, "web:2"), "updated shop/web (image web:1 -> web:2)");
    assert_eq!(image(false, "web:3"), "updated shop/web (image web:2 -> web:3)");
    assert_eq!(image(true, "web:1"), "rolled back shop/web (image web:3 -> web:1)");
}

#[test]
fn a_record_says_who_changed_what_and_is_equal_on_every_server() {
    let (mut author, mut other) = (replica(1), replica(2));
    let first = write(&mut author, |state| service(state, |_| {}), 7);
    let scaled = |state: &mut ClusterState| {
        state.scale.insert("shop/web".parse().expect("a service"), 4);
    };
    let second = write(&mut author, scaled, 8);
    let (view, changes) = (View::of(&author), vec![first, second]);
    let mut here = AuditTrail::default();
    changes.iter().for_each(|change| here.accept(change, &view));
    let here = here.take();
    let received = other.receive(author.batch(changes.clone()));
    let mut there = AuditTrail::default();
    received.accepted.iter().for_each(|change| there.accept(change, &view));
    assert_eq!(there.take(), here);

    // After a start, whatever the order on the disk.
    let mut again = AuditTrail::default();
    again.load(&changes.into_iter().rev().collect::<Vec<_>>(), &view);
    assert_eq!(again.take(), here);

    let row = &here[1];
    assert_eq!((row.text.as_str(), row.time), ("scaled shop/web from 1 to 4", 8));
    assert_eq!(row.user.as_deref(), Some("ann"));
    assert_eq!(row.token.as_deref(), Some("t1"));
    assert_eq!(row.address.as_deref(), Some("10.0.0.5"));
    assert_eq!((row.node, row.service.clone()), (id(1), "shop/web".parse().ok()));
    let change = row.change.as_ref().expect("a change");
    assert_eq!((change.generation, change.seq, change.part), (0, 2, 0));
    assert_ne!(here[0].key(), here[1].key());
}

#[test]
fn a_checkpoint_is_no_action() {
    let mut author = replica(1);
    let mut trail = AuditTrail::default();
    let first = write(&mut author, |state| service(state, |_| {}), 7);
    let view = View::of(&author);
    let generation = author.write_checkpoint(9, 1).expect("writes").expect("a checkpoint");
    let later = write(
        &mut author,
        |state| {
            state.drained.insert(id(2), true);
        },
        8,
    );
    // A node that has the checkpoint only, and one that has all.
    for changes in [generation.changes.clone(), [vec![first], generation.changes].concat()] {
        changes.iter().for_each(|change| trail.accept(change, &view));
        texts(&mut trail);
        trail.accept(&later, &view);
        assert_eq!(texts(&mut trail), [format!("drained {}", id(2).short())]);
        trail = AuditTrail::default();
    }
    let _ = trail;
}

#[test]
fn changes_of_the_voters_are_told() {
    let set = |number, forced| vc_protocol::lease::VoterSet {
        number,
        voters: std::collections::BTreeSet::from([id(1)]),
        lease_ms: 6000,
        forced,
        by: String::new(),
    };
    let tell = |key: VoterKey, before: Option<VoterEntry>, after: Option<VoterEntry>| {
        let value = |entry| serde_json::to_value(entry).expect("JSON");
        let (before, after) = (before.map(value), after.map(value));
        let view = View::of(&replica(1));
        let told =
            effect("voters", &key.to_string(), before.as_ref(), after.as_ref(), None, false, &view);
        told.map(|it| (it.action, it.text))
    };
    let told = |text: String| Some((AuditAction::VotersChanged, text));
    let (one, two) = (id(1).short(), id(2).short());
    let written = |number, forced| {
        tell(VoterKey::Set(number), None, Some(VoterEntry::Set(set(number, forced))))
    };
    assert_eq!(written(4, false), told(format!("changed the voters to {one} (set 4)")));
    assert_eq!(written(1004, true), told(format!("forced the voters to {one} (set 1004)")));
    assert_eq!(
        tell(VoterKey::Set(1), Some(VoterEntry::Set(set(1, false))), None),
        None,
        "an old set"
    );
    let wish = VoterKey::Wish(id(2));
    let (yes, no) = (Some(VoterEntry::Wish(true)), Some(VoterEntry::Wish(false)));
    assert_eq!(tell(wish.clone(), None, yes.clone()), told(format!("asked for {two} as a voter")));
    assert_eq!(tell(wish.clone(), None, no), told(format!("asked for {two} to be no voter")));
    assert_eq!(
        tell(wish, yes, None),
        told(format!("left it to the cluster whether {two} is a voter"))
    );
}
