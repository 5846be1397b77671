//! One node's copy of all documents.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::change::{
    Actor, Batch, ChangeBody, ChangeError, DocumentId, SignedChange, Subject, VersionVector,
};
use vc_protocol::token::{NodeRole, TokenError, verify_certificate};
use vc_protocol::{ClusterId, Keypair, Millis, NodeId};

use crate::document::{Document, DocumentError, decode};
use crate::received::{Received, Rejected, UnreadableEntry};
use crate::state::{CLUSTER, ClusterState, NODE, NodeState};

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

    /// Returns the cluster document.
    pub fn cluster(&self) -> &ClusterState {
        &self.cluster_state
    }

    /// Returns the node documents.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeState> {
        &self.node_states
    }

    /// Returns the actor for this node's writes to the cluster document. It is kept across restarts, unless `may_reuse` is
    /// false: a data directory restored from a backup would use sequence numbers twice.
    fn actor(&mut self, may_reuse: bool, nonce: u64) -> Actor {
        let id = self.id;
        let held =
            || self.versions.cluster.keys().rev().find(|actor| actor.belongs_to(id)).copied();
        let actor = self.actor.or_else(|| may_reuse.then(held).flatten());
        *self.actor.insert(actor.unwrap_or_else(|| Actor::new(id, nonce)))
    }

    /// Writes the difference to `desired` into the cluster document. Returns `None` if there is none.
    ///
    /// Set `may_reuse` once it is known that no peer has later changes of this node's actor; otherwise a new actor is made
    /// from `nonce`.
    pub fn write_cluster(
        &mut self,
        desired: &ClusterState,
        by: Option<Subject>,
        now: Millis,
        may_reuse: bool,
        nonce: u64,
    ) -> Result<Option<SignedChange>, DocumentError> {
        let edits = self.cluster_state.edits(desired);
        let actor = self.actor(may_reuse, nonce);
        let Some(written) = self.cluster.write(&actor, &edits, now)? else { return Ok(None) };
        self.versions.cluster.insert(actor, written.seq);
        (self.cluster_state, self.cluster_unreadable) = ClusterState::read(&self.cluster);
        let document = DocumentId::Cluster;
        Ok(Some(self.sign(document, actor, written.seq, by, now, written.bytes)))
    }

    /// Writes the difference to `desired` into this node's document. Returns `None` if there is none.
    pub fn write_node(
        &mut self,
        desired: &NodeState,
        now: Millis,
    ) -> Result<Option<SignedChange>, DocumentError> {
        let none = NodeState::default();
        let held = self.node_states.get(&self.id).unwrap_or(&none);
        if held == desired {
            return Ok(None);
        }
        let edits = held.edits(desired);
        let generation = self.nodes.get(&self.id).map_or(1, |own| own.generation);
        self.append_own(generation, &edits, desired, now)
    }

    /// Starts a new generation of this node's document with `state` and without history. Generations follow the clock, so
    /// that a data directory restored from a backup does not repeat one.
    pub fn start_generation(
        &mut self,
        state: &NodeState,
        now: Millis,
    ) -> Result<Option<SignedChange>, DocumentError> {
        let generation = self.nodes.get(&self.id).map_or(0, |own| own.generation + 1).max(now);
        self.nodes.remove(&self.id);
        let edits = NodeState::default().edits(state);
        self.append_own(generation, &edits, state, now)
    }

    /// Returns the number of changes in the present generation of this node's document.
    pub fn own_change_count(&self) -> u64 {
        self.nodes.get(&self.id).map_or(0, |own| own.seq)
    }

    fn append_own(
        &mut self,
        generation: u64,
        edits: &[crate::document::Edit],
        desired: &NodeState,
        now: Millis,
    ) -> Result<Option<SignedChange>, DocumentError> {
        let actor = Actor::new(self.id, generation);
        let own = match self.nodes.entry(self.id) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(NodeDocument {
                generation,
                seq: 0,
                document: Document::new(NODE)?,
                unreadable: Vec::new(),
            }),
        };
        let Some(written) = own.document.write(&actor, edits, now)? else { return Ok(None) };
        own.seq = written.seq;
        self.versions.nodes.insert(self.id, (generation, written.seq));
        self.node_states.insert(self.id, desired.clone());
        let document = DocumentId::Node { node: self.id, generation };
        Ok(Some(self.sign(document, actor, written.seq, None, now, written.bytes)))
    }

    fn sign(
        &self,
        document: DocumentId,
        actor: Actor,
        seq: u64,
        by: Option<Subject>,
        at: Millis,
        bytes: Vec<u8>,
    ) -> SignedChange {
        let body = ChangeBody {
            cluster: self.cluster_id,
            document,
            actor,
            seq,
            author: self.id,
            on_behalf_of: by,
            timestamp: at,
            payload: bytes,
        };
        SignedChange::sign(&body, &self.key)
    }

    /// Returns these changes with this node's certificate, for gossip.
    pub fn batch(&self, changes: Vec<SignedChange>) -> Batch {
        let own = self.members.get(&self.id).map(|member| member.certificate.clone());
        Batch { certificates: own.into_iter().collect(), changes }
    }

    /// Verifies a batch and applies what is valid. Changes that are known already, or whose predecessors are missing, are
    /// skipped: anti-entropy sends the missing ones again, in order.
    pub fn receive(&mut self, batch: Batch) -> Received {
        let mut received = Received::default();
        for certificate in batch.certificates {
            match self.add_certificate(certificate.clone()) {
                Ok(true) => received.certificates.push(certificate),
                Ok(false) => {}
                Err(error) => received.rejected.push(error.into()),
            }
        }
        let mut next = self.versions.clone();
        let mut bodies = Vec::new();
        for change in batch.changes {
            // Most changes are known already: skip them before the signature is checked.
            let claimed = match change.decode_unverified() {
                Ok(claimed) => claimed,
                Err(error) => {
                    received.rejected.push(ChangeError::Malformed(error).into());
                    continue;
                }
            };
            if !follows(&next, &claimed) {
                continue;
            }
            match self.check(&change) {
                Ok(body) => {
                    advance(&mut next, &body);
                    received.accepted.push(change);
                    bodies.push(body);
                }
                Err(error) => received.rejected.push(error),
            }
        }
        self.apply_all(bodies, &mut received);
        received
    }

    fn check(&self, change: &SignedChange) -> Result<ChangeBody, Rejected> {
        let body = change.verify(self.cluster_id)?;
        if !self.members.contains_key(&body.author) {
            return Err(Rejected::NotAMember(body.author));
        }
        if self.quarantine.contains(&body.author) {
            return Err(Rejected::Quarantined(body.author));
        }
        Ok(body)
    }

    /// Applies verified changes document by document, and records in `received` which of them are invalid after all.
    fn apply_all(&mut self, bodies: Vec<ChangeBody>, received: &mut Received) {
        let mut by_document: BTreeMap<DocumentId, Vec<ChangeBody>> = BTreeMap::new();
        for body in bodies {
            by_document.entry(body.document).or_default().push(body);
        }
        let mut refused = BTreeSet::new();
        for (document, bodies) in by_document {
            if self.apply(document, &bodies, received).is_ok() {
                continue;
            }
            // Some are invalid: apply them one by one, so that the valid ones of other authors are not lost.
            for body in &bodies {
                if follows(&self.versions, body) {
                    let Err(error) = self.apply(document, std::slice::from_ref(body), received)
                    else {
                        continue;
                    };
                    if error == DocumentError::Panicked {
                        self.quarantine.insert(body.author);
                    }
                    received.rejected.push(Rejected::Document { author: body.author, error });
                }
                refused.insert((document, body.actor, body.seq));
            }
        }
        if !refused.is_empty() {
            let is_valid =
                |body: ChangeBody| !refused.contains(&(body.document, body.actor, body.seq));
            received.accepted.retain(|change| change.decode_unverified().is_ok_and(is_valid));
        }
    }

    fn apply(
        &mut self,
        id: DocumentId,
        bodies: &[ChangeBody],
        received: &mut Received,
    ) -> Result<(), DocumentError> {
        let mut changes = Vec::with_capacity(bodies.len());
        for body in bodies {
            changes.push(decode(&body.payload, &body.actor, body.seq)?);
        }
        let Some(last) = bodies.last() else { return Ok(()) };
        match id {
            DocumentId::Cluster => {
                self.cluster.apply(changes)?;
                let (state, unreadable) = ClusterState::read(&self.cluster);
                report_new(&self.cluster_unreadable, &unreadable, received);
                (self.cluster_state, self.cluster_unreadable) = (state, unreadable);
            }
            DocumentId::Node { node, generation } => {
                let held = self.nodes.get(&node).map(|held| held.generation);
                if held.is_some_and(|held| held > generation) {
                    return Ok(());
                }
                if held == Some(generation)
                    && let Some(held) = self.nodes.get_mut(&node)
                {
                    held.document.apply(changes)?;
                    held.seq = last.seq;
                    let (state, unreadable) = NodeState::read(&held.document, id);
                    report_new(&held.unreadable, &unreadable, received);
                    held.unreadable = unreadable;
                    self.node_states.insert(node, state);
                } else {
                    let mut document = Document::new(NODE)?;
                    document.apply(changes)?;
                    received
                        .replaced
                        .extend(held.map(|old| DocumentId::Node { node, generation: old }));
                    let (state, unreadable) = NodeState::read(&document, id);
                    report_new(&[], &unreadable, received);
                    self.node_states.insert(node, state);
                    let own = NodeDocument { generation, seq: last.seq, document, unreadable };
                    self.nodes.insert(node, own);
                }
            }
        }
        for body in bodies {
            advance(&mut self.versions, body);
        }
        Ok(())
    }
}

/// Adds the entries to `received` that were readable, or not there, before.
fn report_new(before: &[UnreadableEntry], now: &[UnreadableEntry], received: &mut Received) {
    let is_new = |entry: &&UnreadableEntry| {
        !before.iter().any(|it| it.map == entry.map && it.key == entry.key)
    };
    received.unreadable.extend(now.iter().filter(is_new).cloned());
}

/// Returns whether a change is the next one of its actor.
fn follows(versions: &VersionVector, body: &ChangeBody) -> bool {
    match body.document {
        DocumentId::Cluster => {
            body.seq == versions.cluster.get(&body.actor).copied().unwrap_or(0) + 1
        }
        DocumentId::Node { node, generation } => match versions.nodes.get(&node) {
            Some(&(held, seq)) if held == generation => body.seq == seq + 1,
            Some(&(held, _)) if held > generation => false,
            _ => body.seq == 1,
        },
    }
}

fn advance(versions: &mut VersionVector, body: &ChangeBody) {
    match body.document {
        DocumentId::Cluster => {
            versions.cluster.insert(body.actor, body.seq);
        }
        DocumentId::Node { node, generation } => {
            versions.nodes.insert(node, (generation, body.seq));
        }
    }
}

#[cfg(test)]
mod tests;
