//! Counts what goes between this node and other members.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes and images since the start of the process.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
    transfers: AtomicU64,
    failures: AtomicU64,
}

/// What images this node got from other members, and sent to them, since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImageTraffic {
    /// Bytes of layers sent.
    pub sent: u64,
    /// Bytes of layers received.
    pub received: u64,
    /// Images that were got from members.
    pub transfers: u64,
    /// Images that were to be got from members and could not be.
    pub failures: u64,
}

impl Traffic {
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
    }

    pub(super) fn ended(&self, succeeded: bool) {
        let counter = if succeeded { &self.transfers } else { &self.failures };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn counts(&self) -> ImageTraffic {
        ImageTraffic {
            sent: self.sent.load(Relaxed),
            received: self.received.load(Relaxed),
            transfers: self.transfers.load(Relaxed),
            failures: self.failures.load(Relaxed),
        }
    }
}
