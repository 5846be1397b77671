//! Verification and application of changes, from the disk or from a peer.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use automerge::ChangeHash;
use vc_protocol::NodeId;
use vc_protocol::change::{Actor, Batch, ChangeBody, ChangeError, DocumentId, SignedChange};
use vc_protocol::token::{NodeRole, TokenError};

use super::checkpoint::Upcoming;
use super::{NodeDocument, Replica};
use crate::document::{Document, DocumentError, decode};
use crate::membership::Member;
use crate::received::{Received, Rejected, UnreadableEntry};
use crate::state::NodeState;

/// A change with its decoded parts.
pub(super) struct Incoming {
    /// The content that the author signed, without the payload.
    pub(super) body: ChangeBody,
    pub(super) change: automerge::Change,
    pub(super) signed: SignedChange,
}

impl Incoming {
    /// Decodes the payload of a change.
    pub(super) fn decode(
        mut body: ChangeBody,
        signed: SignedChange,
    ) -> Result<Self, DocumentError> {
        let payload = std::mem::take(&mut body.payload);
        let change = decode(payload, &body.actor, body.seq)?;
        Ok(Self { body, change, signed })
    }
}

impl Replica {
    /// Verifies a batch and applies what is valid. Changes that are known already, or that depend on changes which are
    /// missing, are skipped: anti-entropy sends the missing ones again. Only a node of a newer version may depend on what
    /// this one does not know; the document is held then.
    pub fn receive(&mut self, batch: Batch) -> Received {
        let mut received = Received::default();
        self.add_certificates(&batch.certificates, &mut received);
        let signing = self.signing_key();
        let mut claimed = Vec::with_capacity(batch.changes.len());
        for signed in batch.changes {
            match signed.decode_unverified() {
                Ok(body) => claimed.push((body, signed)),
                Err(error) => received.rejected.push(ChangeError::Malformed(error).into()),
            }
        }
        self.add_stranded(&mut claimed);
        checkpoints_first(&mut claimed);
        // Who may write a generation is known once its checkpoint is complete.
        loop {
            let generation = self.generation();
            let later = self.split_off_later(&mut claimed);
            self.receive_changes(claimed, true, &mut received);
            if later.is_empty() || self.generation() == generation {
                break;
            }
            claimed = later;
        }
        if self.signing_key() != signing {
            self.add_certificates(&batch.certificates, &mut received);
        }
        self.receive_stranded(&mut received);
        received.replaced.extend(self.take_dropped());
        self.forget_stranded(&received);
        received
    }

    /// Keeps a change of the disk that cannot count without others.
    pub(super) fn strand(&mut self, body: &ChangeBody, signed: SignedChange) {
        self.stranded.entry((body.document, body.actor)).or_default().insert(body.seq, signed);
    }

    /// Of the changes on a disk that has lost some, leaves out those of the cluster document that depend on the lost ones. Applies
    /// those of node documents, which say whose changes may depend on what this version does not know. Returns the others.
    pub(super) fn strand_incomplete(
        &mut self,
        stored: Vec<Incoming>,
        received: &mut Received,
    ) -> Vec<Incoming> {
        let (of_nodes, of_cluster): (Vec<_>, Vec<_>) =
            stored.into_iter().partition(|it| matches!(it.body.document, DocumentId::Node { .. }));
        self.apply_all(of_nodes, received);
        let incomplete = self.incomplete(&of_cluster, true);
        let stored: BTreeSet<ChangeHash> = of_cluster.iter().map(|it| it.change.hash()).collect();
        let mut complete = Vec::with_capacity(of_cluster.len());
        for (index, change) in of_cluster.into_iter().enumerate() {
            if !incomplete.contains(&index) {
                complete.push(change);
                continue;
            }
            let (author, seq) = (change.body.author, change.body.seq);
            received.rejected.push(Rejected::Gap { author, seq });
            let missing = change.change.deps().iter().filter(|hash| !stored.contains(hash));
            self.missing.extend(missing);
            self.strand(&change.body, change.signed);
        }
        complete
    }

