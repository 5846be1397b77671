//! Whom this node cannot hear.
//!
//! An adaptive timeout on heartbeats, in the spirit of the phi-accrual detector (Hayashibara et al. 2004) with the
//! normal distribution replaced by a bound on the mean and the mean deviation of the gaps (as TCP bounds its
//! retransmissions, RFC 6298); suspicion slows down while this node itself is late or was proven wrong before
//! (Lifeguard, Dadgar et al. 2017). What comes out is this node's opinion alone; documents make it count.

use std::collections::BTreeMap;

use vc_protocol::{Millis, NodeId};

use crate::interface::Timing;

/// The largest factor by which self-doubt stretches the timeout.
const MAX_DOUBT: u64 = 4;

#[derive(Debug, Clone)]
struct Heard {
    incarnation: u64,
    seq: u64,
    last: Millis,
    /// Mean gap between heartbeats and mean deviation from it, eighths of a millisecond.
    mean8: u64,
    deviation8: u64,
}

/// What was heard of the others, and when.
pub(crate) struct Detector {
    timing: Timing,
    heard: BTreeMap<NodeId, Heard>,
    doubt: u64,
    doubted: Millis,
}

impl Detector {
    pub(crate) fn new(timing: Timing) -> Self {
        Self { timing, heard: BTreeMap::new(), doubt: 0, doubted: 0 }
    }

    /// A sign of life. `false`: it is old or repeated.
    pub(crate) fn heard(&mut self, node: NodeId, incarnation: u64, seq: u64, now: Millis) -> bool {
        let fresh = self.fresh(incarnation, now);
        let heard = self.heard.entry(node).or_insert(fresh);
        if seq <= heard.seq || incarnation < heard.incarnation {
            return false;
        }
        let gap8 = now.saturating_sub(heard.last).min(self.timing.heartbeat * 4) * 8;
        if heard.seq != 0 {
            heard.deviation8 = (heard.deviation8 * 7 + heard.mean8.abs_diff(gap8)) / 8;
            heard.mean8 = (heard.mean8 * 7 + gap8) / 8;
        }
        heard.incarnation = incarnation;
        heard.seq = seq;
        heard.last = now;
        true
    }

    /// Something else than a heartbeat came from a node. The first word ends the wait for it; later ones prove
    /// nothing, for they could be repeated by somebody else.
    pub(crate) fn spoke(&mut self, node: NodeId, now: Millis) {
        if let Some(heard) = self.heard.get_mut(&node).filter(|heard| heard.seq == 0) {
            heard.last = now;
        }
    }

    /// A node's document names this incarnation: a newer one than known is a sign of life, and a node that was
    /// not known at all is given time to be heard.
    pub(crate) fn incarnation(&mut self, node: NodeId, incarnation: u64, now: Millis) {
        let fresh = self.fresh(incarnation, now);
        let heard = self.heard.entry(node).or_insert(fresh);
        if incarnation > heard.incarnation {
            heard.incarnation = incarnation;
            heard.last = now;
        }
    }

    fn fresh(&self, incarnation: u64, now: Millis) -> Heard {
        // Nobody is judged before connections had time to come up.
        let last = now + self.timing.first_contact.saturating_sub(self.timing.suspect);
        Heard { incarnation, seq: 0, last, mean8: self.timing.heartbeat * 8, deviation8: 0 }
    }

    /// This node was late by so much: what it did not hear meanwhile is no evidence.
    pub(crate) fn was_late(&mut self, by: Millis, now: Millis) {
        for heard in self.heard.values_mut() {
            heard.last = (heard.last + by).min(now.max(heard.last));
        }
        if by > self.timing.suspect {
            self.doubt_more(now);
        }
    }

    /// Somebody we accused turned out to be alive.
    pub(crate) fn was_wrong(&mut self, now: Millis) {
        self.doubt_more(now);
    }

    fn doubt_more(&mut self, now: Millis) {
        self.doubt = (self.doubt + 1).min(MAX_DOUBT - 1);
        self.doubted = now;
    }

    /// Doubt fades: a step every half minute without a reason for more.
    pub(crate) fn fade(&mut self, now: Millis) {
        if self.doubt > 0 && now >= self.doubted + 30_000 {
            self.doubt -= 1;
            self.doubted = now;
        }
    }

    /// Whether this node has not been heard for longer than its heartbeats allow.
    pub(crate) fn is_silent(&self, node: NodeId, now: Millis) -> bool {
        self.heard.get(&node).is_some_and(|heard| now > heard.last + self.patience(heard))
    }

    fn patience(&self, heard: &Heard) -> Millis {
        let expected = (heard.mean8 + 4 * heard.deviation8) / 8 + 2 * self.timing.heartbeat;
        expected.clamp(self.timing.suspect, self.timing.suspect * 4) * (1 + self.doubt)
    }

    pub(crate) fn forget(&mut self, gone: impl Fn(&NodeId) -> bool) {
        self.heard.retain(|node, _| !gone(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        let key = vc_protocol::Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    fn steady(until: Millis) -> Detector {
        let timing = Timing::default();
        let mut detector = Detector::new(timing);
        let mut now = 0;
        let mut seq = 0;
        while now <= until {
            seq += 1;
            detector.heard(node(), 1, seq, now);
            now += timing.heartbeat;
        }
        detector
    }

    #[test]
    fn a_steady_heart_that_stops_is_noticed_after_the_suspect_time() {
        let timing = Timing::default();
        let last = timing.heartbeat * 40;
        let detector = steady(last);
        assert!(!detector.is_silent(node(), last + timing.suspect));
        assert!(detector.is_silent(node(), last + timing.suspect + 1));
    }

    #[test]
    fn a_node_that_was_late_itself_does_not_blame_others() {
        let last = Timing::default().heartbeat * 40;
        let mut detector = steady(last);
        let now = last + 60_000;
        assert!(detector.is_silent(node(), now));
        detector.was_late(60_000, now);
        assert!(!detector.is_silent(node(), now));
    }

    #[test]
    fn a_replayed_heartbeat_is_no_sign_of_life() {
        let last = Timing::default().heartbeat * 40;
        let mut detector = steady(last);
        assert!(!detector.heard(node(), 1, 3, last + 60_000));
        assert!(detector.is_silent(node(), last + 60_000));
    }

    #[test]
    fn who_has_spoken_once_is_missed_like_anybody_else() {
        let timing = Timing::default();
        let mut detector = Detector::new(timing);
        detector.incarnation(node(), 1, 1000);
        detector.spoke(node(), 1200);
        assert!(!detector.is_silent(node(), 1200 + timing.suspect));
        assert!(detector.is_silent(node(), 1201 + timing.suspect));
        detector.heard(node(), 1, 7, 1300);
        detector.spoke(node(), 60_000);
        assert!(detector.is_silent(node(), 60_000), "a repeated word is no sign of life");
    }

    #[test]
    fn who_has_just_become_known_is_given_time_to_be_heard() {
        let timing = Timing::default();
        let mut detector = Detector::new(timing);
        detector.incarnation(node(), 1, 1000);
        assert!(!detector.is_silent(node(), 1000 + timing.first_contact));
        assert!(detector.is_silent(node(), 1001 + timing.first_contact));
    }
}
