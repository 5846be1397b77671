//! Rotations of the signing key.

use vc_protocol::token::{Scope, Signer, SigningKey, endorse};

use super::*;
use crate::trust::{Rotation, TrustEntry, TrustKey};

fn keypair(n: u8) -> Keypair {
    Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes")
}

fn node(n: u8) -> NodeId {
    NodeId::of(&keypair(n).public()).expect("ed25519")
}

/// The root, which is also the key of the first member.
fn root() -> Signer {
    Signer::root(&keypair(1)).expect("a signer")
}

/// A signing key that the root has endorsed.
fn signer(n: u8, epoch: u32) -> (Signer, String) {
    let endorsement = endorse(&keypair(1), &keypair(n).public(), epoch, None, 0).expect("signed");
    let (_, _, cluster) = key();
    (Signer::endorsed(cluster, &keypair(n), &endorsement).expect("a signer"), endorsement)
}

fn certificate_of(signer: &Signer, n: u8, scope: Scope) -> String {
    signer.certify(node(n), scope, 0).expect("signed")
}

const SERVER: Scope = Scope::Member(NodeRole::Server);
const FORMER: Scope = Scope::Former(NodeRole::Server);

/// Returns the entries of a rotation to signing key `n`.
fn entries(n: u8, epoch: u32, nodes: &[(u8, Scope)]) -> Vec<(TrustKey, TrustEntry)> {
    let (signer, endorsement) = signer(n, epoch);
    let rotation = Rotation { endorsement, rotated: 0, rotated_by: "ada".to_owned() };
    let certificates = nodes.iter().map(|&(of, scope)| {
        let key = TrustKey::Certificate { key: node(n), node: node(of) };
        (key, TrustEntry::Certificate(certificate_of(&signer, of, scope)))
    });
    let rotation = (TrustKey::Epoch(epoch), TrustEntry::Rotation(rotation));
    certificates.chain([rotation]).collect()
}

/// Writes a rotation to signing key `n`.
fn rotate(replica: &mut Replica, n: u8, epoch: u32, nodes: &[(u8, Scope)]) -> SignedChange {
    replica.cluster.upgrade(AUTHORITY).expect("upgraded");
    let mut wanted = replica.cluster().clone();
    wanted.trust.extend(entries(n, epoch, nodes));
    replica.write_cluster(&wanted, None, 0, false, 5).expect("written").expect("a change")
}

fn remove(replica: &mut Replica, n: u8) -> SignedChange {
    let mut wanted = replica.cluster().clone();
    wanted.left.insert(node(n), 0);
    replica.write_cluster(&wanted, None, 0, false, 5).expect("written").expect("a change")
}

fn receive(to: &mut Replica, certificates: &[String], changes: &[SignedChange]) -> Received {
    to.receive(Batch { certificates: certificates.to_vec(), changes: changes.to_vec() })
}

/// A replica of a node that knows these certificates, and nothing else.
fn fresh(n: u8, certificates: Vec<String>) -> Replica {
    let (_, _, cluster) = key();
    let knows = KnownVersions::default();
    let loaded = Replica::load(keypair(n), node(n), cluster, knows, certificates, vec![]);
    loaded.expect("a replica").replica
}

fn trio() -> [Replica; 3] {
    members(3).try_into().ok().expect("three")
}

#[test]
fn a_rotation_replaces_the_members_by_those_of_the_new_key() {
    let [mut a, mut b, _] = trio();
    let rotation = rotate(&mut a, 10, 1, &[(1, SERVER), (2, SERVER), (3, FORMER)]);
    let everyone = [node(1), node(2), node(3)];
    assert!(b.members().eq(sorted(&everyone)));
    assert_eq!(send(&[rotation], &mut b).accepted.len(), 1);
    for replica in [&a, &b] {
        assert_eq!(replica.signing_key(), SigningKey { epoch: 1, key: node(10) });
        assert!(replica.members().eq(sorted(&everyone[..2])));
        assert!(replica.own_certificate().is_some());
    }
    // It is found again on the disk.
    let (_, _, cluster) = key();
    let stored: Vec<String> = (1..=3).map(|n| certificate_of(&root(), n, SERVER)).collect();
    let rotation = rotate(&mut trio()[0], 10, 1, &[(1, SERVER), (2, SERVER)]);
    let knows = KnownVersions::default();
    let loaded = Replica::load(keypair(2), node(2), cluster, knows, stored, vec![rotation]);
    let loaded = loaded.expect("a replica");
    assert_eq!(loaded.rejected, []);
    assert!(loaded.replica.members().eq(sorted(&everyone[..2])));
}

fn sorted(nodes: &[NodeId]) -> Vec<NodeId> {
    let mut nodes = nodes.to_vec();
    nodes.sort();
    nodes
}

