//! Batches of changes, as gossip and anti-entropy bring them: the bytes of a byzantine member.

use std::collections::BTreeMap;

use vc_crdt::{ClusterState, KnownVersions, NodeState, Replica};
use vc_protocol::change::{Batch, SignedChange};
use vc_protocol::node::NodeInfo;
use vc_protocol::wire;

use crate::keys::{Identity, KEYS, NOW};

/// Receives the batch that the bytes encode.
pub(crate) fn run(data: &[u8]) {
    if let Ok(batch) = wire::decode::<Batch>(data) {
        assert_eq!(wire::decode::<Batch>(&wire::encode(&batch)).as_ref(), Ok(&batch));
        receive(&mut replica(&KEYS.servers[1]), batch);
    }
}

/// Returns the replica of a member that has the certificates of all.
#[expect(clippy::expect_used, reason = "the genesis is constant")]
pub(crate) fn replica(of: &Identity) -> Replica {
    let (key, certificates) = (of.key.clone(), KEYS.certificates());
    Replica::load(key, of.id, KEYS.cluster, KnownVersions::default(), certificates, vec![])
        .expect("a replica")
        .replica
}

/// Receives a batch, and asserts that what was accepted is read from the disk as it is in memory.
#[expect(clippy::expect_used, reason = "the genesis is constant")]
pub(crate) fn receive(replica: &mut Replica, batch: Batch) -> Vec<SignedChange> {
    let received = replica.receive(batch);
    for error in &received.rejected {
        assert!(!error.to_string().is_empty());
    }
    if received.accepted.is_empty() {
        return Vec::new();
    }
    let key = KEYS.servers[1].key.clone();
    let (knows, certificates) = (KnownVersions::default(), replica.certificates());
    let accepted = received.accepted.clone();
    let loaded =
        Replica::load(key, KEYS.servers[1].id, KEYS.cluster, knows, certificates, accepted)
            .expect("a replica");
    assert_eq!(loaded.rejected, vec![], "what was accepted is durable");
    let loaded = loaded.replica;
    assert_eq!(loaded.versions(), replica.versions());
    assert_eq!(loaded.cluster(), replica.cluster());
    assert_eq!(loaded.nodes(), replica.nodes());
    received.accepted
}

/// Returns changes as a server writes them: of its own document, of the cluster document, and a checkpoint.
#[expect(clippy::expect_used, reason = "the content is constant")]
pub(crate) fn changes() -> Vec<SignedChange> {
    let mut writer = replica(&KEYS.servers[0]);
    let info = Some(NodeInfo::for_tests("n1"));
    let own = NodeState { info, ..NodeState::default() };
    let mut changes = vec![writer.start_generation(&own, NOW, 1).expect("written")];
    let mut state = ClusterState {
        scale: BTreeMap::from([("shop/web".parse().expect("a service"), 3)]),
        drained: BTreeMap::from([(KEYS.worker.id, true)]),
        ..ClusterState::default()
    };
    changes.push(writer.write_cluster(&state, None, NOW, true, 1).expect("written"));
    state.scale.clear();
    state.left.insert(KEYS.worker.id, NOW);
    changes.push(writer.write_cluster(&state, None, NOW, true, 1).expect("written"));
    let mut changes: Vec<SignedChange> = changes.into_iter().flatten().collect();
    changes.extend(
        writer.write_checkpoint(NOW, 1).expect("written").into_iter().flat_map(|it| it.changes),
    );
    changes
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let certificates = KEYS.certificates();
    let batch = |changes| wire::encode(&Batch { certificates: certificates.clone(), changes });
    let all = changes();
    let mut seeds: Vec<Vec<u8>> = all.iter().map(|it| batch(vec![it.clone()])).collect();
    seeds.push(batch(all));
    seeds
}
