//! One node's copy of all documents.

mod checkpoint;
mod receive;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::change::{Actor, ChangeError, DocumentId, SignedChange, VersionVector};
use vc_protocol::token::{NodeRole, TokenError, verify_certificate};
use vc_protocol::{ClusterId, Keypair, NodeId};

pub use self::checkpoint::NewGeneration;
use self::checkpoint::Upcoming;
use self::receive::{Incoming, checkpoints_first};
use crate::cluster_document::ClusterDocument;
use crate::document::{Document, DocumentError};
use crate::held::Held;
use crate::known::KnownVersions;
use crate::progress::Progress;
use crate::received::{Received, Rejected, UnreadableEntry};
use crate::schema::{AUTHORITY, TOKENS};
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
    /// The changes that were valid.
    pub accepted: Vec<SignedChange>,
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
    knows: KnownVersions,
    members: BTreeMap<NodeId, Member>,
    quarantine: BTreeSet<NodeId>,
    cluster: ClusterDocument,
    cluster_unreadable: Vec<UnreadableEntry>,
    upcoming: Option<Upcoming>,
    nodes: BTreeMap<NodeId, NodeDocument>,
    progress: Progress,
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
        knows: KnownVersions,
        certificates: Vec<String>,
        changes: Vec<SignedChange>,
    ) -> Result<Loaded, DocumentError> {
        let mut replica = Self {
            id,
            key,
            cluster_id,
            knows,
            members: BTreeMap::new(),
            quarantine: BTreeSet::new(),
            cluster: ClusterDocument::new(knows.cluster)?,
            cluster_unreadable: Vec::new(),
            upcoming: None,
            nodes: BTreeMap::new(),
            progress: Progress::default(),
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
        let mut stored = Vec::with_capacity(changes.len());
        for signed in changes {
            match signed.decode_unverified() {
                Ok(body) => stored.push((body, signed)),
                Err(error) => received.rejected.push(ChangeError::Malformed(error).into()),
            }
        }
        stored.sort_by_key(|(body, _)| (body.document, body.actor, body.seq));
        checkpoints_first(&mut stored);
        // What follows a change that is missing on the disk is left out: peers send both again.
        let mut next = Progress::default();
        let mut decoded = Vec::with_capacity(stored.len());
        for (body, signed) in stored {
            let (author, seq) = (body.author, body.seq);
            if !next.follows(&body) {
                received.rejected.push(Rejected::Gap { author, seq });
                continue;
            }
            match Incoming::decode(body, signed) {
                Ok(change) => {
                    next.advance(&change.body);
                    decoded.push(change);
                }
                Err(error) => received.rejected.push(Rejected::Document { author, error }),
            }
        }
        replica.apply_all(decoded, &mut received);
        let Received { accepted, rejected, unreadable, .. } = received;
        Ok(Loaded { replica, accepted, rejected, unreadable })
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

    /// Returns the members that may write the cluster document, in order.
    pub fn servers(&self) -> impl Iterator<Item = NodeId> + '_ {
        let servers = self.members.iter().filter(|(_, member)| member.role == NodeRole::Server);
        servers.map(|(&node, _)| node)
    }

    /// Returns whether a node is a member.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.members.contains_key(&node)
    }

    /// Returns which changes this replica has.
    pub fn versions(&self) -> &VersionVector {
        &self.progress.versions
    }

    /// Returns what this version cannot read.
    pub fn held(&self) -> Held {
        // A worker cannot halt the others: of its document counts what can be read.
        let counts = |node: NodeId| {
            let is_server = self.members.get(&node).is_some_and(|it| it.role == NodeRole::Server);
            is_server || node == self.id
        };
        let held = |node: &NodeId, it: &NodeDocument| {
            let id = DocumentId::Node { node: *node, generation: it.generation };
            (it.document.needs_newer_version() && counts(*node)).then_some(id)
        };
        let mut documents: BTreeSet<DocumentId> =
            self.nodes.iter().filter_map(|(node, it)| held(node, it)).collect();
        // Until the checkpoint is complete nothing is known of what it contains.
        let is_unknown = self.upcoming.is_some() && self.progress.versions.cluster.is_empty();
        let is_held = self.cluster.is_held() || is_unknown;
        documents.extend(is_held.then(|| self.cluster_document()));
        let mut unreadable = self.cluster_unreadable.clone();
        unreadable.extend(self.nodes.values().flat_map(|it| it.unreadable.iter().cloned()));
        Held::of(&self.cluster_state, documents, &unreadable)
    }

    /// Gives the documents that this node writes the maps of the newest schema that all nodes of the cluster support, as far
    /// as this version knows it. Nodes that are down count: they would hold the documents when they return.
    ///
    /// # Errors
    /// A schema change does not decode.
    pub fn upgrade(&mut self) -> Result<(), DocumentError> {
        let supports = |node| self.node_states.get(&node).and_then(|state| state.info.as_ref());
        let schemas = self.present_members();
        let schemas = schemas.map(|node| supports(node).map_or(1, |info| info.supports.schema));
        let schema = schemas.min().unwrap_or(1);
        self.cluster.upgrade(schema)?;
        match self.nodes.get_mut(&self.id) {
            Some(own) => own.document.upgrade(schema),
            None => Ok(()),
        }
    }

    fn cluster_document(&self) -> DocumentId {
        DocumentId::Cluster { generation: self.generation() }
    }

    /// Returns the version of the cluster document's schema.
    pub fn schema(&self) -> u32 {
        self.cluster.present().version()
    }

    /// Returns whether the cluster document has the maps of tokens and revocations.
    pub fn has_tokens(&self) -> bool {
        self.schema() >= TOKENS
    }

    /// Returns whether the cluster document has the maps of policies, uses of join tokens and signing keys.
    pub fn has_authority(&self) -> bool {
        self.schema() >= AUTHORITY
    }

    /// Returns what this version knows.
    pub fn knows(&self) -> &KnownVersions {
        &self.knows
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
