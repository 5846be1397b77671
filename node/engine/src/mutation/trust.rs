//! The rotation of the signing key.

use std::collections::BTreeMap;

use vc_crdt::{ClusterState, Rotation, TrustEntry, TrustKey, View};
use vc_protocol::change::Subject;
use vc_protocol::control::Change;
use vc_protocol::token::SigningKey;
use vc_protocol::wire::MAX_CHANGE;
use vc_protocol::{Millis, NodeId};

use super::MutationError;

/// Bytes of the certificates in one change, of which 64 KiB are left for the envelope.
const MAX_CERTIFICATES: usize = MAX_CHANGE - 64 * 1024;

/// A new signing key, with the certificates that it has signed. They are in one change: a node that learns of the key knows its
/// members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSigningKey {
    /// The key.
    pub signing: SigningKey,
    /// The root's endorsement of it.
    pub endorsement: String,
    /// The certificates of the members.
    pub members: BTreeMap<NodeId, String>,
    /// The certificates of those that are no members any more, and have written what is kept.
    pub former: BTreeMap<NodeId, String>,
}

/// Puts a new signing key into effect. Nodes with documents that get no certificate as members are removed.
pub(super) fn rotate(
    view: &View,
    state: &mut ClusterState,
    new: &NewSigningKey,
    by: &Subject,
    now: Millis,
) -> Result<Vec<Change>, MutationError> {
    let NewSigningKey { signing: SigningKey { epoch, key }, endorsement, members, former } = new;
    if *epoch != view.trust.epoch() + 1 {
        return Err(MutationError::RotatedMeanwhile);
    }
    let certificates: Vec<_> = members.iter().chain(former).collect();
    if certificates.iter().map(|(_, it)| it.len() + 128).sum::<usize>() > MAX_CERTIFICATES {
        return Err(MutationError::TooManyNodes { nodes: certificates.len() });
    }
    // Those of the keys before count no more.
    state.trust.retain(|entry, _| matches!(entry, TrustKey::Epoch(_)));
    let rotated_by = by.name.clone();
    let rotation = Rotation { endorsement: endorsement.clone(), rotated: now, rotated_by };
    state.trust.insert(TrustKey::Epoch(*epoch), TrustEntry::Rotation(rotation));
    certify(state, *key, certificates.into_iter().map(|(&node, it)| (node, it.clone())));

    let members: Vec<NodeId> = members.keys().copied().collect();
    let mut changes = vec![Change::SigningKeyRotated { epoch: *epoch, members }];
    let removed = view.nodes.keys().filter(|node| !new.members.contains_key(node));
    changes.extend(removed.map(|&node| match super::remove_node(view, state, node, now) {
        Change::Left { node, node_name, volumes, majority_lost, .. } => {
            Change::Left { node, node_name, knows_key: false, volumes, majority_lost }
        }
        change => change,
    }));
    Ok(changes)
}

/// Adds certificates that the signing key has signed since the rotation.
pub(super) fn certify(
    state: &mut ClusterState,
    key: NodeId,
    certificates: impl IntoIterator<Item = (NodeId, String)>,
) {
    let entries = certificates.into_iter().map(|(node, certificate)| {
        (TrustKey::Certificate { key, node }, TrustEntry::Certificate(certificate))
    });
    state.trust.extend(entries);
}
