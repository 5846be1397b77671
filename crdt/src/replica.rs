//! One node's copy of all documents.

mod checkpoint;
mod receive;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use automerge::ChangeHash;
use vc_protocol::change::{Actor, ChangeError, DocumentId, SignedChange, VersionVector};
use vc_protocol::planted::{PlantedBug, is_planted};
use vc_protocol::token::{NodeRole, SigningKey, TokenError};
use vc_protocol::{ClusterId, Keypair, NodeId};

pub use self::checkpoint::NewGeneration;
use self::checkpoint::Upcoming;
use self::receive::{Incoming, checkpoints_first};
use crate::cluster_document::ClusterDocument;
use crate::document::{Document, DocumentError};
use crate::held::Held;
use crate::known::KnownVersions;
use crate::membership::Membership;
use crate::progress::Progress;
use crate::received::{Received, Rejected, UnreadableEntry};
use crate::schema::{ALERTS, AUTHORITY, HISTORY, RUNS, TOKENS, VOTERS};
use crate::state::{ClusterState, NodeState};
use crate::trust::Trust;

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
    membership: Membership,
    /// Documents of nodes that are no members: to be deleted from the disk.
    dropped: Vec<DocumentId>,
    quarantine: BTreeSet<NodeId>,
    cluster: ClusterDocument,
    cluster_unreadable: Vec<UnreadableEntry>,
    upcoming: Option<Upcoming>,
    nodes: BTreeMap<NodeId, NodeDocument>,
    progress: Progress,
    cluster_state: ClusterState,
    node_states: BTreeMap<NodeId, NodeState>,
    actor: Option<Actor>,
    /// The changes on the disk that follow a damaged one, or depend on it. They count once peers have sent what is missing: they
    /// may have no others.
    stranded: BTreeMap<(DocumentId, Actor), BTreeMap<u64, SignedChange>>,
    /// The damaged changes of the cluster document that those depend on.
    missing: BTreeSet<ChangeHash>,
}

