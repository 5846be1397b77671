//! What one token may have of a node: all its sessions together, however many connections they come by.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

/// Streams of multiplexed sessions at once: each may hold a window and a request that is not complete yet.
const MAX_STREAMS: usize = 1024;
/// Requests that may begin at once after a quiet time.
const BURST: u32 = 1000;
/// After that, one more each so often.
const EVERY: Duration = Duration::from_micros(500);

/// Bounds what the holder of a token costs.
#[derive(Debug)]
pub(crate) struct Quota {
    streams: Semaphore,
    /// When a request would begin if all came evenly: the virtual scheduling of the generic cell rate algorithm
    /// (ITU-T I.371).
    even: Mutex<Instant>,
}

impl Default for Quota {
    fn default() -> Self {
        Self { streams: Semaphore::new(MAX_STREAMS), even: Mutex::new(Instant::now()) }
    }
}

impl Quota {
    /// A place for a stream; `None`: all are taken.
    pub(super) fn stream(&self) -> Option<SemaphorePermit<'_>> {
        self.streams.try_acquire().ok()
    }

    /// Waits until it is a request's turn.
    pub(super) async fn turn(&self) {
        sleep_until(self.next(Instant::now())).await;
    }

    /// When it is the turn of a request that comes now.
    fn next(&self, now: Instant) -> Instant {
        let mut even = self.even.lock().unwrap_or_else(PoisonError::into_inner);
        *even = (*even).max(now) + EVERY;
        even.checked_sub(EVERY * BURST).map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_fast_waits_and_who_rested_need_not() {
        let (quota, begun) = (Quota::default(), Instant::now());
        assert!((0..BURST).all(|_| quota.next(begun) == begun));
        let last = (0..2000).map(|_| quota.next(begun)).last().expect("a turn");
        assert_eq!(last - begun, Duration::from_secs(1), "2000 a second");
        let rested = last + EVERY * BURST;
        assert!((0..BURST).all(|_| quota.next(rested) == rested));
        assert!(quota.next(rested) > rested);
    }
}