#[test]
fn certificates_of_the_root_and_of_unnamed_keys_are_refused_after_a_rotation() {
    let [mut a, mut b, _] = trio();
    let mut fabricated = fresh(7, vec![certificate_of(&root(), 7, SERVER)]);
    let forged = scale(&mut fabricated, "shop/evil", Some(1));
    let by_root = [certificate_of(&root(), 7, SERVER)];

    // Before, the root key is enough to make a server.
    let [_, _, mut unaware] = trio();
    assert_eq!(receive(&mut unaware, &by_root, std::slice::from_ref(&forged)).accepted.len(), 1);

    let rotation = rotate(&mut a, 10, 1, &[(1, SERVER), (2, SERVER)]);
    send(&[rotation], &mut b);
    let (unnamed, _) = signer(11, 1);
    let (later, _) = signer(12, 99);
    for signer in [&root(), &unnamed, &later] {
        let certificates = [certificate_of(signer, 7, SERVER), certificate_of(signer, 3, SERVER)];
        let received = receive(&mut b, &certificates, std::slice::from_ref(&forged));
        assert_eq!((received.certificates, received.accepted), (vec![], vec![]));
        assert_eq!(received.rejected, [Rejected::NotAMember(node(7))]);
        assert_eq!(b.add_certificate(&certificates[0]), Err(TokenError::Superseded));
    }
    assert!(!b.is_member(node(7)) && !b.is_member(node(3)));
    let (named, _) = signer(10, 1);
    assert_eq!(b.add_certificate(&certificate_of(&named, 8, SERVER)), Ok(true));
    assert!(b.is_member(node(8)));
}

#[test]
fn a_member_that_was_down_follows_with_the_changes_that_it_missed() {
    let [mut a, mut b, mut c] = trio();
    let written = scale(&mut c, "shop/web", Some(2));
    send(std::slice::from_ref(&written), &mut a);
    let removal = remove(&mut a, 3);
    let rotation = rotate(&mut a, 10, 1, &[(1, SERVER), (2, SERVER), (3, FORMER)]);
    let later = scale(&mut a, "shop/web", Some(4));
    let missed = [written, removal, rotation, later];
    // Of a member that joined since then it learns the certificate in the same batch.
    let joined = certificate_of(&signer(10, 1).0, 8, SERVER);
    let certificates = [a.certificates(), vec![joined]].concat();
    let received = receive(&mut b, &certificates, &missed);
    assert_eq!((received.accepted.len(), received.rejected), (4, vec![]));
    assert!(b.members().eq(sorted(&[node(1), node(2), node(8)])));
    assert_eq!((scales(&b), b.versions()), (scales(&a), a.versions()));
}

#[test]
fn a_node_that_joins_after_a_rotation_reads_what_former_members_wrote() {
    let [mut a, _, mut c] = trio();
    let written = scale(&mut c, "shop/web", Some(2));
    let state = NodeState { incarnation: 3, ..NodeState::default() };
    let own = c.start_generation(&state, 0, 1).expect("written").expect("a change");
    send(&[written.clone(), own.clone()], &mut a);
    let removal = remove(&mut a, 3);
    let rotation = rotate(&mut a, 10, 1, &[(1, SERVER), (2, SERVER), (3, FORMER)]);
    let joined = certificate_of(&signer(10, 1).0, 8, SERVER);
    let mut d = fresh(8, [a.certificates(), vec![joined]].concat());
    assert_eq!(d.signing_key(), a.signing_key(), "it knows no rotation yet");
    let by_root = certificate_of(&root(), 7, SERVER);
    assert_eq!(d.add_certificate(&by_root), Err(TokenError::Superseded));
    let received = send(&[written, own, removal, rotation], &mut d);
    assert_eq!(received.accepted.len(), 4);
    assert_eq!((scales(&d), d.versions()), (scales(&a), a.versions()));
}

#[test]
fn of_two_rotations_at_the_same_time_one_counts_on_every_node() {
    let [mut a, mut b, mut c] = trio();
    let all = [(1, SERVER), (2, SERVER), (3, SERVER)];
    let (first, second) = (rotate(&mut a, 10, 1, &all), rotate(&mut b, 11, 1, &all));
    send(std::slice::from_ref(&second), &mut a);
    send(std::slice::from_ref(&first), &mut b);
    send(&[second, first], &mut c);
    assert_eq!((a.signing_key(), b.signing_key()), (c.signing_key(), c.signing_key()));
    for replica in [&a, &b, &c] {
        assert_eq!(replica.members().count(), 3);
        assert!(replica.own_certificate().is_some());
    }
    // The next one counts in any case.
    let next = rotate(&mut c, 12, 2, &all);
    send(std::slice::from_ref(&next), &mut a);
    assert_eq!(a.signing_key(), SigningKey { epoch: 2, key: node(12) });
}

