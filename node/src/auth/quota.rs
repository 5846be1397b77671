//! Rate and stream limits of one token, shared by all its sessions over however many connections.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

/// Streams of multiplexed sessions at a time, per token. Each may hold one yamux window and one incomplete request.
const MAX_STREAMS: usize = 1024;
/// Requests that may start at once after an idle time.
const BURST: u32 = 1000;
/// Interval between requests at the sustained rate: 2000 requests per second.
const INTERVAL: Duration = Duration::from_micros(500);

/// Limits what the sessions of one token cost this node.
#[derive(Debug)]
pub(crate) struct Quota {
    streams: Semaphore,
    /// Theoretical arrival time of the next request: the rate limiter is the generic cell rate algorithm in its
    /// virtual scheduling form (GCRA, ITU-T I.371).
    arrival: Mutex<Instant>,
}

impl Default for Quota {
    fn default() -> Self {
        Self { streams: Semaphore::new(MAX_STREAMS), arrival: Mutex::new(Instant::now()) }
    }
}

impl Quota {
    /// Takes a permit for a stream; `None` when [`MAX_STREAMS`] are open.
    pub(crate) fn stream(&self) -> Option<SemaphorePermit<'_>> {
        self.streams.try_acquire().ok()
    }

    /// Waits until the rate limit lets a request start.
    pub(crate) async fn acquire(&self) {
        sleep_until(self.next(Instant::now())).await;
    }

    /// Returns when a request that arrives at `now` may start.
    fn next(&self, now: Instant) -> Instant {
        let mut arrival = self.arrival.lock().unwrap_or_else(PoisonError::into_inner);
        *arrival = (*arrival).max(now) + INTERVAL;
        arrival.checked_sub(INTERVAL * BURST).map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_over_the_rate_wait_and_an_idle_time_restores_the_burst() {
        let (quota, begun) = (Quota::default(), Instant::now());
        assert!((0..BURST).all(|_| quota.next(begun) == begun));
        let last = (0..2000).map(|_| quota.next(begun)).last().expect("a start time");
        assert_eq!(last - begun, Duration::from_secs(1), "2000 a second");
        let idle = last + INTERVAL * BURST;
        assert!((0..BURST).all(|_| quota.next(idle) == idle));
        assert!(quota.next(idle) > idle);
    }
}
