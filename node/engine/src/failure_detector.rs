//! Detects nodes that have stopped sending heartbeats.
//!
//! An adaptive timeout in the spirit of the phi-accrual detector (Hayashibara et al. 2004), with the normal distribution
//! replaced by a bound on the mean and the mean deviation of the intervals, as TCP bounds its retransmission timeout (RFC
//! 6298). The intervals are measured: nodes send at different ones, and none says its own. While this node is late itself, or
//! after it accused a node that was alive, a local health multiplier stretches the timeout (Lifeguard, Dadgar et al. 2017).
//! The result is this node's opinion; only accusations in documents count.

use std::collections::BTreeMap;

use vc_protocol::{Millis, NodeId};

use crate::interface::Timing;

/// The largest local health multiplier.
const MAX_HEALTH_MULTIPLIER: u64 = 4;
/// The multiplier decreases by one after this time without a reason to increase it.
const MULTIPLIER_DECAY: Millis = 30_000;
/// An accusation that the same process refutes within this time was false; after it, the node could not be reached meanwhile.
const FALSE_ACCUSATION: Millis = 3000;

/// The heartbeats of one node.
#[derive(Debug, Clone)]
struct Heartbeats {
    incarnation: u64,
    /// Generation of its document: each start of the node begins a new one.
    generation: u64,
    /// Incarnation and number of the last heartbeat; zeros before the first.
    heartbeat: (u64, u64),
    last: Millis,
    /// Mean interval, in eighths of a millisecond; 0 before the second heartbeat.
    mean8: u64,
    /// Mean deviation from it, in eighths of a millisecond.
    deviation8: u64,
    /// For how long it may be silent because it restarts; 0: it has announced no restart.
    restart: Millis,
}

/// The failure detector's state.
pub(crate) struct FailureDetector {
    timing: Timing,
    started: Millis,
    peers: BTreeMap<NodeId, Heartbeats>,
    /// When this node accused a node that has not refuted it yet, and the generation of its document then.
    accused_at: BTreeMap<NodeId, (Millis, u64)>,
    /// The local health multiplier minus one: 0 while this node is healthy.
    penalty: u64,
    penalty_changed: Millis,
    /// When it looked for silent nodes last.
    checked: Millis,
}

impl FailureDetector {
    /// A detector that knows no nodes.
    pub(crate) fn new(timing: Timing, now: Millis) -> Self {
        Self {
            timing,
            started: now,
            peers: BTreeMap::new(),
            accused_at: BTreeMap::new(),
            penalty: 0,
            penalty_changed: 0,
            checked: now,
        }
    }

    /// Takes in a heartbeat. Returns `false` for one that is old or replayed.
    pub(crate) fn heartbeat(
        &mut self,
        node: NodeId,
        incarnation: u64,
        seq: u64,
        now: Millis,
    ) -> bool {
        let new = self.new_peer(incarnation, now);
        let peer = self.peers.entry(node).or_insert(new);
        if (incarnation, seq) <= peer.heartbeat || incarnation < peer.incarnation {
            return false;
        }
        let interval8 = now.saturating_sub(peer.last).min(self.timing.suspect) * 8;
        if peer.mean8 == 0 && peer.heartbeat != (0, 0) {
            (peer.mean8, peer.deviation8) = (interval8, interval8 / 2);
        } else if peer.heartbeat != (0, 0) {
            peer.deviation8 = (peer.deviation8 * 7 + peer.mean8.abs_diff(interval8)) / 8;
            peer.mean8 = (peer.mean8 * 7 + interval8) / 8;
        }
        peer.incarnation = incarnation;
        peer.heartbeat = (incarnation, seq);
        peer.last = now;
        true
    }

