//! When to compare versions with whom. Gossip makes changes fast; this makes them sure.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::change::VersionVector;
use vc_protocol::{Millis, NodeId};

use crate::interface::Timing;

/// At least so long between two summaries to one peer, unless it has just connected.
const PAUSE: Millis = 500;

pub(crate) struct AntiEntropy {
    period: Millis,
    next: Millis,
    /// Connected members, and when each was last sent a summary.
    peers: BTreeMap<NodeId, Millis>,
    last_peer: Option<NodeId>,
    /// Who has no change of our actors that we lack, when last compared.
    confirmed: BTreeSet<NodeId>,
    cached: Option<(VersionVector, u64)>,
}

impl AntiEntropy {
    pub(crate) fn new(now: Millis, timing: Timing) -> Self {
        Self {
            period: timing.anti_entropy,
            next: now + timing.anti_entropy,
            peers: BTreeMap::new(),
            last_peer: None,
            confirmed: BTreeSet::new(),
            cached: None,
        }
    }

    pub(crate) fn connected(&mut self, peer: NodeId) {
        self.peers.entry(peer).or_insert(0);
    }

    pub(crate) fn disconnected(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
    }

    pub(crate) fn peers(&self) -> Vec<NodeId> {
        self.peers.keys().copied().collect()
    }

    pub(crate) fn deadline(&self) -> Millis {
        self.next
    }

    /// The peer whose turn it is, when it is time.
    pub(crate) fn due(&mut self, now: Millis) -> Option<NodeId> {
        if now < self.next {
            return None;
        }
        self.next = now + self.period;
        let after = |last: NodeId| self.peers.keys().find(|&&peer| peer > last);
        let peer = self.last_peer.and_then(after).or_else(|| self.peers.keys().next()).copied();
        self.last_peer = peer;
        peer
    }

    pub(crate) fn may_summarise(&self, peer: NodeId, now: Millis) -> bool {
        self.peers.get(&peer).is_some_and(|&last| now >= last + PAUSE)
    }

    pub(crate) fn summarised(&mut self, peer: NodeId, now: Millis) {
        if let Some(last) = self.peers.get_mut(&peer) {
            *last = now;
        }
    }

    /// A peer's summary was read; `confirms`: it has no change of our actors that we lack.
    pub(crate) fn compared(&mut self, peer: NodeId, confirms: bool) {
        if confirms {
            self.confirmed.insert(peer);
        } else {
            self.confirmed.remove(&peer);
        }
    }

    /// Whether a peer confirmed that we have all that it has of what we ever wrote.
    pub(crate) fn is_confirmed(&self, peer: NodeId) -> bool {
        self.confirmed.contains(&peer)
    }

    /// The fingerprint of what we have, computed anew only when that has changed.
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
