//! How fast this node sends volumes to other nodes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes that may be sent at once after a pause, as a time at the full rate: longer than a tick of the timer.
const BURST: Duration = Duration::from_millis(20);
/// For how long at most what services have sent holds volumes up.
const MAX_DEBT: Duration = Duration::from_secs(1);
/// Volumes get one part in so many of the rate, however much services send: a replica that gets nothing is none.
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
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        let now = Instant::now();
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
    pub(crate) fn reserve_for_volumes(&self, bytes: usize) -> Option<Instant> {
        let buckets = self.0.as_ref()?;
        let Buckets { all, least } = &mut *buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut at = all.free_at;
        if at > now && least.free_at < at {
            at = least.free_at;
            least.take(bytes, now);
        }
        all.take(bytes, now);
        (at > now).then_some(at)
    }

    /// Notes what services have sent.
    pub(crate) fn sent_by_services(&self, bytes: usize) {
        let Some(buckets) = &self.0 else { return };
        let all = &mut buckets.lock().unwrap_or_else(PoisonError::into_inner).all;
        let now = Instant::now();
        let before = all.free_at;
        all.take(bytes, now);
        all.free_at = all.free_at.min(before.max(now + MAX_DEBT));
    }
}
