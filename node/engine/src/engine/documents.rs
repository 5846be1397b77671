//! What the engine writes: its own node's document, and the cluster document for users, voters and checkpoints.

use std::collections::BTreeSet;

use vc_crdt::{ClusterState, DocumentError, NewGeneration};
use vc_protocol::change::{DocumentId, SignedChange, Subject};
use vc_protocol::control::Change;
use vc_protocol::lease::{LEASE_MS, VoterSet};
use vc_protocol::planted::{PlantedBug, is_planted};
use vc_protocol::{Millis, NodeId};

use super::Engine;
use crate::interface::Output;
use crate::mutation::{Mutation, MutationError, due_by_hand};
use crate::schedule::cluster_time;

/// Signed changes that are to be durable before a command is answered, and the answer.
type Answered = (Vec<SignedChange>, Vec<Change>);

impl Engine {
    /// Makes this node the first voter, if it is the one that does so: while all members are up and know the same, so that no
    /// other one does.
    pub(super) fn choose_first_voters(&mut self) {
        let id = self.replica.id();
        if self.view.cluster.voter_set().is_some()
            || !self.replica.has_voters()
            || self.replica.checkpoint_author() != Some(id)
            || !self.all_agree()
        {
            return;
        }
        let voters = BTreeSet::from([id]);
        self.write_voters(VoterSet {
            number: 1,
            voters,
            lease_ms: LEASE_MS,
            forced: false,
            by: String::new(),
        });
    }

    /// Writes a set of voters into the cluster document.
    pub(super) fn write_voters(&mut self, set: VoterSet) {
        let known = self.view.cluster.voter_set().map_or(0, |known| known.number);
        if known >= set.number {
            return;
        }
        let mut wanted = self.replica.cluster().clone();
        wanted.set_voters(set);
        match self.write_cluster(&wanted, None) {
            Ok(Some(change)) => {
                self.audit(std::slice::from_ref(&change));
                self.unsent.push(change);
                self.dirty = true;
            }
            Ok(None) | Err(DocumentError::Held) => {}
            Err(error) => tracing::error!(%error, "cannot write the voters"),
        }
    }

    /// Writes the cluster document, under this node's last actor if no later changes of it can exist. A node that knows no other
    /// member cannot tell: its data directory may be from before they joined.
    pub(super) fn write_cluster(
        &mut self,
        wanted: &ClusterState,
        by: Option<Subject>,
    ) -> Result<Option<SignedChange>, DocumentError> {
        let id = self.replica.id();
        let others: Vec<NodeId> = self.replica.members().filter(|member| *member != id).collect();
        let confirm = others.iter().all(|&member| self.anti_entropy.is_confirmed(member));
        let is_confirmed = !self.is_damaged && !others.is_empty() && confirm;
        let may_reuse = is_confirmed || is_planted(PlantedBug::ReuseActor);
        self.replica.write_cluster(wanted, by, self.wall, may_reuse, self.nonce)
    }

    /// Returns whether all members are up, can read all documents, and know the same of the cluster document.
    fn all_agree(&self) -> bool {
        let (id, all) = (self.replica.id(), self.replica.agreeing());
        let agrees = |node: NodeId| {
            let same = node == id || self.anti_entropy.is_settled(node, &all);
            same && self.view.up.contains(&node)
        };
        self.renewed
            && self.view.held.documents.is_empty()
            && self.replica.present_members().all(agrees)
    }

    /// Returns whether this node knows what runs, and has asked the others for a later document of its own: its data
    /// directory may be from a backup.
    pub(super) fn may_write_own_document(&self) -> bool {
        !self.reconciler.is_unknown() && (self.renewed || self.hold.reason().is_none())
    }

    /// Writes this node's document, in a new generation at each start and when its history has grown. Returns the signed
    /// change, if anything has changed.
    pub(super) fn write_own_document(
        &mut self,
        now: Millis,
    ) -> Result<Option<SignedChange>, DocumentError> {
        if !self.may_write_own_document() {
            return Ok(None);
        }
        let is_short = self.replica.own_change_count() < self.history;
        if self.renewed && (is_short || is_planted(PlantedBug::OneGeneration)) {
            return self.replica.write_node(&self.own, self.wall);
        }
        let node = self.replica.id();
        let replaced = self.replica.versions().nodes.get(&node).copied();
        self.own.uptime = now - self.started;
        let written = self.replica.start_generation(&self.own, self.wall, self.nonce)?;
        self.renewed = true;
        self.owner.wrote(self.replica.own_generation());
        let replaced = replaced.map(|(generation, _)| DocumentId::Node { node, generation });
        self.pending.replaced.extend(replaced);
        Ok(written)
    }

