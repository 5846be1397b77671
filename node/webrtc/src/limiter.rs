//! Limits pending and established connections, in total and per source address, and the rate of new ones per source (a token
//! bucket as rate limiter).
//!
//! A pending connection costs a table entry after its first signed check and a task once it starts DTLS; the source address of both
//! can be spoofed. Completing DTLS validates the address. At a limit, the oldest pending connection with an unvalidated address is
//! evicted, or the oldest if all are validated: one of the same source at the source's limit, any at the total limit. So a flood
//! evicts itself, and a browser that connects meanwhile has as long as the flood needs to fill the table. Peer ids are free to create, so authenticated connections
//! are limited per source as well.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Connections that one source can start in a burst.
const BURST: f64 = 64.0;
/// Connections that one source can start per second, in the long run.
const RATE: f64 = 16.0;
/// Sources whose rate is tracked. Beyond that all are cleared; the limits on pending connections still hold.
const MAX_SOURCES: usize = 4096;

/// The source of a connection: an IPv4 address, or an IPv6 /64, the usual allocation of one customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

/// Limits of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum connections that are not authenticated yet.
    pub pending: usize,
    /// Maximum of these per source.
    pub pending_per_source: usize,
    /// Time from a browser's first packet until it must be authenticated.
    pub handshake_timeout: Duration,
    /// Maximum authenticated connections.
    pub connections: usize,
    /// Maximum of these per source.
    pub connections_per_source: usize,
    /// Time without a packet from the browser after which its connection is closed. Browsers send a check every 2 to 3 seconds.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending: 512,
            pending_per_source: 64,
            handshake_timeout: Duration::from_secs(10),
            connections: 256,
            connections_per_source: 64,
            idle_timeout: Duration::from_secs(15),
        }
    }
}

/// Whether a connection may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It may, after the caller has removed the pending connection `evict`.
    Accept {
        evict: Option<u64>,
    },
    Reject,
}

/// Counts the pending and established connections of a listener.
#[derive(Debug)]
pub(crate) struct ConnectionLimiter {
    limits: Limits,
    pending: HashMap<u64, PendingConnection>,
    pending_per_source: HashMap<Source, usize>,
    /// Pending ids, oldest first. Removed ones stay until [`ConnectionLimiter::compact`].
    order: VecDeque<u64>,
    buckets: HashMap<Source, TokenBucket>,
    connections: HashMap<u64, Source>,
}

/// A connection whose peer has not authenticated yet.
#[derive(Debug)]
struct PendingConnection {
    source: Source,
    /// Has completed DTLS: is evicted after those that have not.
    validated: bool,
}

#[derive(Debug, Clone, Copy)]
struct TokenBucket {
    tokens: f64,
    refilled: Instant,
}

impl Source {
    /// Returns the source that an address belongs to. A socket for both IP versions reports IPv4 addresses in IPv6 form.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
            }
        })
    }
}

impl TokenBucket {
    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        *self = Self { tokens: (self.tokens + elapsed * RATE).min(BURST), refilled: now };
    }
}

