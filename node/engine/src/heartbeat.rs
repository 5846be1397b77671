//! Decides when this node sends heartbeats.

use vc_protocol::Millis;

/// Time from a new connection to the next heartbeat, at most.
const AFTER_CONNECT: Millis = 100;

/// The timer of this node's heartbeats.
pub(crate) struct HeartbeatTimer {
    next: Millis,
    /// Number of the last heartbeat.
    seq: u64,
}

impl HeartbeatTimer {
    /// A timer whose first heartbeat is due at once.
    pub(crate) fn new(now: Millis) -> Self {
        Self { next: now, seq: 0 }
    }

    /// Brings the next heartbeat forward, for a peer that has just connected. Not at once: it does not listen yet.
    pub(crate) fn connected(&mut self, now: Millis) {
        self.next = self.next.min(now + AFTER_CONNECT);
    }

    /// Returns when to call [`HeartbeatTimer::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        Some(self.next)
    }

    /// Returns the number of the next heartbeat, from 1.
    pub(crate) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Returns whether a heartbeat is due; the one after it is due `interval` later.
    pub(crate) fn handle_timeout(&mut self, now: Millis, interval: Millis) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + interval;
        }
        due
    }
}