    /// Starts a new generation of the cluster document when its history has grown. One server does, while all members are up
    /// and know the same of what is dropped.
    pub(super) fn start_cluster_generation(&mut self) {
        let id = self.replica.id();
        if !self.replica.is_checkpoint_due(self.history)
            || self.replica.checkpoint_author() != Some(id)
            || !(self.all_agree() || is_planted(PlantedBug::HastyCheckpoint) && self.renewed)
            || is_planted(PlantedBug::NoCheckpoint)
        {
            return;
        }
        match self.replica.write_checkpoint(self.wall, self.nonce) {
            Ok(Some(NewGeneration { changes, dropped })) => {
                tracing::info!(parts = changes.len(), "new generation of the cluster document");
                self.pending.replaced.extend(dropped);
                self.audit(&changes);
                self.unsent.extend(changes);
            }
            // The log says when a document becomes held.
            Ok(None) | Err(DocumentError::Held) => {}
            Err(error) => {
                tracing::error!(%error, "cannot bound the history of the cluster document");
                self.history = self.history.saturating_mul(2);
            }
        }
    }

    pub(super) fn mutate(&mut self, request: u64, by: Subject, mutation: &Mutation, now: Millis) {
        let written = match self.write_due(&by, mutation, now) {
            Some(written) => written,
            None => self.write(by, mutation),
        };
        let answer = written.map(|(change, changes)| {
            // An answer acknowledges this change and everything before it: all of it is durable first.
            self.pending.changes.extend(change.iter().cloned());
            self.audit(&change);
            self.persist();
            self.publish(change, now);
            changes
        });
        if is_planted(PlantedBug::AnswerBeforeWrite) {
            self.outputs.insert(0, Output::Answer(request, answer));
            return;
        }
        self.outputs.push(Output::Answer(request, answer));
    }

    /// Writes what a person does with the runs of a schedule into this node's document; `None` if the mutation is about something else.
    fn write_due(
        &mut self,
        by: &Subject,
        mutation: &Mutation,
        now: Millis,
    ) -> Option<Result<Answered, MutationError>> {
        let id = self.replica.id();
        let time = cluster_time(&self.view, id, &self.vitals, self.wall);
        let due = match due_by_hand(&self.view, mutation, by, time)? {
            Ok((due, changes)) => (due, changes),
            Err(error) => return Some(Err(error)),
        };
        if self.is_removed() {
            return Some(Err(MutationError::NodeLeft));
        }
        if !self.may_write_own_document() || !self.replica.has_runs() {
            return Some(Err(MutationError::NotReady));
        }
        let (records, changes) = due;
        self.own.due.extend(records);
        self.dirty = true;
        let written = self.write_own_document(now).map_err(MutationError::Document);
        Some(written.map(|change| (change.into_iter().collect(), changes)))
    }

    /// Writes a mutation into the cluster document; returns the signed change, if anything has changed.
    fn write(&mut self, by: Subject, mutation: &Mutation) -> Result<Answered, MutationError> {
        let now = self.wall;
        if self.is_removed() {
            return Err(MutationError::NodeLeft);
        }
        if matches!(mutation, Mutation::Revoke { .. }) && !self.replica.has_tokens() {
            return Err(MutationError::OlderMembers("refuse revoked tokens"));
        }
        if matches!(mutation, Mutation::Admit { uses: None, .. }) && !self.replica.has_authority() {
            return Ok(Default::default());
        }
        if let Some(cannot) = mutation.needs_authority()
            && !self.replica.has_authority()
        {
            return Err(MutationError::OlderMembers(cannot));
        }
        if mutation.needs_leases() && !self.replica.has_voters() {
            return Err(MutationError::OlderMembers("grant leases"));
        }
        if mutation.needs_receivers() && !self.replica.has_receivers() {
            return Err(MutationError::OlderMembers("send alerts"));
        }
        if self.view.trust.epoch() > 0 && self.replica.own_certificate().is_none() {
            return Err(MutationError::NotCertified);
        }
        let trace = match mutation {
            Mutation::Deploy { trace, .. } => *trace,
            _ => None,
        };
        let (wanted, changes) = mutation.apply(&self.view, &by, now)?;
        let name = by.name.clone();
        let change = self.write_cluster(&wanted, Some(by))?;
        for change in &changes {
            tracing::info!(trace = trace.map(tracing::field::display), by = name, %change, "command");
        }
        self.dirty |= change.is_some();
        self.pending.replaced.extend(self.replica.take_dropped());
        Ok((change.into_iter().collect(), changes))
    }

    /// Describes changes of the cluster document for the audit log.
    pub(super) fn audit(&mut self, changes: &[SignedChange]) {
        if let Some(trail) = &mut self.audit {
            changes.iter().for_each(|change| trail.accept(change, &self.view));
        }
    }
}