#[test]
fn entries_without_a_valid_endorsement_rotate_nothing() {
    let [mut a, _, _] = trio();
    a.cluster.upgrade(AUTHORITY).expect("upgraded");
    let (_, endorsement) = signer(10, 1);
    let foreign = endorse(&keypair(9), &keypair(10).public(), 2, None, 0).expect("signed");
    for (epoch, endorsement) in [(2, endorsement), (2, foreign), (3, "x".to_owned())] {
        let mut wanted = a.cluster().clone();
        let rotation = Rotation { endorsement, rotated: 0, rotated_by: "eve".to_owned() };
        wanted.trust.insert(TrustKey::Epoch(epoch), TrustEntry::Rotation(rotation));
        a.write_cluster(&wanted, None, 0, false, 5).expect("written").expect("a change");
        assert_eq!((a.signing_key().epoch, a.members().count()), (0, 3));
    }
}

#[test]
fn documents_of_nodes_without_a_certificate_are_dropped() {
    let [mut a, mut b, _] = trio();
    let by_root = certificate_of(&root(), 7, SERVER);
    let mut fabricated = fresh(7, vec![by_root.clone()]);
    let state = NodeState { incarnation: 1, ..NodeState::default() };
    let own = fabricated.start_generation(&state, 0, 1).expect("written").expect("a change");
    let received = receive(&mut b, &[by_root], &[own]);
    assert_eq!((received.accepted.len(), b.nodes().len()), (1, 1));
    let rotation = rotate(&mut a, 10, 1, &[(1, SERVER), (2, SERVER)]);
    let dropped = DocumentId::Node {
        node: node(7),
        generation: fabricated.own_generation().expect("its own"),
    };
    assert_eq!(send(&[rotation], &mut b).replaced, [dropped]);
    assert_eq!((b.nodes().len(), b.versions()), (0, a.versions()));
}

#[test]
fn former_members_write_nothing_after_two_checkpoints() {
    let [mut a, mut b, mut c] = trio();
    let shared = scale(&mut c, "shop/web", Some(2));
    send(std::slice::from_ref(&shared), &mut a);
    send(std::slice::from_ref(&shared), &mut b);
    let removal = remove(&mut a, 3);
    let rotation = rotate(&mut a, 10, 1, &[(1, SERVER), (2, SERVER), (3, FORMER)]);
    send(&[removal.clone(), rotation.clone()], &mut b);
    assert!(a.is_checkpoint_due(1000) && b.is_checkpoint_due(1000));
    // On its way when the rotation was made: every node accepts it, or none would accept what depends on it.
    let late = scale(&mut c, "shop/late", Some(1));
    send(std::slice::from_ref(&late), &mut b);
    // It starts no generation, not even with what it likes in it.
    let (_, mut thief) =
        (0, fresh(3, (1..=3).map(|n| certificate_of(&root(), n, SERVER)).collect()));
    send(std::slice::from_ref(&shared), &mut thief);
    let forged = checkpoint(&mut thief);
    let refused = receive(&mut b, &[], &forged);
    let error = ChangeError::NotPermitted { author: node(3) };
    assert_eq!((refused.accepted, refused.rejected), (vec![], vec![error.clone().into()]));

    let first = checkpoint(&mut a);
    send(&first, &mut b);
    assert!(a.is_checkpoint_due(1000), "the generation before is still open");
    send(std::slice::from_ref(&late), &mut a);
    assert_eq!(scales(&a), scales(&b));
    let second = checkpoint(&mut a);
    send(&second, &mut b);
    assert!(!a.is_checkpoint_due(1000) && !b.is_checkpoint_due(1000));
    assert_eq!((scales(&a), a.versions()), (scales(&b), b.versions()));

    // Relayed by a member, in the present generation and in the one before.
    send(&[removal, rotation, late], &mut c);
    send(&first, &mut c);
    let mut relayed = Vec::new();
    for (open, replicas) in [(first, 8), (second, 9)] {
        send(&open, &mut c);
        relayed.push(scale(&mut c, "shop/evil", Some(replicas)));
        let refused = receive(&mut b, &[], &relayed);
        let errors = vec![error.clone().into(); relayed.len()];
        assert_eq!((refused.accepted, refused.rejected), (vec![], errors));
    }
}

#[test]
fn a_removed_member_writes_no_generation_whose_checkpoint_knows_of_its_removal() {
    let [mut a, mut b, mut c] = trio();
    let removal = remove(&mut a, 3);
    send(std::slice::from_ref(&removal), &mut b);
    send(std::slice::from_ref(&removal), &mut c);
    let first = checkpoint(&mut a);
    // In one batch with the checkpoint too.
    send(&first, &mut c);
    let forged = scale(&mut c, "shop/evil", Some(9));
    let batch = [first, vec![forged]].concat();
    let received = receive(&mut b, &[], &batch);
    let error = ChangeError::NotPermitted { author: node(3) };
    assert_eq!((received.accepted.len(), received.rejected), (1, vec![error.into()]));
    assert_eq!(scales(&b), []);
}
