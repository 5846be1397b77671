//! One node's copy of all documents.

mod receive;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::change::{
    Actor, ChangeBody, ChangeError, DocumentId, SignedChange, VersionVector,
};
use vc_protocol::token::{NodeRole, TokenError, verify_certificate};
use vc_protocol::{ClusterId, Keypair, NodeId};

use crate::document::{Document, DocumentError};
use crate::held::Held;
use crate::received::{Received, Rejected, UnreadableEntry};
use crate::schema::CLUSTER;
use crate::state::{ClusterState, NodeState};

/// A member, known by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    certificate: String,
    role: NodeRole,
}

/// The present generation of a node's document.
struct NodeDocument {
    generation: u64,
    seq: u64,
    document: Document,
    unreadable: Vec<UnreadableEntry>,
}

/// The result of [`Replica::load`].
pub struct Loaded {
    /// The replica with everything that was valid.
    pub replica: Replica,
    /// Certificates and changes that are not valid: the disk is damaged, or was written by another version.
    pub rejected: Vec<Rejected>,
    /// Entries that this version cannot read.
    pub unreadable: Vec<UnreadableEntry>,
}

/// One node's copy of all documents.
pub struct Replica {
    id: NodeId,
    key: Keypair,
    cluster_id: ClusterId,
    members: BTreeMap<NodeId, Member>,
    quarantine: BTreeSet<NodeId>,
    cluster: Document,
    cluster_unreadable: Vec<UnreadableEntry>,
    nodes: BTreeMap<NodeId, NodeDocument>,
    versions: VersionVector,
    cluster_state: ClusterState,
    node_states: BTreeMap<NodeId, NodeState>,
    actor: Option<Actor>,
}

impl Replica {
    /// Builds a replica from the certificates and changes on the disk, in any order. The changes were verified before
    /// they were stored, so their signatures are not checked again.
    ///
    /// # Errors
    /// Automerge cannot create a document at all. Single invalid items are returned in [`Loaded`].
    pub fn load(
        key: Keypair,
        id: NodeId,
        cluster_id: ClusterId,
        certificates: Vec<String>,
        changes: Vec<SignedChange>,
    ) -> Result<Loaded, DocumentError> {
        let mut replica = Self {
            id,
            key,
            cluster_id,
            members: BTreeMap::new(),
            quarantine: BTreeSet::new(),
            cluster: Document::new(CLUSTER)?,
            cluster_unreadable: Vec::new(),
            nodes: BTreeMap::new(),
            versions: VersionVector::default(),
            cluster_state: ClusterState::default(),
            node_states: BTreeMap::new(),
            actor: None,
        };
        let mut received = Received::default();
        for certificate in certificates {
            if let Err(error) = replica.add_certificate(certificate) {
                received.rejected.push(error.into());
            }
        }
        let mut bodies: Vec<ChangeBody> = Vec::with_capacity(changes.len());
        for change in &changes {
            match change.decode_unverified() {
                Ok(body) => bodies.push(body),
                Err(error) => received.rejected.push(ChangeError::Malformed(error).into()),
            }
        }
        bodies.sort_by_key(|body| (body.document, body.actor, body.seq));
        // What follows a change that is missing on the disk is left out: peers send both again.
        let mut next = VersionVector::default();
        bodies.retain(|body| {
            let follows = receive::follows(&next, body);
            if follows {
                receive::advance(&mut next, body);
            } else {
                received.rejected.push(Rejected::Gap { author: body.author, seq: body.seq });
            }
            follows
        });
        replica.apply_all(bodies, &mut received);
        let Received { rejected, unreadable, .. } = received;
        Ok(Loaded { replica, rejected, unreadable })
    }

    /// Returns the id of this node.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Adds a certificate. Returns true if it names a new member, or a known one with a higher role.
    pub fn add_certificate(&mut self, certificate: String) -> Result<bool, TokenError> {
        if self.members.values().any(|member| member.certificate == certificate) {
            return Ok(false);
        }
        let (node, role) = verify_certificate(&certificate, self.cluster_id, None)?;
        if self.members.get(&node).is_some_and(|member| member.role >= role) {
            return Ok(false);
        }
        self.members.insert(node, Member { certificate, role });
        Ok(true)
    }

    /// Returns the certificates of all members.
    pub fn certificates(&self) -> Vec<String> {
        self.members.values().map(|member| member.certificate.clone()).collect()
    }

    /// Returns the ids of all members.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.keys().copied()
    }

    /// Returns whether a node is a member.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.members.contains_key(&node)
    }

    /// Returns which changes this replica has.
    pub fn versions(&self) -> &VersionVector {
        &self.versions
    }

    /// Returns what this version cannot read.
    pub fn held(&self) -> Held {
        // A worker cannot halt the others: what it runs counts as unknown until its document can be read.
        let held = |node: &NodeId, it: &NodeDocument| {
            let id = DocumentId::Node { node: *node, generation: it.generation };
            let is_server = self.members.get(node).is_some_and(|it| it.role == NodeRole::Server);
            (it.document.is_held() && is_server).then_some(id)
        };
        let mut documents: BTreeSet<DocumentId> =
            self.nodes.iter().filter_map(|(node, it)| held(node, it)).collect();
        documents.extend(self.cluster.is_held().then_some(DocumentId::Cluster));
        let mut unreadable = self.cluster_unreadable.clone();
        unreadable.extend(self.nodes.values().flat_map(|it| it.unreadable.iter().cloned()));
        Held::of(&self.cluster_state, documents, &unreadable)
    }

    /// Gives the documents that this node writes the maps of a schema version, if this version knows it. Call it with a
    /// version that every node which is up supports: others hold the document.
    ///
    /// # Errors
    /// A schema change does not decode.
    pub fn upgrade(&mut self, schema: u32) -> Result<(), DocumentError> {
        self.cluster.upgrade(schema)?;
        match self.nodes.get_mut(&self.id) {
            Some(own) => own.document.upgrade(schema),
            None => Ok(()),
        }
    }

    /// Returns the cluster document.
    pub fn cluster(&self) -> &ClusterState {
        &self.cluster_state
    }

    /// Returns the node documents.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeState> {
        &self.node_states
    }
}

#[cfg(test)]
mod tests;
