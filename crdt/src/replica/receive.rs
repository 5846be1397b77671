//! Verification and application of changes, from the disk or from a peer.

use std::collections::{BTreeMap, BTreeSet};

use automerge::Change;
use vc_protocol::NodeId;
use vc_protocol::change::{
    Actor, Batch, ChangeBody, ChangeError, DocumentId, SignedChange, VersionVector,
};

use super::{NodeDocument, Replica};
use crate::document::{Document, DocumentError, decode};
use crate::received::{Received, Rejected, UnreadableEntry};
use crate::schema::{NODE, SCHEMA_VERSION};
use crate::state::{ClusterState, NodeState};

impl Replica {
    /// Verifies a batch and applies what is valid. Changes that are known already, or that depend on changes which are
    /// missing, are skipped: anti-entropy sends the missing ones again. Only a node of a newer version may depend on what
    /// this one does not know; the document is held then.
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
        let skipped = self.skip_incomplete(&mut bodies);
        withdraw(&skipped, &mut received);
        self.apply_all(bodies, &mut received);
        received
    }

    /// Removes the changes of the cluster document that depend on missing ones, unless their author is of a newer version.
    /// Returns their keys.
    fn skip_incomplete(&self, bodies: &mut Vec<ChangeBody>) -> BTreeSet<ChangeKey> {
        let of_cluster = bodies.iter().filter(|body| body.document == DocumentId::Cluster);
        let decoded = of_cluster.filter_map(|body| {
            let change = decode(&body.payload, &body.actor, body.seq).ok()?;
            Some((body, change))
        });
        let (authored, changes): (Vec<&ChangeBody>, Vec<Change>) = decoded.unzip();
        let incomplete = self.cluster.incomplete(&changes).into_iter().map(|index| authored[index]);
        let skipped: BTreeSet<ChangeKey> =
            incomplete.filter(|body| !self.is_newer(body.author)).map(key).collect();
        bodies.retain(|body| !skipped.contains(&key(body)));
        skipped
    }

    /// Returns whether a node supports a schema that this version does not know.
    fn is_newer(&self, node: NodeId) -> bool {
        let info = self.node_states.get(&node).and_then(|state| state.info.as_ref());
        info.is_some_and(|info| info.supports.schema > SCHEMA_VERSION)
            || self.nodes.get(&node).is_some_and(|own| own.document.is_held())
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
    pub(super) fn apply_all(&mut self, bodies: Vec<ChangeBody>, received: &mut Received) {
        let mut by_document: BTreeMap<DocumentId, Vec<ChangeBody>> = BTreeMap::new();
        for body in bodies {
            by_document.entry(body.document).or_default().push(body);
        }
        let mut refused = BTreeSet::new();
        // Node documents first: they say which version the authors have.
        for (document, bodies) in by_document.into_iter().rev() {
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
                refused.insert(key(body));
            }
        }
        withdraw(&refused, received);
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

/// Identifies a change.
type ChangeKey = (DocumentId, Actor, u64);

fn key(body: &ChangeBody) -> ChangeKey {
    (body.document, body.actor, body.seq)
}

/// Removes changes from those that were accepted.
fn withdraw(changes: &BTreeSet<ChangeKey>, received: &mut Received) {
    if changes.is_empty() {
        return;
    }
    received.accepted.retain(|change| {
        change.decode_unverified().is_ok_and(|body| !changes.contains(&key(&body)))
    });
}

/// Adds the entries to `received` that were readable, or not there, before.
fn report_new(before: &[UnreadableEntry], now: &[UnreadableEntry], received: &mut Received) {
    let is_new = |entry: &&UnreadableEntry| {
        !before.iter().any(|it| it.map == entry.map && it.key == entry.key)
    };
    received.unreadable.extend(now.iter().filter(is_new).cloned());
}

/// Returns whether a change is the next one of its actor.
pub(super) fn follows(versions: &VersionVector, body: &ChangeBody) -> bool {
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

pub(super) fn advance(versions: &mut VersionVector, body: &ChangeBody) {
    match body.document {
        DocumentId::Cluster => {
            versions.cluster.insert(body.actor, body.seq);
        }
        DocumentId::Node { node, generation } => {
            versions.nodes.insert(node, (generation, body.seq));
        }
    }
}
