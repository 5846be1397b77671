//! The part of the cluster's documents that finding an image needs.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::View;
use vc_protocol::NodeId;
use vc_protocol::image::Digest;

/// The other members, and the images that were pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PeerSet {
    pub(super) members: Vec<Member>,
    /// The members that may write the cluster document.
    pub(super) servers: BTreeSet<NodeId>,
    /// Image ids by canonical reference.
    pub(super) pushed: BTreeMap<String, Digest>,
}

/// Another member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) node: NodeId,
    pub(super) name: String,
    pub(super) up: bool,
}

impl PeerSet {
    /// Returns the peers of `own` in a view.
    pub(super) fn of(view: &View, own: NodeId) -> Self {
        let others = view.nodes.keys().filter(|&&node| node != own);
        let members =
            others.map(|&node| Member { node, name: view.name(node), up: view.up.contains(&node) });
        // Those of some projects are pinned when a service of theirs is deployed.
        let pushed = view.cluster.images.iter().filter(|(_, record)| record.projects.is_none());
        let pushed = pushed
            .filter_map(|(reference, record)| Some((reference.clone(), record.id.parse().ok()?)));
        let servers = view.servers.clone();
        Self { members: members.collect(), servers, pushed: pushed.collect() }
    }
}
