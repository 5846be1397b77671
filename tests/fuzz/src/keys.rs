//! The keys and credentials of the cluster that the targets act in. All are the same in each run.

use std::sync::LazyLock;

use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{ClusterId, Keypair, Millis, NodeId};

/// The time in all targets.
pub(crate) const NOW: Millis = 1_800_000_000_000;

/// A key with its id and, if it is a member's, its certificate.
pub(crate) struct Identity {
    pub(crate) key: Keypair,
    pub(crate) id: NodeId,
    pub(crate) certificate: Option<String>,
}

/// The cluster: its root key, two servers, a worker, and a node outside.
pub(crate) struct Keys {
    pub(crate) cluster: ClusterId,
    pub(crate) root: Identity,
    pub(crate) servers: [Identity; 2],
    pub(crate) worker: Identity,
    pub(crate) outsider: Identity,
}

#[expect(clippy::expect_used, reason = "the keys are constant")]
pub(crate) static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let key = |n: u8| Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes");
    let root = key(1);
    let identity = |n: u8, role: Option<NodeRole>| {
        let key = key(n);
        let id = NodeId::of(&key.public()).expect("ed25519");
        let certificate = role.map(|role| issue_certificate(&root, id, role, NOW).expect("signed"));
        Identity { key, id, certificate }
    };
    Keys {
        cluster: ClusterId::of(&root.public()).expect("ed25519"),
        servers: [identity(2, Some(NodeRole::Server)), identity(3, Some(NodeRole::Server))],
        worker: identity(4, Some(NodeRole::Worker)),
        outsider: identity(5, None),
        root: identity(1, None),
    }
});

impl Keys {
    /// Returns the certificates of all members.
    pub(crate) fn certificates(&self) -> Vec<String> {
        let members = self.servers.iter().chain([&self.worker]);
        members.filter_map(|it| it.certificate.clone()).collect()
    }
}