impl ConnectionLimiter {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            pending: HashMap::new(),
            pending_per_source: HashMap::new(),
            order: VecDeque::new(),
            buckets: HashMap::new(),
            connections: HashMap::new(),
        }
    }

    /// Decides whether connection `id` from `source` may start. If so, it is pending from now on, and the evicted one is not.
    pub(crate) fn start(&mut self, id: u64, source: Source, now: Instant) -> Decision {
        if !self.has_capacity(source) || !self.take_token(source, now) {
            return Decision::Reject;
        }
        let of_source = self.pending_per_source.get(&source).copied().unwrap_or(0);
        let evict = if of_source >= self.limits.pending_per_source {
            self.oldest(Some(source))
        } else if self.pending.len() >= self.limits.pending {
            self.oldest(None)
        } else {
            return self.accept(id, source, None);
        };
        match evict {
            Some(other) => {
                self.remove(other);
                self.accept(id, source, Some(other))
            }
            None => Decision::Reject,
        }
    }

    fn accept(&mut self, id: u64, source: Source, evict: Option<u64>) -> Decision {
        self.compact();
        self.pending.insert(id, PendingConnection { source, validated: false });
        *self.pending_per_source.entry(source).or_default() += 1;
        self.order.push_back(id);
        Decision::Accept { evict }
    }

    /// Returns whether one more authenticated connection from `source` is within the limits.
    fn has_capacity(&self, source: Source) -> bool {
        let of_source = self.connections.values().filter(|other| **other == source).count();
        self.connections.len() < self.limits.connections
            && of_source < self.limits.connections_per_source
    }

    /// Moves an authenticated connection from pending to established. Returns false if that exceeds a limit.
    pub(crate) fn establish(&mut self, id: u64) -> bool {
        let Some(source) = self.pending.get(&id).map(|pending| pending.source) else {
            return false;
        };
        self.remove(id);
        let accepted = self.has_capacity(source);
        if accepted {
            self.connections.insert(id, source);
        }
        accepted
    }

    /// Records that a pending connection has completed DTLS, so its source address is not spoofed.
    pub(crate) fn validate(&mut self, id: u64) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.validated = true;
        }
    }

    /// Removes a pending or established connection.
    pub(crate) fn remove(&mut self, id: u64) {
        self.connections.remove(&id);
        let Some(pending) = self.pending.remove(&id) else { return };
        if let Some(count) = self.pending_per_source.get_mut(&pending.source) {
            *count -= 1;
            if *count == 0 {
                self.pending_per_source.remove(&pending.source);
            }
        }
    }

    /// Returns the oldest pending connection, of those with an unvalidated address if there are any.
    fn oldest(&self, source: Option<Source>) -> Option<u64> {
        let pending = self.order.iter().filter_map(|id| Some((*id, self.pending.get(id)?)));
        let evictable = pending.filter(|(_, it)| source.is_none_or(|source| it.source == source));
        // The first of equal keys.
        evictable.min_by_key(|(_, it)| it.validated).map(|(id, _)| id)
    }

    fn compact(&mut self) {
        if self.order.len() >= 2 * self.limits.pending {
            let pending = &self.pending;
            self.order.retain(|id| pending.contains_key(id));
        }
    }

    fn take_token(&mut self, source: Source, now: Instant) -> bool {
        if self.buckets.len() >= MAX_SOURCES && !self.buckets.contains_key(&source) {
            self.buckets.retain(|_, bucket| {
                bucket.refill(now);
                bucket.tokens < BURST
            });
            if self.buckets.len() >= MAX_SOURCES {
                self.buckets.clear();
            }
        }
        let bucket =
            self.buckets.entry(source).or_insert(TokenBucket { tokens: BURST, refilled: now });
        bucket.refill(now);
        let taken = bucket.tokens >= 1.0;
        if taken {
            bucket.tokens -= 1.0;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(n: u8) -> Source {
        Source::of(IpAddr::from([10, 0, 0, n]))
    }

    fn limits(pending: usize, pending_per_source: usize) -> Limits {
        Limits { pending, pending_per_source, ..Limits::default() }
    }

    #[test]
    fn at_a_sources_limit_its_oldest_pending_connection_is_evicted() {
        let (mut limiter, now) = (ConnectionLimiter::new(limits(10, 2)), Instant::now());
        for id in [1, 2, 3] {
            let source = source(if id == 1 { 9 } else { 7 });
            assert_eq!(limiter.start(id, source, now), Decision::Accept { evict: None });
        }
        assert_eq!(limiter.start(4, source(7), now), Decision::Accept { evict: Some(2) });
        assert_eq!(limiter.start(5, source(7), now), Decision::Accept { evict: Some(3) });
    }

    #[test]
    fn at_the_total_limit_the_oldest_pending_connection_is_evicted() {
        let (mut limiter, now) = (ConnectionLimiter::new(limits(2, 2)), Instant::now());
        limiter.start(1, source(1), now);
        limiter.start(2, source(2), now);
        assert_eq!(limiter.start(3, source(3), now), Decision::Accept { evict: Some(1) });
    }

    #[test]
    fn connections_that_completed_dtls_are_evicted_last() {
        let (mut limiter, now) = (ConnectionLimiter::new(limits(2, 2)), Instant::now());
        limiter.start(1, source(1), now);
        limiter.start(2, source(2), now);
        limiter.validate(1);
        assert_eq!(limiter.start(3, source(3), now), Decision::Accept { evict: Some(2) });
        limiter.validate(3);
        assert_eq!(limiter.start(4, source(4), now), Decision::Accept { evict: Some(1) });
        limiter.remove(4);
        assert_eq!(limiter.start(5, source(4), now), Decision::Accept { evict: None });
    }

    #[test]
    fn a_source_is_rate_limited() {
        let (mut limiter, now) = (ConnectionLimiter::new(Limits::default()), Instant::now());
        let burst =
            (0..200).filter(|id| limiter.start(*id, source(1), now) != Decision::Reject).count();
        assert_eq!(burst, BURST as usize);
        assert_ne!(
            limiter.start(500, source(2), now),
            Decision::Reject,
            "another source is not limited"
        );
        let later = now + Duration::from_secs(1);
        let second = (600..800)
            .filter(|id| limiter.start(*id, source(1), later) != Decision::Reject)
            .count();
        assert_eq!(second, RATE as usize);
    }

    #[test]
    fn an_ipv6_64_is_one_source() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("::ffff:192.0.2.1"), of("::ffff:192.0.2.2"));
    }

    #[test]
    fn connections_over_the_limits_are_rejected() {
        let limits = Limits { connections: 3, connections_per_source: 2, ..Limits::default() };
        let (mut limiter, now) = (ConnectionLimiter::new(limits), Instant::now());
        let accepted = Decision::Accept { evict: None };
        for id in [1, 2, 3] {
            assert_eq!(limiter.start(id, source(1), now), accepted);
        }
        assert!(limiter.establish(1) && limiter.establish(2));
        assert!(!limiter.establish(3), "over the limit by the time it authenticates");
        assert_eq!(limiter.start(4, source(1), now), Decision::Reject);
        assert_eq!(limiter.start(5, source(2), now), accepted);
        assert!(limiter.establish(5));
        assert_eq!(limiter.start(6, source(3), now), Decision::Reject);
        limiter.remove(1);
        assert_eq!(limiter.start(7, source(1), now), accepted);
    }

    proptest! {
        #[test]
        fn the_limits_hold_for_any_sequence_of_events(steps in proptest::collection::vec((0u8..4, any::<u8>(), 0u64..40), 0..400)) {
            let mut limiter = ConnectionLimiter::new(limits(8, 3));
            let mut now = Instant::now();
            for (next, (what, from, which)) in steps.into_iter().enumerate() {
                now += Duration::from_millis(20);
                match what {
                    0 | 1 => { limiter.start(1000 + next as u64, source(from % 5), now); }
                    2 => limiter.validate(1000 + which * 10),
                    _ => limiter.remove(1000 + which * 10),
                }
                prop_assert!(limiter.pending.len() <= 8);
                prop_assert!(limiter.pending_per_source.values().all(|count| (1..=3).contains(count)));
                prop_assert_eq!(limiter.pending_per_source.values().sum::<usize>(), limiter.pending.len());
                prop_assert!(limiter.order.len() <= 16);
            }
        }
    }
}
