//! Compares version vectors with peers, and sends what they lack. Gossip delivers changes fast; anti-entropy makes sure that
//! they arrive.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::change::{Batch, VersionVector};
use vc_protocol::gossip::{Gossip, SyncMessage};
use vc_protocol::planted::{PlantedBug, is_planted};
use vc_protocol::wire::{MAX_GOSSIP, encode};
use vc_protocol::{Millis, NodeId};

use crate::interface::{Output, Timing};

/// Least time between two summaries to one peer, unless it has just connected.
const SUMMARY_INTERVAL: Millis = 500;

/// The anti-entropy state of this node.
pub(crate) struct AntiEntropy {
    period: Millis,
    next: Millis,
    /// Connected members, and when each was last sent a summary.
    peers: BTreeMap<NodeId, Millis>,
    last_peer: Option<NodeId>,
    /// Peers whose last summary has no change of our actors that we lack.
    confirmed: BTreeSet<NodeId>,
    /// [`vc_crdt::Replica::settled`] of each peer, as reported in its last heartbeat.
    settled: BTreeMap<NodeId, u64>,
    cached: Option<(VersionVector, u64)>,
}

/// The result of a comparison with a peer.
pub(crate) struct Comparison {
    /// Whether the peer has no change that we lack.
    pub(crate) is_current: bool,
    /// What to send to the peer.
    pub(crate) outputs: Vec<Output>,
}

impl AntiEntropy {
    /// The state without any peer.
    pub(crate) fn new(timing: Timing, now: Millis) -> Self {
        Self {
            period: timing.anti_entropy,
            next: now + timing.anti_entropy,
            peers: BTreeMap::new(),
            last_peer: None,
            confirmed: BTreeSet::new(),
            settled: BTreeMap::new(),
            cached: None,
        }
    }

    /// Adds a connected peer.
    pub(crate) fn connected(&mut self, peer: NodeId) {
        self.peers.entry(peer).or_insert(0);
    }

    /// Removes a peer whose last connection closed.
    pub(crate) fn disconnected(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
    }

    /// Returns when to call [`AntiEntropy::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        Some(self.next)
    }

    /// Returns the peer to compare with, if it is time: each peer in turn.
    pub(crate) fn handle_timeout(&mut self, now: Millis) -> Option<NodeId> {
        if now < self.next {
            return None;
        }
        self.next = now + self.period;
        let after = |last: NodeId| self.peers.keys().find(|&&peer| peer > last);
        let peer = self.last_peer.and_then(after).or_else(|| self.peers.keys().next()).copied();
        self.last_peer = peer;
        peer
    }

    /// Returns the message that sends this node's version vector to a peer.
    pub(crate) fn send_summary(
        &mut self,
        peer: NodeId,
        ours: &VersionVector,
        now: Millis,
    ) -> Output {
        if let Some(last) = self.peers.get_mut(&peer) {
            *last = now;
        }
        Output::Send(peer, SyncMessage::Summary(ours.clone()))
    }

    /// The same, if the peer is connected and was sent no summary for [`SUMMARY_INTERVAL`].
    fn send_due_summary(
        &mut self,
        peer: NodeId,
        ours: &VersionVector,
        now: Millis,
    ) -> Option<Output> {
        let due = self.peers.get(&peer).is_some_and(|&last| now >= last + SUMMARY_INTERVAL);
        due.then(|| self.send_summary(peer, ours, now))
    }

    /// Compares the fingerprint of a peer's heartbeat with ours: one that differs starts a comparison.
    pub(crate) fn compare_fingerprint(
        &mut self,
        peer: NodeId,
        theirs: u64,
        ours: &VersionVector,
        now: Millis,
    ) -> Comparison {
        let is_current = self.fingerprint(ours) == theirs && !is_planted(PlantedBug::Chatter);
        let summary = if is_current { None } else { self.send_due_summary(peer, ours, now) };
        Comparison { is_current, outputs: summary.into_iter().collect() }
    }

    /// Compares a peer's version vector with that of `node`, which is ours, and sends what the peer lacks.
    pub(crate) fn answer_summary(
        &mut self,
        node: NodeId,
        peer: NodeId,
        theirs: &VersionVector,
        ours: &VersionVector,
        now: Millis,
    ) -> Comparison {
        let behind = theirs.missing_in(ours);
        // Changes of ours that only the peer has: this data directory was restored from a backup.
        if behind.iter().any(|run| run.actor.is_some_and(|actor| actor.belongs_to(node))) {
            self.confirmed.remove(&peer);
        } else {
            self.confirmed.insert(peer);
        }
        let runs = ours.missing_in(theirs);
        let mut outputs = Vec::new();
        if !runs.is_empty() && !is_planted(PlantedBug::NoReplay) {
            outputs.push(Output::Replay(peer, runs));
        }
        if !behind.is_empty() {
            outputs.extend(self.send_due_summary(peer, ours, now));
        }
        Comparison { is_current: behind.is_empty(), outputs }
    }

    /// Gossips changes. Those that are too large for gossip are left to anti-entropy, which starts at once.
    pub(crate) fn publish(
        &mut self,
        batch: Batch,
        ours: &VersionVector,
        now: Millis,
    ) -> Vec<Output> {
        let gossip = Gossip::Changes(batch);
        if encode(&gossip).len() <= MAX_GOSSIP - 1024 {
            return vec![Output::Gossip(gossip)];
        }
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        peers.into_iter().map(|peer| self.send_summary(peer, ours, now)).collect()
    }

    /// Returns whether the last summary of a peer confirmed that we have all changes of our own actors that it has.
    pub(crate) fn is_confirmed(&self, peer: NodeId) -> bool {
        self.confirmed.contains(&peer)
    }

    /// Takes in what a peer says of `Replica::settled`.
    pub(crate) fn saw_settled(&mut self, peer: NodeId, settled: u64) {
        self.settled.insert(peer, settled);
    }

    /// Returns whether a peer has said one of these of `Replica::settled` in its last heartbeat.
    pub(crate) fn is_settled(&self, peer: NodeId, agreeing: &[u64]) -> bool {
        self.settled.get(&peer).is_some_and(|settled| agreeing.contains(settled))
    }

    /// Returns the fingerprint of a version vector, computed again only when the vector has changed.
    pub(crate) fn fingerprint(&mut self, versions: &VersionVector) -> u64 {
        match &self.cached {
            Some((held, fingerprint)) if held == versions => *fingerprint,
            _ => {
                let fingerprint = versions.fingerprint();
                self.cached = Some((versions.clone(), fingerprint));
                fingerprint
            }
        }
    }
}