    /// Adds what the disk holds after changes that it has lost and a peer sends again.
    fn add_stranded(&self, claimed: &mut Vec<(ChangeBody, SignedChange)>) {
        if self.stranded.is_empty() {
            return;
        }
        let sent: BTreeSet<(DocumentId, Actor)> =
            claimed.iter().map(|(body, _)| (body.document, body.actor)).collect();
        let stranded = sent.iter().filter_map(|key| self.stranded.get(key)).flatten();
        for (_, signed) in stranded {
            claimed.extend(signed.decode_unverified().map(|body| (body, signed.clone())));
        }
    }

    /// Takes in what was set aside once something has come that it depends on.
    fn receive_stranded(&mut self, received: &mut Received) {
        let Some(document) = self.cluster_generation(self.generation()) else { return };
        let come: Vec<ChangeHash> =
            self.missing.iter().filter(|hash| document.has(hash)).copied().collect();
        if come.is_empty() {
            return;
        }
        self.missing.retain(|hash| !come.contains(hash));
        let stranded = self.stranded.values().flat_map(BTreeMap::values);
        let claimed = stranded
            .filter_map(|signed| Some((signed.decode_unverified().ok()?, signed.clone())))
            .collect();
        // What is invalid by now was not sent by the peer.
        let rejected = received.rejected.len();
        self.receive_changes(claimed, false, received);
        received.rejected.truncate(rejected);
    }

    /// Forgets what counts now of what was set aside, and that of documents which were replaced.
    fn forget_stranded(&mut self, received: &Received) {
        if self.stranded.is_empty() {
            return;
        }
        self.stranded.retain(|(document, _), _| !received.replaced.contains(document));
        let accepted = received.accepted.iter();
        for body in accepted.filter_map(|change| change.decode_unverified().ok()) {
            let key = (body.document, body.actor);
            if let Some(stranded) = self.stranded.get_mut(&key) {
                stranded.retain(|seq, _| *seq > body.seq);
            }
        }
        self.stranded.retain(|_, stranded| !stranded.is_empty());
    }

    /// Splits off the changes of a later generation that are not part of its checkpoint.
    fn split_off_later(
        &self,
        claimed: &mut Vec<(ChangeBody, SignedChange)>,
    ) -> Vec<(ChangeBody, SignedChange)> {
        let generation = |body: &ChangeBody| match body.document {
            DocumentId::Cluster { generation } => generation,
            DocumentId::Node { .. } => 0,
        };
        let started = claimed.iter().filter_map(|(body, _)| {
            Some(((generation(body), body.actor), body.checkpoint.as_ref()?.parts))
        });
        let mut parts: BTreeMap<(u64, Actor), u64> = started.collect();
        parts.extend(self.upcoming.as_ref().map(Upcoming::parts));
        let is_later = |body: &ChangeBody| {
            let parts = parts.get(&(generation(body), body.actor));
            generation(body) > self.generation() && parts.is_none_or(|&parts| body.seq > parts)
        };
        let (later, now) =
            std::mem::take(claimed).into_iter().partition(|(body, _)| is_later(body));
        *claimed = now;
        later
    }

    /// Verifies changes and applies what is valid. With `may_wait`, those of authors of a newer version may depend on what is missing.
    fn receive_changes(
        &mut self,
        claimed: Vec<(ChangeBody, SignedChange)>,
        may_wait: bool,
        received: &mut Received,
    ) {
        let mut next = self.progress.clone();
        let mut incoming = Vec::new();
        for (body, signed) in claimed {
            // Most changes are known already: skip them before the signature is checked.
            if !next.follows(&body) {
                continue;
            }
            match self.check(signed) {
                Ok(change) => {
                    next.advance(&change.body);
                    incoming.push(change);
                }
                Err(error) => received.rejected.push(*error),
            }
        }
        let skipped = self.incomplete(&incoming, may_wait);
        let mut index = 0..;
        incoming.retain(|_| index.next().is_none_or(|index| !skipped.contains(&index)));
        self.apply_all(incoming, received);
    }

