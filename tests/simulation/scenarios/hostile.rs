//! Byzantine members send invalid changes.

use vc_engine::Input;
use vc_protocol::change::{Actor, Batch, ChangeBody, DocumentId, SignedChange};
use vc_protocol::gossip::{Gossip, SyncMessage};
use vc_protocol::wire::MAX_CHANGE;
use vc_protocol::{Keypair, NodeId};

use super::cluster;
use vc_simulation::invariants::no_actions_at_rest;
use vc_simulation::services::{deploy, service};
use vc_simulation::world::World;

/// Returns a change of an author with this payload.
fn body(world: &World, author: NodeId, document: DocumentId, bytes: Vec<u8>) -> ChangeBody {
    ChangeBody {
        cluster: world.cluster,
        document,
        actor: Actor::new(author, 666),
        seq: 1,
        author,
        on_behalf_of: None,
        timestamp: 0,
        checkpoint: None,
        payload: bytes,
    }
}

/// Sends a change to all nodes by gossip and by stream, and checks that it has no effect.
fn send_ineffective(world: &mut World, from: NodeId, change: &SignedChange) {
    let cursor = world.history.cursor();
    let versions = world.engine(0).replica().versions().clone();
    let batch = Batch { certificates: Vec::new(), changes: vec![change.clone()] };
    for index in 0..world.nodes.len() {
        world.handle(index, Input::Gossip(from, Gossip::Changes(batch.clone())));
        world.handle(index, Input::Sync(from, SyncMessage::Changes(batch.clone())));
    }
    world.run(30_000);
    world.require(no_actions_at_rest::check(world, cursor));
    assert_eq!(world.engine(0).replica().versions(), &versions);
}

#[test]
fn garbage_from_a_member_is_rejected() {
    let mut world = cluster(3, "garbage_from_a_member");
    let (key, id) = (world.nodes[2].key.clone(), world.nodes[2].id);
    for length in [0, 1, 9, 100, 5000] {
        let bytes = (0..length).map(|_| world.rng.number().to_be_bytes()[0]).collect();
        let change = SignedChange::sign(
            &body(&world, id, DocumentId::Cluster { generation: 0 }, bytes),
            &key,
        );
        send_ineffective(&mut world, id, &change);
    }
    world.command(2, deploy(service("web", 2)));
    world.converge(30_000);
}

#[test]
fn an_oversized_change_from_a_member_is_rejected() {
    let mut world = cluster(3, "an_oversized_change");
    let (key, id) = (world.nodes[2].key.clone(), world.nodes[2].id);
    let change = SignedChange::sign(
        &body(&world, id, DocumentId::Cluster { generation: 0 }, vec![7; MAX_CHANGE]),
        &key,
    );
    send_ineffective(&mut world, id, &change);
}

#[test]
fn a_genuine_change_signed_by_a_non_member_is_rejected() {
    let mut world = cluster(3, "a_genuine_change_signed_by");
    world.command(0, deploy(service("web", 2)));
    world.converge(30_000);
    let genuine =
        world.nodes[0].disk.load().changes.remove(0).decode_unverified().expect("a change");
    let outsider = Keypair::ed25519_from_bytes([200; 32]).expect("32 bytes");
    let id = NodeId::of(&outsider.public()).expect("ed25519");
    let change = SignedChange::sign(
        &body(&world, id, DocumentId::Cluster { generation: 0 }, genuine.payload),
        &outsider,
    );
    send_ineffective(&mut world, id, &change);
}

#[test]
fn a_member_cannot_sign_changes_of_another_node() {
    let mut world = cluster(3, "a_member_cannot_sign");
    let (key, member, victim) = (world.nodes[2].key.clone(), world.nodes[2].id, world.nodes[0].id);
    let document = DocumentId::Node { node: victim, generation: u64::MAX };
    let genuine =
        world.nodes[0].disk.load().changes.remove(0).decode_unverified().expect("a change");
    for author in [member, victim] {
        let change =
            SignedChange::sign(&body(&world, author, document, genuine.payload.clone()), &key);
        send_ineffective(&mut world, member, &change);
    }
}

#[test]
fn a_valid_change_in_a_batch_with_an_invalid_one_is_accepted() {
    let mut world = cluster(3, "a_valid_change_in_a_batch");
    // m0 writes a change that no other node receives yet.
    world.network.faults.loss = 1000;
    world.command(0, deploy(service("web", 2)));
    let (key, id) = (world.nodes[2].key.clone(), world.nodes[2].id);
    let valid =
        world.operators.operations.values().find_map(|it| it.change.clone()).expect("a change");
    let invalid = SignedChange::sign(
        &body(&world, id, DocumentId::Cluster { generation: 0 }, vec![1; 60]),
        &key,
    );
    let batch = Batch { certificates: Vec::new(), changes: vec![invalid, valid.change] };
    world.handle(1, Input::Gossip(id, Gossip::Changes(batch)));
    assert_eq!(world.engine(1).view().cluster.services.len(), 1, "the valid change was rejected");
    world.network.faults.loss = 0;
    world.converge(30_000);
}
