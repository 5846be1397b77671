//! Rate, stream and computation limits of one token, shared by all its sessions over however many connections.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};
use vc_protocol::{ApiError, ErrorCode};

/// Streams of multiplexed sessions at a time, per token. Each may hold one yamux window and one incomplete request.
const MAX_STREAMS: usize = 1024;
/// Requests: at most 1000 at once after an idle time, and 2000 per second.
const REQUESTS: Rate = Rate { burst: 1000, interval: Duration::from_micros(500) };
/// Computations: at most 50 at once after an idle time, and 10 per second.
const COMPUTATIONS: Rate = Rate { burst: 50, interval: Duration::from_millis(100) };
/// Computations that may run or wait at a time, per token: each holds a request, of at most a frame.
const MAX_COMPUTATIONS: usize = 8;

/// Limits what the sessions of one token cost this node.
#[derive(Debug)]
pub(crate) struct Quota {
    streams: Semaphore,
    requests: RateLimiter,
    computations: RateLimiter,
    /// Computations that run or wait.
    pending: Semaphore,
    /// The computation that runs, or waits for those of other tokens.
    running: Semaphore,
}

/// The error at [`MAX_COMPUTATIONS`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this token has {MAX_COMPUTATIONS} plans and Compose files in progress on this node")]
pub(crate) struct TooManyComputations;

impl From<TooManyComputations> for ApiError {
    fn from(error: TooManyComputations) -> Self {
        Self::new(ErrorCode::ResourceExhausted, error.to_string())
            .with_hint("wait for their answers, then repeat it")
    }
}

/// A computation of a token; dropping it lets the token's next one start.
#[derive(Debug)]
pub(crate) struct Computation<'a> {
    _permits: [SemaphorePermit<'a>; 2],
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            streams: Semaphore::new(MAX_STREAMS),
            requests: RateLimiter::new(REQUESTS),
            computations: RateLimiter::new(COMPUTATIONS),
            pending: Semaphore::new(MAX_COMPUTATIONS),
            running: Semaphore::new(1),
        }
    }
}

impl Quota {
    /// Takes a permit for a stream; `None` when [`MAX_STREAMS`] are open.
    pub(crate) fn stream(&self) -> Option<SemaphorePermit<'_>> {
        self.streams.try_acquire().ok()
    }

    /// Waits until the rate limit lets a request start.
    pub(crate) async fn acquire(&self) {
        sleep_until(self.requests.next(Instant::now())).await;
    }

    /// Waits until a computation may start: a plan, a diff or the reading of a Compose file. One of each token does at a
    /// time, so that a token with many takes turns with the others.
    ///
    /// # Errors
    /// The token has [`MAX_COMPUTATIONS`] that run or wait.
    pub(crate) async fn computation(&self) -> Result<Computation<'_>, TooManyComputations> {
        let pending = self.pending.try_acquire().map_err(|_| TooManyComputations)?;
        // The semaphore is never closed.
        let running = self.running.acquire().await.map_err(|_| TooManyComputations)?;
        sleep_until(self.computations.next(Instant::now())).await;
        Ok(Computation { _permits: [running, pending] })
    }
}

/// A sustained rate, and what may exceed it after an idle time.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    interval: Duration,
}

/// The generic cell rate algorithm in its virtual scheduling form (GCRA, ITU-T I.371).
#[derive(Debug)]
struct RateLimiter {
    rate: Rate,
    /// Theoretical arrival time of the next request.
    arrival: Mutex<Instant>,
}

impl RateLimiter {
    fn new(rate: Rate) -> Self {
        Self { rate, arrival: Mutex::new(Instant::now()) }
    }

    /// Returns when a request that arrives at `now` may start.
    fn next(&self, now: Instant) -> Instant {
        let Rate { burst, interval } = self.rate;
        let mut arrival = self.arrival.lock().unwrap_or_else(PoisonError::into_inner);
        *arrival = (*arrival).max(now) + interval;
        arrival.checked_sub(interval * burst).map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn requests_over_the_rate_wait_and_an_idle_time_restores_the_burst() {
        let Rate { burst, interval } = REQUESTS;
        let (limiter, begun) = (RateLimiter::new(REQUESTS), Instant::now());
        assert!((0..burst).all(|_| limiter.next(begun) == begun));
        let last = (0..2000).map(|_| limiter.next(begun)).last().expect("a start time");
        assert_eq!(last - begun, Duration::from_secs(1), "2000 a second");
        let idle = last + interval * burst;
        assert!((0..burst).all(|_| limiter.next(idle) == idle));
        assert!(limiter.next(idle) > idle);
    }

    #[test]
    fn computations_have_a_rate_of_their_own() {
        let Rate { burst, interval } = COMPUTATIONS;
        let (limiter, begun) = (RateLimiter::new(COMPUTATIONS), Instant::now());
        assert!((0..burst).all(|_| limiter.next(begun) <= begun));
        let last = (0..20).map(|_| limiter.next(begun)).last().expect("a start time");
        assert_eq!(last, limiter.next(begun) - interval);
        assert!(last > begun);
    }

    #[tokio::test]
    async fn a_token_runs_one_computation_at_a_time_and_few_wait() {
        let quota = Quota::default();
        let first = quota.computation().await.expect("the first");
        let mut waiting: Vec<_> =
            (1..MAX_COMPUTATIONS).map(|_| Box::pin(quota.computation())).collect();
        assert!(waiting.iter_mut().all(|it| it.now_or_never().is_none()));
        assert_eq!(quota.computation().await.expect_err("one too many"), TooManyComputations);
        drop(first);
        let second = waiting.remove(0).await.expect("the second");
        assert!(waiting.iter_mut().all(|it| it.now_or_never().is_none()));
        drop(second);
    }
}
