//! How fast this node sends volumes to other nodes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that may be sent at once after a pause, as a time at the full rate: longer than a tick of the timer.
const BURST: Duration = Duration::from_millis(20);
/// For how long at most what services have sent holds volumes up.
const MAX_DEBT: Duration = Duration::from_secs(1);
/// Volumes get this part of the rate, as its divisor, however much services send: a replica that gets nothing is none.
const LEAST_SHARE: u64 = 10;

/// The bound on what this node sends of volumes to other nodes, over all streams. What services send to other nodes comes out of the
/// same rate and does not wait, so that volumes use what services leave of it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Bandwidth(Option<Arc<Mutex<Buckets>>>);

#[derive(Debug)]
struct Buckets {
    /// What volumes and services send.
    all: Bucket,
    /// What volumes send while there is no room beside the services.
    least: Bucket,
}

/// A token bucket in the form of the generic cell rate algorithm (GCRA).
#[derive(Debug)]
struct Bucket {
    bytes_per_second: u64,
    /// When what was sent is paid for: not before that is more sent.
    free_at: Instant,
}

impl Bucket {
    fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), free_at: now }
    }

    fn take(&mut self, bytes: usize, now: Instant) {
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let begin = now.checked_sub(BURST).unwrap_or(now);
        self.free_at = self.free_at.max(begin) + cost;
    }
}

impl Bandwidth {
    /// Returns a bound; `None` for none.
    pub fn new(bytes_per_second: Option<u64>, now: Instant) -> Self {
        Self(bytes_per_second.map(|rate| {
            let (all, least) = (Bucket::new(rate, now), Bucket::new(rate / LEAST_SHARE, now));
            Arc::new(Mutex::new(Buckets { all, least }))
        }))
    }

    /// Returns whether there is a bound.
    pub(crate) fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// Reserves the sending of `bytes` of a volume. Returns when they may be sent; `None` for now. Streams that ask for one turn
    /// after the other get equal shares.
    pub(crate) fn reserve_for_volumes(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let buckets = self.0.as_ref()?;
        let Buckets { all, least } = &mut *buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = all.free_at;
        if at > now && least.free_at < at {
            at = least.free_at;
            least.take(bytes, now);
        }
        all.take(bytes, now);
        (at > now).then_some(at)
    }

    /// Notes what services have sent.
    pub(crate) fn sent_by_services(&self, bytes: usize, now: Instant) {
        let Some(buckets) = &self.0 else { return };
        let all = &mut buckets.lock().unwrap_or_else(PoisonError::into_inner).all;
        let before = all.free_at;
        all.take(bytes, now);
        all.free_at = all.free_at.min(before.max(now + MAX_DEBT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate of the tests, in bytes per second.
    const RATE: u64 = 1 << 20;
    /// What a stream reserves at once.
    const TURN: usize = 16 * 1024;
    /// The time between two connections of services that send something.
    const TICK: Duration = Duration::from_millis(10);

    /// Sends for some seconds of a simulated clock: volumes over streams that always have something to send, and services this many
    /// bytes per second. Returns what each stream has sent.
    fn simulate(bandwidth: &Bandwidth, streams: usize, services: u64, seconds: u64) -> Vec<u64> {
        let start = Instant::now();
        let end = start + Duration::from_secs(seconds);
        let mut sent = vec![0; streams];
        let mut due: Vec<Instant> = vec![start; streams];
        let mut tick = start;
        let mut reserve = |stream: usize, now: Instant| {
            let at = bandwidth.reserve_for_volumes(TURN, now).unwrap_or(now);
            if at < end {
                sent[stream] += TURN as u64;
            }
            at
        };
        loop {
            let next = (0..streams).min_by_key(|it| due[*it]).expect("a stream");
            let now = due[next].min(tick);
            if now >= end {
                return sent;
            }
            if tick <= now {
                let bytes = services * TICK.as_millis() as u64 / 1000;
                bandwidth.sent_by_services(usize::try_from(bytes).expect("fits"), now);
                tick += TICK;
            } else {
                due[next] = reserve(next, now);
            }
        }
    }

    fn limited() -> Bandwidth {
        Bandwidth::new(Some(RATE), Instant::now())
    }

    #[test]
    fn all_streams_together_stay_within_the_bandwidth_and_share_it() {
        let sent = simulate(&limited(), 3, 0, 10);
        let total: u64 = sent.iter().sum();
        // With what may be sent at the beginning: a turn of each, and a burst.
        assert!((RATE * 10 * 99 / 100..=RATE * 10 * 101 / 100).contains(&total), "{total}");
        for of_stream in sent {
            let share = of_stream * 100 / total;
            assert!((32..=34).contains(&share), "{share} %");
        }
    }

    #[test]
    fn volumes_use_what_services_leave_and_always_a_tenth() {
        for (services, left) in [(0, 100), (60, 40), (300, 10)] {
            let sent = simulate(&limited(), 1, RATE * services / 100, 20)[0];
            let share = sent * 100 / (RATE * 20);
            assert!(share.abs_diff(left) <= 2, "{services} %: {share} % instead of {left} %");
        }
    }

    #[test]
    fn services_that_have_sent_much_hold_volumes_up_no_longer_than_a_second() {
        let bandwidth = limited();
        bandwidth.sent_by_services(usize::MAX, Instant::now());
        let sent = simulate(&bandwidth, 1, 0, 11)[0];
        assert!(sent >= RATE * 10, "{sent}");
    }

    #[test]
    fn without_a_bound_nothing_waits() {
        let (bandwidth, now) = (Bandwidth::default(), Instant::now());
        assert!((0..1000).all(|_| bandwidth.reserve_for_volumes(1 << 30, now).is_none()));
    }
}
