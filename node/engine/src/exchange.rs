//! What members tell each other: heartbeats, changes, and the comparison of what they have.

use vc_protocol::change::{Batch, SignedChange, VersionVector};
use vc_protocol::gossip::{Gossip, Heartbeat, SyncMessage};
use vc_protocol::wire::{MAX_GOSSIP, encode};
use vc_protocol::{Millis, NodeId};

use crate::engine::Engine;
use crate::interface::Output;

/// An accusation answered within this time was wrong, not a node that came back.
const WRONG: Millis = 3000;

impl Engine {
    pub(crate) fn heartbeat(&mut self, from: NodeId, heartbeat: &Heartbeat, now: Millis) {
        if from != heartbeat.node
            || !self.detector.heard(from, heartbeat.incarnation, heartbeat.seq, now)
        {
            return;
        }
        self.usage.insert(from, heartbeat.usage);
        self.dirty |= self.own.observed.insert(from);
        let ours = self.anti_entropy.fingerprint(self.replica.versions());
        if heartbeat.fingerprint == ours {
            self.caught_up();
        } else if self.anti_entropy.may_summarise(from, now) {
            self.summarise(from, now);
        }
    }

    /// Whatever happened while we were away is known here now, or nobody is there to tell.
    pub(crate) fn caught_up(&mut self) {
        self.dirty |= self.hold.take().is_some();
    }

    pub(crate) fn receive(&mut self, batch: Batch, now: Millis) {
        let received = self.replica.receive(batch);
        for rejected in &received.rejected {
            tracing::warn!(reason = %rejected, "refused what a peer sent");
        }
        for entry in &received.unreadable {
            tracing::warn!(document = ?entry.document, map = entry.map, key = entry.key, error = %entry.error, "ignored an unreadable entry");
        }
        self.dirty |= !received.accepted.is_empty();
        self.pending.changes.extend(received.accepted);
        self.pending.certificates.extend(received.certificates);
        self.pending.replaced.extend(received.replaced);
        let id = self.replica.id();
        for (&node, state) in self.replica.nodes().iter().filter(|&(&node, _)| node != id) {
            self.detector.incarnation(node, state.incarnation, now);
            // The accusation stays in our document: it is void where the answer is known. Were it taken back, whoever
            // hears of that before he hears the answer would see the old claims come back to life.
            let answered =
                self.own.unreachable.get(&node).is_some_and(|&of| of < state.incarnation);
            if answered && self.accused_at.remove(&node).is_some_and(|at| now < at + WRONG) {
                self.detector.was_wrong(now);
            }
        }
    }

    /// Tells everybody; what is too large for gossip is left to anti-entropy, which is told to hurry.
    pub(crate) fn publish(&mut self, changes: Vec<SignedChange>, now: Millis) {
        if changes.is_empty() {
            return;
        }
        let gossip = Gossip::Changes(self.replica.batch(changes));
        if encode(&gossip).len() <= MAX_GOSSIP - 1024 {
            self.outputs.push(Output::Gossip(gossip));
        } else {
            for peer in self.anti_entropy.peers() {
                self.summarise(peer, now);
            }
        }
    }

    pub(crate) fn summarise(&mut self, peer: NodeId, now: Millis) {
        self.anti_entropy.summarised(peer, now);
        let summary = SyncMessage::Summary(self.replica.versions().clone());
        self.outputs.push(Output::Send(peer, summary));
    }

    pub(crate) fn answer_summary(&mut self, from: NodeId, theirs: &VersionVector, now: Millis) {
        let id = self.replica.id();
        let behind = theirs.missing_in(self.replica.versions());
        // Somebody has changes of ours that we lack: this data directory is older than what it wrote.
        let forgot = behind.iter().any(|run| run.actor.is_some_and(|actor| actor.belongs_to(id)));
        self.anti_entropy.compared(from, !forgot);
        if behind.is_empty() {
            self.caught_up();
        }
        let runs = self.replica.versions().missing_in(theirs);
        if !runs.is_empty() {
            self.outputs.push(Output::Replay(from, runs));
        }
        if !behind.is_empty() && self.anti_entropy.may_summarise(from, now) {
            self.summarise(from, now);
        }
    }
}