    /// Adds the certificates that came with changes. Those of another signing key come from members that do not know of a
    /// rotation yet, or know of one that this node does not.
    fn add_certificates(&mut self, certificates: &[String], received: &mut Received) {
        for certificate in certificates {
            match self.add_certificate(certificate) {
                Ok(true) => received.certificates.push(certificate.clone()),
                Ok(false) | Err(TokenError::Superseded) => {}
                Err(error) => received.rejected.push(error.into()),
            }
        }
    }

    /// Returns which of these changes of the cluster document depend on missing ones. With `may_wait`, those of authors of a newer
    /// version may.
    fn incomplete(&self, incoming: &[Incoming], may_wait: bool) -> BTreeSet<usize> {
        let mut by_generation: BTreeMap<u64, Vec<(usize, &Incoming)>> = BTreeMap::new();
        for (index, change) in incoming.iter().enumerate() {
            if let DocumentId::Cluster { generation } = change.body.document {
                by_generation.entry(generation).or_default().push((index, change));
            }
        }
        let mut incomplete = BTreeSet::new();
        for (generation, authored) in by_generation {
            let changes: Vec<_> = authored.iter().map(|(_, it)| &it.change).collect();
            let indices = match self.cluster_generation(generation) {
                Some(document) => document.incomplete(&changes),
                None => Document::new(self.knows.cluster)
                    .map(|it| it.incomplete(&changes))
                    .unwrap_or_default(),
            };
            let refused = indices.into_iter().map(|index| authored[index]);
            let refused =
                refused.filter(|(_, change)| !(may_wait && self.is_newer(change.body.author)));
            incomplete.extend(refused.map(|(index, _)| index));
        }
        incomplete
    }

    /// Returns whether a node supports a schema that this version does not know.
    fn is_newer(&self, node: NodeId) -> bool {
        let info = self.node_states.get(&node).and_then(|state| state.info.as_ref());
        info.is_some_and(|info| info.supports.schema > self.knows.supports().schema)
            || self.nodes.get(&node).is_some_and(|own| own.document.needs_newer_version())
    }

    fn check(&mut self, signed: SignedChange) -> Result<Incoming, Box<Rejected>> {
        let body = signed.verify(self.cluster_id).map_err(Rejected::Change)?;
        let author = body.author;
        let Some(member) = self.membership.get(author) else {
            return Err(Rejected::NotAMember(author).into());
        };
        let may_write = match body.document {
            DocumentId::Node { .. } => true,
            DocumentId::Cluster { generation } => self.may_write(author, member, generation),
        };
        if !may_write {
            return Err(Rejected::Change(ChangeError::NotPermitted { author }).into());
        }
        if self.quarantine.contains(&author) {
            return Err(Rejected::Quarantined(author).into());
        }
        Incoming::decode(body, signed).map_err(|error| self.reject(author, error).into())
    }

    /// Returns whether a node may write a generation of the cluster document.
    fn may_write(&self, author: NodeId, member: &Member, generation: u64) -> bool {
        let present = self.generation();
        let exclusions = self.cluster.exclusions(generation >= present);
        let may = member.role == NodeRole::Server && !exclusions.left.contains(&author);
        if !member.is_former {
            return may;
        }
        // What it wrote before the rotation is repeated by the first checkpoint after it. Only a node that knows nothing takes a
        // checkpoint of a former member.
        let knows_nothing = self.progress.versions.cluster.is_empty();
        let is_before = exclusions.epoch < self.signing_key().epoch;
        may && if generation > present { knows_nothing } else { is_before }
    }

    pub(super) fn reject(&mut self, author: NodeId, error: DocumentError) -> Rejected {
        if error == DocumentError::Panicked {
            self.quarantine.insert(author);
        }
        Rejected::Document { author, error }
    }