    /// Takes in a message other than a heartbeat. It counts until the first heartbeat only: another node may replay it.
    pub(crate) fn saw_activity(&mut self, node: NodeId, now: Millis) {
        if let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.heartbeat == (0, 0)) {
            peer.last = now;
        }
    }

    /// Takes in a node's document: its incarnation and generation, and how long it may be silent because it restarts. A higher incarnation
    /// than before proves that the node was alive; a node that is new gets time to connect.
    pub(crate) fn saw_document(
        &mut self,
        node: NodeId,
        (incarnation, generation): (u64, u64),
        restarting: Option<Millis>,
        now: Millis,
    ) {
        let new = self.new_peer(incarnation, now);
        let peer = self.peers.entry(node).or_insert(new);
        if incarnation > peer.incarnation {
            peer.incarnation = incarnation;
            peer.last = now;
        }
        peer.generation = peer.generation.max(generation);
        peer.restart = restarting.unwrap_or(0).min(self.timing.restart);
    }

    fn new_peer(&self, incarnation: u64, now: Millis) -> Heartbeats {
        let last = now + self.timing.first_contact.saturating_sub(self.timing.suspect);
        Heartbeats {
            incarnation,
            generation: 0,
            heartbeat: (0, 0),
            last,
            mean8: 0,
            deviation8: 0,
            restart: 0,
        }
    }

    /// Shifts all timeouts by the time that this node was late: heartbeats that it missed meanwhile prove nothing.
    pub(crate) fn was_late(&mut self, by: Millis, now: Millis) {
        for peer in self.peers.values_mut() {
            peer.last = (peer.last + by).min(now.max(peer.last));
        }
        // A process that has received nothing yet has started slowly: that is over.
        if by > self.timing.suspect && self.peers.values().any(|peer| peer.heartbeat != (0, 0)) {
            self.increase_penalty(now);
        }
    }

    /// Notes that this node accused another one.
    pub(crate) fn accused(&mut self, node: NodeId, now: Millis) {
        self.accused_at.insert(node, (now, self.generation(node)));
    }

    /// Notes that an accused node has a higher incarnation. One that was started again had died: the accusation was right.
    pub(crate) fn refuted(&mut self, node: NodeId, now: Millis) {
        let Some((at, generation)) = self.accused_at.remove(&node) else { return };
        if now < at + FALSE_ACCUSATION && generation == self.generation(node) {
            self.increase_penalty(now);
        }
    }

    fn generation(&self, node: NodeId) -> u64 {
        self.peers.get(&node).map_or(0, |peer| peer.generation)
    }

    fn increase_penalty(&mut self, now: Millis) {
        self.penalty = (self.penalty + 1).min(MAX_HEALTH_MULTIPLIER - 1);
        self.penalty_changed = now;
    }

    /// Returns when to call [`FailureDetector::handle_timeout`]: the moment that a node becomes silent, and at intervals.
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        let silent = self.peers.values().map(|peer| peer.last + self.timeout(peer) + 1);
        let interval = self.checked + self.timing.silence_check;
        silent.filter(|&at| at > self.checked).chain([interval]).min()
    }

    /// Returns whether it is time to look for silent nodes.
    pub(crate) fn handle_timeout(&mut self, now: Millis) -> bool {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return false;
        }
        self.checked = now;
        if self.penalty > 0 && now >= self.penalty_changed + MULTIPLIER_DECAY {
            self.penalty -= 1;
            self.penalty_changed = now;
        }
        true
    }

    /// Returns for how long a node has sent no heartbeat, if that is longer than its intervals or its restart allow.
    pub(crate) fn silence(&self, node: NodeId, now: Millis) -> Option<Millis> {
        let peer = self.peers.get(&node)?;
        (now > peer.last + self.timeout(peer)).then(|| now - peer.last)
    }

    /// Returns for how long a node has sent no heartbeat; `None` if it has sent none since the start.
    pub(crate) fn heard(&self, node: NodeId, now: Millis) -> Option<Millis> {
        let peer = self.peers.get(&node).filter(|peer| peer.heartbeat != (0, 0))?;
        Some(now.saturating_sub(peer.last))
    }

    /// Returns for how long this detector has watched.
    pub(crate) fn watched_for(&self, now: Millis) -> Millis {
        now.saturating_sub(self.started)
    }

    /// Returns for how long a node may be silent: a pause after the longest interval that is usual for it.
    fn timeout(&self, peer: &Heartbeats) -> Millis {
        let expected = (peer.mean8 + 4 * peer.deviation8) / 8 + self.timing.pause;
        let usual =
            expected.clamp(self.timing.suspect, self.timing.suspect * 4) * (1 + self.penalty);
        usual.max(peer.restart)
    }

    /// Forgets nodes that are not members any more.
    pub(crate) fn retain(&mut self, is_member: impl Fn(&NodeId) -> bool) {
        self.peers.retain(|node, _| is_member(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        let key = vc_protocol::Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    fn steady(until: Millis) -> FailureDetector {
        let timing = Timing::default();
        let mut detector = FailureDetector::new(timing, 0);
        let mut now = 0;
        let mut seq = 0;
        while now <= until {
            seq += 1;
            detector.heartbeat(node(), 1, seq, now);
            now += timing.heartbeat;
        }
        detector
    }

    fn is_silent(detector: &FailureDetector, now: Millis) -> bool {
        detector.silence(node(), now).is_some()
    }

    #[test]
    fn a_node_whose_heartbeats_stop_is_silent_after_the_suspect_time() {
        let timing = Timing::default();
        let last = timing.heartbeat * 40;
        let detector = steady(last);
        assert!(!is_silent(&detector, last + timing.suspect));
        assert!(is_silent(&detector, last + timing.suspect + 1));
    }

    #[test]
    fn the_timer_is_due_when_a_node_becomes_silent_and_again_while_it_stays_so() {
        let timing = Timing::default();
        let last = timing.heartbeat * 40;
        let mut detector = steady(last);
        let silent = last + timing.suspect + 1;
        assert!(detector.handle_timeout(silent - 10));
        assert_eq!(detector.poll_timeout(), Some(silent));
        assert!(!detector.handle_timeout(silent - 1));
        assert!(detector.handle_timeout(silent));
        assert_eq!(detector.poll_timeout(), Some(silent + timing.silence_check));
    }

    /// Returns a detector of a node that sends at this interval, and when it sent last.
    fn regular(interval: Millis) -> (FailureDetector, Millis) {
        let mut detector = FailureDetector::new(Timing::default(), 0);
        (1..=40).for_each(|seq| _ = detector.heartbeat(node(), 1, seq, seq * interval));
        (detector, 40 * interval)
    }

    #[test]
    fn a_node_may_pause_after_any_interval_between_its_heartbeats() {
        // 500 ms: versions before 200 ms. 1000 ms: a large cluster.
        for interval in [200, 500, 1000] {
            let (detector, last) = regular(interval);
            let pause = Timing::default().pause;
            assert!(!is_silent(&detector, last + interval + pause), "{interval} ms");
            assert!(is_silent(&detector, last + interval + 2 * pause), "{interval} ms");
        }
    }

    #[test]
    fn a_node_that_has_paused_gets_more_time_until_its_heartbeats_are_regular_again() {
        let (mut detector, last) = regular(200);
        let usual = Timing::default().suspect;
        let woke = last + 1700;
        assert!(detector.heartbeat(node(), 1, 41, woke));
        assert!(!is_silent(&detector, woke + usual + 500));
        (1..=40).for_each(|n| _ = detector.heartbeat(node(), 1, 41 + n, woke + n * 200));
        assert!(is_silent(&detector, woke + 8000 + usual + 1));
    }

    #[test]
    fn a_node_that_was_late_itself_accuses_no_other() {
        let last = Timing::default().heartbeat * 40;
        let mut detector = steady(last);
        let now = last + 60_000;
        assert!(is_silent(&detector, now));
        detector.was_late(60_000, now);
        assert!(!is_silent(&detector, now));
    }

    #[test]
    fn a_false_accusation_lengthens_the_timeout_and_a_right_one_does_not() {
        let last = Timing::default().heartbeat * 40;
        let timeout_after = |generation: u64| {
            let mut detector = steady(last);
            detector.saw_document(node(), (1, 1), None, last);
            detector.accused(node(), last + 1800);
            detector.saw_document(node(), (2, generation), None, last + 2000);
            detector.refuted(node(), last + 2000);
            detector.silence(node(), last + 2000 + 1801)
        };
        assert_eq!(timeout_after(1), None, "the same process refuted it: it was alive");
        assert_eq!(timeout_after(2), Some(1801), "it was started again within a second");
    }

    #[test]
    fn a_slow_start_does_not_lengthen_the_timeout_and_a_late_process_does() {
        let timing = Timing::default();
        let mut detector = FailureDetector::new(timing, 0);
        detector.was_late(5000, 5000);
        (1..=40).for_each(|seq| _ = detector.heartbeat(node(), 1, seq, 5000 + seq * 200));
        assert!(is_silent(&detector, 13_001 + timing.suspect));
        detector.was_late(timing.suspect + 1, 13_000);
        assert!(!is_silent(&detector, 13_001 + timing.suspect));
    }

    #[test]
    fn a_replayed_heartbeat_does_not_count() {
        let last = Timing::default().heartbeat * 40;
        let mut detector = steady(last);
        assert!(!detector.heartbeat(node(), 1, 3, last + 60_000));
        assert!(is_silent(&detector, last + 60_000));
    }

    #[test]
    fn a_node_that_was_started_again_counts_its_heartbeats_from_one() {
        let last = Timing::default().heartbeat * 40;
        let mut detector = steady(last);
        detector.saw_document(node(), (2, 1), None, last + 100);
        assert!(!detector.heartbeat(node(), 1, 900, last + 200), "of the life before");
        assert!(detector.heartbeat(node(), 2, 1, last + 300));
        assert!(!detector.heartbeat(node(), 2, 1, last + 400));
        assert!(detector.heartbeat(node(), 3, 1, last + 500), "a heartbeat before its document");
    }

    #[test]
    fn a_node_that_announced_a_restart_is_silent_after_its_bound() {
        let timing = Timing::default();
        let last = timing.heartbeat * 40;
        let mut detector = steady(last);
        detector.saw_document(node(), (1, 1), Some(u64::MAX), last);
        assert!(!is_silent(&detector, last + timing.restart), "bounded by this node's own limit");
        assert!(is_silent(&detector, last + timing.restart + 1));
        detector.saw_document(node(), (2, 1), None, last + 5000);
        assert!(is_silent(&detector, last + 5001 + timing.suspect), "it has restarted");
    }

    #[test]
    fn other_messages_count_until_the_first_heartbeat() {
        let timing = Timing::default();
        let mut detector = FailureDetector::new(timing, 0);
        detector.saw_document(node(), (1, 1), None, 1000);
        detector.saw_activity(node(), 1200);
        assert!(!is_silent(&detector, 1200 + timing.suspect));
        assert!(is_silent(&detector, 1201 + timing.suspect));
        detector.heartbeat(node(), 1, 7, 1300);
        detector.saw_activity(node(), 60_000);
        assert!(is_silent(&detector, 60_000), "a message that may be replayed does not count");
    }

    #[test]
    fn a_new_node_gets_the_first_contact_time() {
        let timing = Timing::default();
        let mut detector = FailureDetector::new(timing, 0);
        detector.saw_document(node(), (1, 1), None, 1000);
        assert!(!is_silent(&detector, 1000 + timing.first_contact));
        assert!(is_silent(&detector, 1001 + timing.first_contact));
    }
}
