//! Decides when to compare version vectors with a peer. Gossip delivers changes fast; anti-entropy makes sure that they
//! arrive.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::change::VersionVector;
use vc_protocol::{Millis, NodeId};

use crate::interface::Timing;

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
    cached: Option<(VersionVector, u64)>,
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

    /// Returns the connected peers.
    pub(crate) fn peers(&self) -> Vec<NodeId> {
        self.peers.keys().copied().collect()
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

    /// Returns whether a peer is connected and was sent no summary for [`SUMMARY_INTERVAL`].
    pub(crate) fn may_send_summary(&self, peer: NodeId, now: Millis) -> bool {
        self.peers.get(&peer).is_some_and(|&last| now >= last + SUMMARY_INTERVAL)
    }

    /// Notes that a summary was sent to a peer.
    pub(crate) fn sent_summary(&mut self, peer: NodeId, now: Millis) {
        if let Some(last) = self.peers.get_mut(&peer) {
            *last = now;
        }
    }

    /// Takes in whether a peer's summary confirms that we have all changes of our own actors that it has.
    pub(crate) fn compared(&mut self, peer: NodeId, confirms: bool) {
        if confirms {
            self.confirmed.insert(peer);
        } else {
            self.confirmed.remove(&peer);
        }
    }

    /// Returns whether the last summary of a peer confirmed that.
    pub(crate) fn is_confirmed(&self, peer: NodeId) -> bool {
        self.confirmed.contains(&peer)
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