impl Replica {
    /// Builds a replica from the certificates and changes on the disk, in any order.
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
            membership: Membership::new(cluster_id),
            dropped: Vec::new(),
            quarantine: BTreeSet::new(),
            cluster: ClusterDocument::new(knows.cluster)?,
            cluster_unreadable: Vec::new(),
            upcoming: None,
            nodes: BTreeMap::new(),
            progress: Progress::default(),
            cluster_state: ClusterState::default(),
            node_states: BTreeMap::new(),
            actor: None,
            stranded: BTreeMap::new(),
            missing: BTreeSet::new(),
        };
        let mut received = Received::default();
        for certificate in certificates {
            if let Err(error) = replica.membership.load(id, certificate) {
                received.rejected.push(error.into());
            }
        }
        replica.membership.follow(&BTreeMap::new());
        let mut stored = Vec::with_capacity(changes.len());
        for signed in changes {
            // It was verified when it came, but disks flip bits.
            let checked = match is_planted(PlantedBug::UncheckedDisk) {
                false => signed.check_signature(),
                true => signed.decode_unverified().map_err(ChangeError::from),
            };
            match checked {
                Ok(body) => stored.push((body, signed)),
                Err(error) => received.rejected.push(error.into()),
            }
        }
        stored.sort_by_key(|(body, _)| (body.document, body.actor, body.seq));
        checkpoints_first(&mut stored);
        // What follows a change that is missing on the disk is left out until a peer has sent that one.
        let mut next = Progress::default();
        let mut decoded = Vec::with_capacity(stored.len());
        for (body, signed) in stored {
            let (author, seq) = (body.author, body.seq);
            if !next.follows(&body) {
                received.rejected.push(Rejected::Gap { author, seq });
                replica.strand(&body, signed);
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
        if !received.rejected.is_empty() {
            decoded = replica.strand_incomplete(decoded, &mut received);
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
    ///
    /// # Errors
    /// It is invalid, or of a signing key that does not count.
    pub fn add_certificate(&mut self, certificate: &str) -> Result<bool, TokenError> {
        self.membership.add(certificate)
    }

    /// Returns the certificates that count: of all members, and of the former ones whose changes are kept.
    pub fn certificates(&self) -> Vec<String> {
        let certified = self.membership.certified().values();
        certified.map(|member| member.certificate.clone()).collect()
    }

    /// Returns the certificate of this node; `None` if it has none of the signing key that counts.
    pub fn own_certificate(&self) -> Option<&str> {
        let own = self.membership.get(self.id).filter(|own| !own.is_former);
        own.map(|own| own.certificate.as_str())
    }

    /// Returns the signing key whose certificates count.
    pub fn signing_key(&self) -> SigningKey {
        self.membership.signing()
    }

    /// Returns the ids of all members.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.membership.members().map(|(node, _)| node)
    }

    /// Returns the members that may write the cluster document, in order.
    pub fn servers(&self) -> impl Iterator<Item = NodeId> + '_ {
        let servers = self.membership.members().filter(|(_, it)| it.role == NodeRole::Server);
        servers.map(|(node, _)| node)
    }

    /// Returns whether a node is a member.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.membership.get(node).is_some_and(|member| !member.is_former)
    }

    /// Returns who is trusted, for the view.
    pub fn trust(&self) -> Trust {
        let is_present = |node: &NodeId| !self.cluster_state.left.contains_key(node);
        let members = self.membership.members().filter(|(node, _)| is_present(node));
        let ever = self.membership.ever();
        let actors: BTreeSet<&Actor> =
            self.progress.versions.cluster.values().flat_map(BTreeMap::keys).collect();
        let wrote = |node: &NodeId| {
            let own = Actor::new(*node, 0);
            self.nodes.contains_key(node) || actors.iter().any(|it| it.is_same_author(&own))
        };
        Trust {
            signing: Some(self.membership.signing()),
            members: members.map(|(node, member)| (node, member.role)).collect(),
            certified: self.membership.certified().keys().copied().collect(),
            authors: ever
                .iter()
                .filter(|(it, _)| wrote(it))
                .map(|(&it, &role)| (it, role))
                .collect(),
        }
    }

    /// Returns the documents that were dropped since the last call, as their nodes are no members: their changes can be deleted
    /// from the disk.
    pub fn take_dropped(&mut self) -> Vec<DocumentId> {
        std::mem::take(&mut self.dropped)
    }

    /// Follows the signing key that the cluster document names. Documents of nodes without a certificate are dropped when
    /// another key counts: no node that learns of them later would accept them.
    fn follow_signing_key(&mut self) {
        if !self.membership.follow(&self.cluster_state.trust) {
            return;
        }
        let is_kept = |node: NodeId| node == self.id || self.membership.get(node).is_some();
        let of = self.nodes.iter().filter(|(node, _)| !is_kept(**node));
        let dropped: Vec<(NodeId, u64)> =
            of.map(|(&node, document)| (node, document.generation)).collect();
        for (node, generation) in dropped {
            self.nodes.remove(&node);
            self.node_states.remove(&node);
            self.progress.versions.nodes.remove(&node);
            self.dropped.push(DocumentId::Node { node, generation });
        }
    }

    /// Returns which changes this replica has.
    pub fn versions(&self) -> &VersionVector {
        &self.progress.versions
    }

    /// Returns the generation of a node's document, which each start of the node renews; 0 without a document.
    pub fn generation_of(&self, node: NodeId) -> u64 {
        self.progress.versions.nodes.get(&node).map_or(0, |&(generation, _)| generation)
    }

    /// Returns what this version cannot read.
    pub fn held(&self) -> Held {
        // A worker cannot halt the others: of its document counts what can be read.
        let counts = |node: NodeId| {
            let is_server = self
                .membership
                .get(node)
                .is_some_and(|it| it.role == NodeRole::Server && !it.is_former);
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
        let all: Vec<u32> = schemas.collect();
        let newest = is_planted(PlantedBug::NewestSchema);
        let schema = if newest { all.iter().max() } else { all.iter().min() };
        let schema = schema.copied().unwrap_or(1);
        self.cluster.upgrade(schema)?;
        match self.nodes.get_mut(&self.id) {
            Some(own) => own.document.upgrade(schema),
            None => Ok(()),
        }
    }

    fn cluster_document(&self) -> DocumentId {
        DocumentId::Cluster { generation: self.generation() }
    }

    /// Returns the version of the schema of the documents that this node writes: the newest that it has maps of.
    pub fn schema(&self) -> u32 {
        self.cluster.present().version().max(self.own_schema())
    }

    fn own_schema(&self) -> u32 {
        self.nodes.get(&self.id).map_or(0, |own| own.document.version())
    }

    /// Returns whether this node's document has the map of runs.
    pub fn has_runs(&self) -> bool {
        self.own_schema() >= RUNS
    }

    /// Returns whether the cluster document has the maps of tokens and revocations.
    pub fn has_tokens(&self) -> bool {
        self.schema() >= TOKENS
    }

    /// Returns whether the cluster document has the maps of policies, uses of join tokens and signing keys.
    pub fn has_authority(&self) -> bool {
        self.schema() >= AUTHORITY
    }

    /// Returns whether the cluster document has the map of replaced versions of services.
    pub fn has_history(&self) -> bool {
        self.schema() >= HISTORY
    }

    /// Returns whether the cluster document has the map of voters.
    pub fn has_voters(&self) -> bool {
        self.schema() >= VOTERS
    }

    /// Returns whether the cluster document has the maps of receivers of alerts.
    pub fn has_receivers(&self) -> bool {
        self.cluster.present().version() >= ALERTS
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
