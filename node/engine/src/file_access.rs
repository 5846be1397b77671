//! Which nodes get the content of a secret or config: those that the plan lets start an instance that mounts it.

use vc_crdt::{FileKey, View};
use vc_protocol::file::FileRequest;
use vc_protocol::spec::FileId;
use vc_protocol::{InstanceId, NodeId, Slot};

/// Why a node does not get the content of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileRefusal {
    /// The node was removed from the cluster.
    #[error("the node was removed from the cluster")]
    Removed,
    /// The plan gives the slot to another node, or to none.
    #[error("the plan does not give {0} to the node")]
    NotPlaced(Slot),
    /// No version of the service that may run now has this instance with this file.
    #[error("{instance} does not mount {file} with this content")]
    NotMounted {
        /// The instance.
        instance: InstanceId,
        /// The file.
        file: FileId,
    },
    /// The document has no such file.
    #[error("{0} is no longer in the cluster")]
    NotFound(FileId),
}

impl FileRefusal {
    /// Returns whether it holds whatever else the documents say. Any other refusal may only mean that this node has not
    /// received the change that the asking node follows.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Removed)
    }
}

/// Returns the key of the file that `node` asks for, if the plan gives it the slot, and the present spec of the service or the
/// one before it is that of the instance and mounts the file. A node starts only what the plan gives it, so its own claims
/// entitle it to nothing.
///
/// # Errors
/// The node does not get the content.
pub fn file_access(
    view: &View,
    node: NodeId,
    request: &FileRequest,
) -> Result<FileKey, FileRefusal> {
    let FileRequest { instance, file, version } = request;
    if view.left.contains_key(&node) {
        return Err(FileRefusal::Removed);
    }
    let slot = &instance.slot;
    if view.plan.placements.get(slot).is_none_or(|placement| placement.node != node) {
        return Err(FileRefusal::NotPlaced(slot.clone()));
    }
    let record = view.cluster.services.get(&slot.service);
    let specs = record.into_iter().flat_map(|it| std::iter::once(&it.spec).chain(&it.previous));
    let mut mounting = specs.filter(|spec| {
        spec.container.files.iter().any(|mount| mount.file == *file && mount.version == *version)
    });
    if !mounting.any(|spec| spec.container_digest() == instance.digest) {
        let (instance, file) = (instance.clone(), file.clone());
        return Err(FileRefusal::NotMounted { instance, file });
    }
    let key = FileKey {
        project: slot.service.project.clone(),
        file: file.clone(),
        version: version.clone(),
    };
    if view.cluster.files.contains_key(&key) {
        Ok(key)
    } else {
        Err(FileRefusal::NotFound(key.file))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use vc_crdt::{ClusterState, KnownVersions, NodeState, SealedFile, ServiceRecord};
    use vc_protocol::instance::{Claim, InstanceState};
    use vc_protocol::node::NodeInfo;
    use vc_protocol::spec::{Attribute, Constraint, FileKind, FileMount, ServiceSpec};
    use vc_protocol::{Keypair, ServiceKey, Stored};

    use super::*;

    fn node(number: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([number; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    fn service(name: &str) -> ServiceKey {
        name.parse().expect("a service")
    }

    fn secret() -> FileId {
        FileId { kind: FileKind::Secret, name: "db".to_owned() }
    }

    /// Runs on one node and mounts the secret `db` with the content of a version.
    fn mounting(node: u8, version: &str) -> Stored<ServiceSpec> {
        let mut spec = ServiceSpec::default();
        let value = self::node(node).to_string();
        spec.constraints = vec![Constraint { attribute: Attribute::Id, equal: true, value }];
        spec.container.files.push(FileMount {
            file: secret(),
            version: version.to_owned(),
            target: "/run/secrets/db".to_owned(),
            uid: 0,
            gid: 0,
            mode: 0o444,
        });
        spec.into()
    }

    /// `shop/web` is to run on node 2, in the version "new" and before in "old"; `shop/api` is to run on node 3 in "api".
    fn cluster() -> (ClusterState, BTreeMap<NodeId, NodeState>) {
        let mut state = ClusterState::default();
        let record = |spec, previous| {
            let deployed_by = "tester".to_owned();
            ServiceRecord { spec, previous, revision: 1, updated: 0, deployed_by, trace: None }
                .into()
        };
        let web = record(mounting(2, "new"), Some(mounting(2, "old")));
        state.services.insert(service("shop/web"), web);
        state.services.insert(service("shop/api"), record(mounting(3, "api"), None));
        for version in ["new", "old", "api", "unused"] {
            let (project, version) = ("shop".parse().expect("a name"), version.to_owned());
            let key = FileKey { project, file: secret(), version };
            state.files.insert(key, SealedFile { sealed: String::new() });
        }
        let ids = [1, 2, 3].map(node);
        let of = |name: &str| NodeState {
            incarnation: 1,
            observed: BTreeSet::from(ids),
            info: Some(NodeInfo::for_tests(name)),
            ..NodeState::default()
        };
        (state, ids.into_iter().zip(["desk", "attic", "loft"].map(of)).collect())
    }

    fn request(slot: &str, spec: &ServiceSpec, version: &str) -> FileRequest {
        let digest = spec.container.digest();
        let instance = InstanceId { slot: slot.parse().expect("a slot"), digest };
        FileRequest { instance, file: secret(), version: version.to_owned() }
    }

    #[test]
    fn a_node_gets_the_files_of_the_instances_that_the_plan_gives_it() {
        let (mut state, mut nodes) = cluster();
        let view = |state: &ClusterState, nodes: &BTreeMap<NodeId, NodeState>| {
            View::from_states(state.clone(), nodes.clone(), &KnownVersions::default())
        };
        let access = |view: &View, number: u8, request: &FileRequest| {
            file_access(view, node(number), request).map(|key| key.to_string())
        };
        let (new, old) = (mounting(2, "new"), mounting(2, "old"));
        let web = request("shop/web.1", &new, "new");
        let before = request("shop/web.1", &old, "old");
        let now = view(&state, &nodes);
        assert_eq!(access(&now, 2, &web).as_deref(), Ok("shop/secret/new/db"));
        assert_eq!(access(&now, 2, &before).as_deref(), Ok("shop/secret/old/db"));

        let not_placed = |slot: &str| FileRefusal::NotPlaced(slot.parse().expect("a slot"));
        assert_eq!(access(&now, 3, &web), Err(not_placed("shop/web.1")));
        // Servers too have only what they run; they do not ask, since they have the key.
        assert_eq!(access(&now, 1, &web), Err(not_placed("shop/web.1")));
        let second = request("shop/web.2", &new, "new");
        assert_eq!(access(&now, 2, &second), Err(not_placed("shop/web.2")));
        // A file of another service, through the instance that the node does run.
        for version in ["api", "unused", "none"] {
            let other = request("shop/web.1", &new, version);
            let refused = access(&now, 2, &other);
            assert!(matches!(refused, Err(FileRefusal::NotMounted { .. })), "{refused:?}");
        }
        let mixed = request("shop/web.1", &new, "old");
        assert!(access(&now, 2, &mixed).is_err(), "the present instance has the present content");

        // A claim in the asking node's own document, on a slot that it may not run.
        let claim = Claim {
            state: InstanceState::Running,
            reason: String::new(),
            address: String::new(),
            restarts: 0,
            lamport: 0,
            started: 0,
            since: 0,
            available: true,
            prepared: false,
            restarted_unhealthy: false,
            epoch: None,
            terminal: false,
        };
        nodes.get_mut(&node(3)).expect("loft").claims.insert(web.instance.clone(), claim);
        let claimed = view(&state, &nodes);
        assert_eq!(access(&claimed, 3, &web), Err(not_placed("shop/web.1")));

        state.files.retain(|key, _| key.version != "new");
        let dropped = view(&state, &nodes);
        assert_eq!(access(&dropped, 2, &web), Err(FileRefusal::NotFound(secret())));
        state.left.insert(node(2), 1);
        assert_eq!(access(&view(&state, &nodes), 2, &before), Err(FileRefusal::Removed));
    }
}
