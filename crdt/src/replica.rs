//! One node's copy of every document.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::change::{
    Actor, Batch, ChangeBody, ChangeError, DocumentId, SignedChange, Subject, VersionVector,
};
use vc_protocol::token::{NodeRole, TokenError, verify_certificate};
use vc_protocol::{ClusterId, Keypair, Millis, NodeId};

use crate::document::{Document, DocumentError, decode};
use crate::received::{Received, Rejected};
use crate::state::{CLUSTER, ClusterState, NODE, NodeState};

/// A member, by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    certificate: String,
    role: NodeRole,
}

/// A node's document with what was read out of it.
struct NodeDocument {
    generation: u64,
    seq: u64,
    document: Document,
}

/// All documents, as this node has them.
pub struct Replica {
    id: NodeId,
    key: Keypair,
    cluster_id: ClusterId,
    members: BTreeMap<NodeId, Member>,
    quarantine: BTreeSet<NodeId>,
    cluster: Document,
    nodes: BTreeMap<NodeId, NodeDocument>,
    versions: VersionVector,
    cluster_state: ClusterState,
    node_states: BTreeMap<NodeId, NodeState>,
    actor: Option<Actor>,
}

impl Replica {
    /// A copy that holds what the disk has: certificates and changes, in any order. Errors: Automerge cannot make a
    /// document at all.
    pub fn load(
        key: Keypair,
        id: NodeId,
        cluster_id: ClusterId,
        certificates: Vec<String>,
        changes: Vec<SignedChange>,
    ) -> Result<Self, DocumentError> {
        let mut replica = Self {
            id,
            key,
            cluster_id,
            members: BTreeMap::new(),
            quarantine: BTreeSet::new(),
            cluster: Document::new(CLUSTER)?,
            nodes: BTreeMap::new(),
            versions: VersionVector::default(),
            cluster_state: ClusterState::default(),
            node_states: BTreeMap::new(),
            actor: None,
        };
        for certificate in certificates {
            // A certificate that does not hold could not have come to the disk; one that rots there is left out.
            let _ = replica.add_certificate(certificate);
        }
        let mut bodies: Vec<ChangeBody> =
            changes.iter().filter_map(|change| change.decode_unverified().ok()).collect();
        bodies.sort_by_key(|body| (body.document, body.actor, body.seq));
        replica.enter(bodies, &mut Received::default());
        Ok(replica)
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Takes up a certificate; `Ok(true)`: it is a new member.
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

    /// All members, with their certificates.
    pub fn certificates(&self) -> Vec<String> {
        self.members.values().map(|member| member.certificate.clone()).collect()
    }

    /// The members' ids.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.keys().copied()
    }

