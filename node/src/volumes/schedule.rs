//! When the next snapshot is due, and when to try again.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest time from the beginning of one snapshot to that of the next.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// The instances are paused for at most one part in so many of the time.
const MIN_INTERVALS_PER_PAUSE: u32 = 100;
/// Snapshots are taken at most half of the time.
const MIN_INTERVALS_PER_SNAPSHOT: u32 = 2;
/// A volume that does not change is looked through for at most one part in so many of the time.
const MIN_INTERVALS_PER_LOOK: u32 = 20;
/// The first and the longest time between attempts.
const RETRY_INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// When the next snapshot of a volume is due, by the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    due: Instant,
}

impl Schedule {
    /// The first snapshot after the volume began to be written.
    pub(super) fn begin(now: Instant) -> Self {
        Self { due: now + MIN_INTERVAL }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Notes a snapshot.
    pub(super) fn taken(&mut self, begun: Instant, duration: Duration, paused: Duration) {
        let shortest = MIN_INTERVAL.max(paused * MIN_INTERVALS_PER_PAUSE);
        self.due = begun + shortest.max(duration * MIN_INTERVALS_PER_SNAPSHOT);
    }

    /// Notes that nothing had changed.
    pub(super) fn unchanged(&mut self, begun: Instant, duration: Duration) {
        self.due = begun + MIN_INTERVAL.max(duration * MIN_INTERVALS_PER_LOOK);
    }
}

/// Time until the next attempt, twice as long after each one that failed.
#[derive(Debug)]
pub(super) struct Retry(Duration);

impl Retry {
    pub(super) fn new() -> Self {
        Self(RETRY_INTERVAL.0)
    }

    /// Returns whether no attempt has failed since it is new.
    pub(super) fn is_new(&self) -> bool {
        self.0 == RETRY_INTERVAL.0
    }

    /// Returns how long to wait after an attempt that failed.
    pub(super) fn after_failure(&mut self) -> Duration {
        let pause = self.0;
        self.0 = RETRY_INTERVAL.1.min(pause * 2);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_paused_for_less_than_one_percent_of_the_time() {
        let start = Instant::now();
        let millis = Duration::from_millis;
        let due = |duration, paused| {
            let mut schedule = Schedule::begin(start);
            schedule.taken(start, duration, paused);
            schedule.due() - start
        };
        assert_eq!(Schedule::begin(start).due() - start, millis(5000));
        assert_eq!(due(millis(300), millis(20)), millis(5000));
        assert_eq!(due(millis(300), millis(80)), millis(8000));
        assert_eq!(due(millis(20_000), millis(80)), millis(40_000), "a slow disk");
        let mut idle = Schedule::begin(start);
        for (look, interval) in [(10, 5000), (250, 5000), (1000, 20_000)] {
            idle.unchanged(start, millis(look));
            assert_eq!(idle.due() - start, millis(interval));
        }
    }

    #[test]
    fn attempts_become_rarer() {
        let mut retry = Retry::new();
        assert!(retry.is_new());
        let pauses: Vec<u64> = (0..8).map(|_| retry.after_failure().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(!retry.is_new());
    }
}
