//! Names and labels of containers, volumes and networks of this node.

use std::collections::HashMap;

use vc_engine::runtime::InstanceId;
use vc_protocol::{IdError, ServiceKey, Slot};

use crate::identity::Identity;

/// The cluster's id.
pub(super) const CLUSTER: &str = "vc.cluster";
/// The node's id.
pub(super) const NODE: &str = "vc.node";
/// The project.
pub(super) const PROJECT: &str = "vc.project";
/// The service in its project.
pub(super) const SERVICE: &str = "vc.service";
/// The replica's number.
pub(super) const REPLICA: &str = "vc.replica";
/// The digest of the instance's spec.
pub(super) const DIGEST: &str = "vc.digest";

/// The epoch of the lease under which it was created.
pub(super) const EPOCH: &str = "vc.epoch";

/// The DNS servers of the container, separated by commas.
pub(super) const DNS: &str = "vc.dns";

/// Returns the name of an instance's container. A dot cannot occur in a project or service, so no two slots share a
/// name; the node is part of it because several nodes may share an engine.
pub(super) fn container_name(identity: &Identity, id: &InstanceId) -> String {
    let ServiceKey { project, service } = &id.slot.service;
    let digest = id.digest.get(..8).unwrap_or(&id.digest);
    format!("vc-{project}.{service}.{}-{digest}-{}", id.slot.replica, identity.node.short())
}

/// Returns label filters (`label=value`) that match only the containers, volumes and networks of this node.
pub(super) fn filters(identity: &Identity) -> Vec<String> {
    vec![format!("{CLUSTER}={}", identity.cluster), format!("{NODE}={}", identity.node)]
}

/// Returns label filters that match only the containers of one slot of this node.
pub(super) fn slot_filters(identity: &Identity, slot: &Slot) -> Vec<String> {
    let mut labels = filters(identity);
    labels.push(format!("{PROJECT}={}", slot.service.project));
    labels.push(format!("{SERVICE}={}", slot.service.service));
    labels.push(format!("{REPLICA}={}", slot.replica));
    labels
}

/// Returns the instance that labels identify (an event's attributes include them); `None` when they are not of this
/// node.
///
/// # Errors
/// The labels are of this node, but malformed.
pub(super) fn instance(
    identity: &Identity,
    labels: &HashMap<String, String>,
) -> Option<Result<InstanceId, IdError>> {
    let label = |key: &str| labels.get(key).map_or("", String::as_str);
    if label(CLUSTER) != identity.cluster.to_string() || label(NODE) != identity.node.to_string() {
        return None;
    }
    let slot = format!("{}/{}.{}", label(PROJECT), label(SERVICE), label(REPLICA)).parse();
    Some(slot.map(|slot| InstanceId { slot, digest: label(DIGEST).to_owned() }))
}
