//! Exchanges heartbeats, changes and version vectors with other members.

use vc_protocol::change::{Batch, SignedChange, VersionVector};
use vc_protocol::gossip::{Gossip, Heartbeat, SyncMessage};
use vc_protocol::wire::{MAX_GOSSIP, encode};
use vc_protocol::{Millis, NodeId};

use super::Engine;
use crate::interface::Output;

impl Engine {
    pub(super) fn send_heartbeat(&mut self, now: Millis) {
        let id = self.replica.id();
        let heartbeat = Heartbeat {
            node: id,
            incarnation: self.replica.nodes().get(&id).map_or(0, |own| own.incarnation),
            seq: now,
            fingerprint: self.anti_entropy.fingerprint(self.replica.versions()),
            usage: self.usage.get(&id).copied().unwrap_or_default(),
        };
        self.outputs.push(Output::Gossip(Gossip::Heartbeat(heartbeat)));
    }

    /// Takes in a heartbeat. A fingerprint that differs from ours starts a comparison.
    pub(super) fn receive_heartbeat(&mut self, from: NodeId, heartbeat: &Heartbeat, now: Millis) {
        if from != heartbeat.node
            || !self.detector.heartbeat(from, heartbeat.incarnation, heartbeat.seq, now)
        {
            return;
        }
        self.usage.insert(from, heartbeat.usage);
        self.dirty |= self.own.observed.insert(from);
        let ours = self.anti_entropy.fingerprint(self.replica.versions());
        if heartbeat.fingerprint == ours {
            self.dirty |= self.hold.release();
        } else if self.anti_entropy.may_send_summary(from, now) {
            self.send_summary(from, now);
        }
    }

    /// Checks and applies changes and certificates of a peer.
    pub(super) fn receive(&mut self, batch: Batch, now: Millis) {
        let received = self.replica.receive(batch);
        for rejected in &received.rejected {
            tracing::warn!(error = %rejected, "rejected a change from a peer");
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
            self.detector.saw_incarnation(node, state.incarnation, now);
            // A refuted accusation stays in this node's document: taken back, it could reach a node before the refutation
            // does, and the accused node's old claims would count there again.
            if self.own.unreachable.get(&node).is_some_and(|&of| of < state.incarnation) {
                self.detector.refuted(node, now);
            }
        }
    }

    /// Gossips changes. Those that are too large for gossip are left to anti-entropy, which starts at once.
    pub(super) fn publish(&mut self, changes: Vec<SignedChange>, now: Millis) {
        if changes.is_empty() {
            return;
        }
        let gossip = Gossip::Changes(self.replica.batch(changes));
        if encode(&gossip).len() <= MAX_GOSSIP - 1024 {
            self.outputs.push(Output::Gossip(gossip));
        } else {
            for peer in self.anti_entropy.peers() {
                self.send_summary(peer, now);
            }
        }
    }

    /// Sends this node's version vector to a peer.
    pub(super) fn send_summary(&mut self, peer: NodeId, now: Millis) {
        self.anti_entropy.sent_summary(peer, now);
        let summary = SyncMessage::Summary(self.replica.versions().clone());
        self.outputs.push(Output::Send(peer, summary));
    }

    /// Compares a peer's version vector with ours, and sends what the peer lacks.
    pub(super) fn answer_summary(&mut self, from: NodeId, theirs: &VersionVector, now: Millis) {
        let id = self.replica.id();
        let behind = theirs.missing_in(self.replica.versions());
        // Changes of ours that only the peer has: this data directory was restored from a backup.
        let restored = behind.iter().any(|run| run.actor.is_some_and(|actor| actor.belongs_to(id)));
        self.anti_entropy.compared(from, !restored);
        if behind.is_empty() {
            self.dirty |= self.hold.release();
        }
        let runs = self.replica.versions().missing_in(theirs);
        if !runs.is_empty() {
            self.outputs.push(Output::Replay(from, runs));
        }
        if !behind.is_empty() && self.anti_entropy.may_send_summary(from, now) {
            self.send_summary(from, now);
        }
    }
}