    /// Whether a node is a member.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.members.contains_key(&node)
    }

    /// How much this copy has.
    pub fn versions(&self) -> &VersionVector {
        &self.versions
    }

    /// What users want.
    pub fn cluster(&self) -> &ClusterState {
        &self.cluster_state
    }

    /// What nodes say of themselves.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeState> {
        &self.node_states
    }

    /// The actor for our writes to the cluster document. One installation keeps one, unless `may_reuse` is false:
    /// a data directory that came back from a backup would use sequence numbers twice.
    fn actor(&mut self, may_reuse: bool, nonce: u64) -> Actor {
        let id = self.id;
        let held =
            || self.versions.cluster.keys().rev().find(|actor| actor.belongs_to(id)).copied();
        let actor = self.actor.or_else(|| may_reuse.then(held).flatten());
        *self.actor.insert(actor.unwrap_or_else(|| Actor::new(id, nonce)))
    }

    /// Writes the difference to `wanted` into the cluster document; `None`: there is none. `may_reuse`: a peer or the
    /// lack of any has confirmed that nobody has later changes of our actor; otherwise a new one is made of `nonce`.
    pub fn write_cluster(
        &mut self,
        wanted: &ClusterState,
        by: Option<Subject>,
        now: Millis,
        may_reuse: bool,
        nonce: u64,
    ) -> Result<Option<SignedChange>, DocumentError> {
        let edits = self.cluster_state.edits(wanted);
        let actor = self.actor(may_reuse, nonce);
        let Some(written) = self.cluster.write(&actor, &edits, now)? else { return Ok(None) };
        self.versions.cluster.insert(actor, written.seq);
        self.cluster_state = ClusterState::read(&self.cluster);
        let document = DocumentId::Cluster;
        Ok(Some(self.sign(document, actor, written.seq, by, now, written.bytes)))
    }

    /// Writes the difference to `wanted` into our own node document; `None`: there is none.
    pub fn write_node(
        &mut self,
        wanted: &NodeState,
        now: Millis,
    ) -> Result<Option<SignedChange>, DocumentError> {
        let none = NodeState::default();
        let held = self.node_states.get(&self.id).unwrap_or(&none);
        if held == wanted {
            return Ok(None);
        }
        let edits = held.edits(wanted);
        let generation = self.nodes.get(&self.id).map_or(1, |own| own.generation);
        self.append_own(generation, &edits, wanted, now)
    }

    /// Begins a new generation of our own document with `state`: its history is left behind. Generations follow the
    /// clock, so that a data directory from a backup does not repeat one.
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

    /// Changes in our own document's present generation.
    pub fn own_change_count(&self) -> u64 {
        self.nodes.get(&self.id).map_or(0, |own| own.seq)
    }

    fn append_own(
        &mut self,
        generation: u64,
        edits: &[crate::document::Edit],
        wanted: &NodeState,
        now: Millis,
    ) -> Result<Option<SignedChange>, DocumentError> {
        let actor = Actor::new(self.id, generation);
        let own = match self.nodes.entry(self.id) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(NodeDocument { generation, seq: 0, document: Document::new(NODE)? })
            }
        };
        let Some(written) = own.document.write(&actor, edits, now)? else { return Ok(None) };
        own.seq = written.seq;
        self.versions.nodes.insert(self.id, (generation, written.seq));
        self.node_states.insert(self.id, wanted.clone());
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

    /// Our own certificate and these changes, for gossip.
    pub fn batch(&self, changes: Vec<SignedChange>) -> Batch {
        let own = self.members.get(&self.id).map(|member| member.certificate.clone());
        Batch { certificates: own.into_iter().collect(), changes }
    }

    /// Checks a batch and applies what holds. Changes that are here already, or whose predecessors are not here yet,
    /// are passed over in silence: anti-entropy brings them again, in order.
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
            // Cheap first: most of what comes is known already.
            let Ok(claimed) = change.decode_unverified() else {
                received.rejected.push(ChangeError::TooLarge(change.encoded_len()).into());
                continue;
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
        self.enter(bodies, &mut received);
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

    /// Applies checked changes, document by document, and notes in `received` which of them did not hold after all.
    fn enter(&mut self, bodies: Vec<ChangeBody>, received: &mut Received) {
        let mut by_document: BTreeMap<DocumentId, Vec<ChangeBody>> = BTreeMap::new();
        for body in bodies {
            by_document.entry(body.document).or_default().push(body);
        }
        let mut refused = BTreeSet::new();
        for (document, bodies) in by_document {
            if self.enter_document(document, &bodies, received).is_ok() {
                continue;
            }
            // Some of them do not hold. Now one by one, so that nobody pays for what another wrote.
            for body in &bodies {
                if follows(&self.versions, body) {
                    let Err(error) =
                        self.enter_document(document, std::slice::from_ref(body), received)
                    else {
                        continue;
                    };
                    if error == DocumentError::Poisonous {
                        self.quarantine.insert(body.author);
                    }
                    received.rejected.push(Rejected::Document { author: body.author, error });
                }
                refused.insert((document, body.actor, body.seq));
            }
        }
        if !refused.is_empty() {
            let holds =
                |body: ChangeBody| !refused.contains(&(body.document, body.actor, body.seq));
            received.accepted.retain(|change| change.decode_unverified().is_ok_and(holds));
        }
    }

    fn enter_document(
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
                self.cluster_state = ClusterState::read(&self.cluster);
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
                    self.node_states.insert(node, NodeState::read(&held.document));
                } else {
                    let mut document = Document::new(NODE)?;
                    document.apply(changes)?;
                    received
                        .replaced
                        .extend(held.map(|old| DocumentId::Node { node, generation: old }));
                    self.node_states.insert(node, NodeState::read(&document));
                    self.nodes.insert(node, NodeDocument { generation, seq: last.seq, document });
                }
            }
        }
        for body in bodies {
            advance(&mut self.versions, body);
        }
        Ok(())
    }
}

/// Whether a change is the next of its actor.
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