    /// Applies verified changes document by document.
    pub(super) fn apply_all(&mut self, incoming: Vec<Incoming>, received: &mut Received) {
        let mut by_document: BTreeMap<DocumentId, Vec<Incoming>> = BTreeMap::new();
        for change in incoming {
            by_document.entry(change.body.document).or_default().push(change);
        }
        // Node documents first: they say which version the authors have.
        let is_node = |(id, _): &(DocumentId, _)| matches!(id, DocumentId::Node { .. });
        let (of_nodes, of_cluster): (Vec<_>, Vec<_>) = by_document.into_iter().partition(is_node);
        for (document, changes) in of_nodes.into_iter().chain(of_cluster) {
            if self.apply(document, &changes, received).is_ok() {
                continue;
            }
            // Some are invalid: apply them one by one, so that the valid ones of other authors are not lost.
            for change in &changes {
                if !self.progress.follows(&change.body) {
                    continue;
                }
                if let Err(error) = self.apply(document, std::slice::from_ref(change), received) {
                    let rejected = self.reject(change.body.author, error);
                    received.rejected.push(rejected);
                }
            }
        }
    }

    fn apply(
        &mut self,
        id: DocumentId,
        incoming: &[Incoming],
        received: &mut Received,
    ) -> Result<(), DocumentError> {
        let Some(last) = incoming.last() else { return Ok(()) };
        let changes: Vec<_> = incoming.iter().map(|it| &it.change).collect();
        match id {
            DocumentId::Cluster { generation } => {
                match generation.cmp(&self.generation()) {
                    Ordering::Less => self.cluster.apply_late(&changes)?,
                    Ordering::Equal => self.cluster.apply(&changes)?,
                    Ordering::Greater => {
                        return self.apply_upcoming(generation, incoming, received);
                    }
                }
                let before = std::mem::take(&mut self.cluster_unreadable);
                self.read_cluster();
                report_new(&before, &self.cluster_unreadable, received);
            }
            DocumentId::Node { node, generation } => {
                let held = self.nodes.get(&node).map(|held| held.generation);
                if held.is_some_and(|held| held > generation) {
                    return Ok(());
                }
                if held == Some(generation)
                    && let Some(held) = self.nodes.get_mut(&node)
                {
                    held.document.apply(&changes)?;
                    held.seq = last.body.seq;
                    let (state, unreadable) = NodeState::read(&held.document, id);
                    report_new(&held.unreadable, &unreadable, received);
                    held.unreadable = unreadable;
                    self.node_states.insert(node, state);
                } else {
                    let mut document = Document::new(self.knows.node)?;
                    document.apply(&changes)?;
                    received
                        .replaced
                        .extend(held.map(|old| DocumentId::Node { node, generation: old }));
                    let (state, unreadable) = NodeState::read(&document, id);
                    report_new(&[], &unreadable, received);
                    self.node_states.insert(node, state);
                    let own = NodeDocument { generation, seq: last.body.seq, document, unreadable };
                    self.nodes.insert(node, own);
                }
            }
        }
        for change in incoming {
            self.progress.advance(&change.body);
            received.accepted.push(change.signed.clone());
        }
        Ok(())
    }
}

/// Sorts the generations of the cluster document, each with the changes of the actor that writes its checkpoint first: the
/// others depend on them.
pub(super) fn checkpoints_first(changes: &mut [(ChangeBody, SignedChange)]) {
    let begin = changes.iter().filter(|(body, _)| body.checkpoint.is_some());
    let actors: BTreeSet<(DocumentId, Actor)> =
        begin.map(|(body, _)| (body.document, body.actor)).collect();
    if actors.is_empty() {
        return;
    }
    changes.sort_by_key(|(body, _)| match body.document {
        DocumentId::Cluster { generation } => {
            (Some(generation), !actors.contains(&(body.document, body.actor)))
        }
        DocumentId::Node { .. } => (None, false),
    });
}

/// Adds the entries to `received` that were readable, or not there, before.
pub(super) fn report_new(
    before: &[UnreadableEntry],
    now: &[UnreadableEntry],
    received: &mut Received,
) {
    let is_new = |entry: &&UnreadableEntry| {
        !before.iter().any(|it| it.map == entry.map && it.key == entry.key)
    };
    received.unreadable.extend(now.iter().filter(is_new).cloned());
}
