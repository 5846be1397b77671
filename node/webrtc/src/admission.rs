//! Who may begin a connection: bounds on strangers, in all and of one source.
//!
//! A stranger costs this node an entry of a table when it has sent a signed check, and a task when it begins with DTLS; both
//! can come from an address that is not the sender's. Whoever has completed DTLS has answered from it. At the bound, the oldest
//! stranger that has not gives way: one of the same source if the source is at its own bound, else any. So a flood displaces
//! itself, and somebody who knocks in between has as long as the flood takes to fill the table. Keys cost nothing, so those who
//! have authenticated themselves are bounded by source as well.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Connections of one source that may begin in one burst.
const BURST: f64 = 64.0;
/// Connections of one source that may begin a second, in the long run.
const RATE: f64 = 16.0;
/// Sources whose rate is remembered. Beyond that all are forgotten: the bounds on the number of strangers still hold.
const SOURCES: usize = 4096;

/// Where a connection comes from: an IPv4 address, or an IPv6 network of 64 bits, which is what one customer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(IpAddr);

/// What a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections that are not authenticated yet.
    pub handshakes: usize,
    /// Of these, how many one source may have.
    pub handshakes_of_source: usize,
    /// How long a handshake may take, from the first packet until the browser is authenticated.
    pub handshake: Duration,
    /// Authenticated connections.
    pub connections: usize,
    /// Of these, how many one source may have.
    pub connections_of_source: usize,
    /// How long nothing may be heard of a browser before its connection is closed. Browsers let hear of themselves every 2 to 3
    /// seconds.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 512,
            handshakes_of_source: 64,
            handshake: Duration::from_secs(10),
            connections: 256,
            connections_of_source: 64,
            silence: Duration::from_secs(15),
        }
    }
}

/// Whether somebody may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Yes, and this other one has to go for it.
    Admit { displace: Option<u64> },
    /// No.
    Refuse,
}

/// The strangers of a listener, and those who are none any more.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    strangers: HashMap<u64, Stranger>,
    of_source: HashMap<Source, usize>,
    /// In the order in which they came; those that have gone stay until their turn or [`Admission::compact`].
    order: VecDeque<u64>,
    buckets: HashMap<Source, Bucket>,
    connections: HashMap<u64, Source>,
}

#[derive(Debug)]
struct Stranger {
    source: Source,
    /// Has completed DTLS: it cannot be displaced any more.
    answered: bool,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Source {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
            }
        })
    }
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        *self = Self { tokens: (self.tokens + passed * RATE).min(BURST), filled: now };
    }
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            strangers: HashMap::new(),
            of_source: HashMap::new(),
            order: VecDeque::new(),
            buckets: HashMap::new(),
            connections: HashMap::new(),
        }
    }

    /// Whether `id` from `source` may begin. If it may, it is a stranger from now on, and the one that it displaces is not.
    pub(crate) fn begin(&mut self, id: u64, source: Source, now: Instant) -> Verdict {
        if !self.has_room(source) || !self.spend(source, now) {
            return Verdict::Refuse;
        }
        let of_source = self.of_source.get(&source).copied().unwrap_or(0);
        let displace = if of_source >= self.limits.handshakes_of_source {
            self.oldest(Some(source))
        } else if self.strangers.len() >= self.limits.handshakes {
            self.oldest(None)
        } else {
            return self.admit(id, source, None);
        };
        match displace {
            Some(other) => {
                self.end(other);
                self.admit(id, source, Some(other))
            }
            None => Verdict::Refuse,
        }
    }

    fn admit(&mut self, id: u64, source: Source, displace: Option<u64>) -> Verdict {
        self.compact();
        self.strangers.insert(id, Stranger { source, answered: false });
        *self.of_source.entry(source).or_default() += 1;
        self.order.push_back(id);
        Verdict::Admit { displace }
    }

    /// Whether there may be one more authenticated connection from a source.
    fn has_room(&self, source: Source) -> bool {
        let of_source = self.connections.values().filter(|other| **other == source).count();
        self.connections.len() < self.limits.connections
            && of_source < self.limits.connections_of_source
    }

    /// A stranger has authenticated itself: whether it may stay.
    pub(crate) fn establish(&mut self, id: u64) -> bool {
        let Some(source) = self.strangers.get(&id).map(|stranger| stranger.source) else {
            return false;
        };
        self.end(id);
        let stays = self.has_room(source);
        if stays {
            self.connections.insert(id, source);
        }
        stays
    }

    /// A stranger has answered from the address it claimed.
    pub(crate) fn answered(&mut self, id: u64) {
        if let Some(stranger) = self.strangers.get_mut(&id) {
            stranger.answered = true;
        }
    }

    /// A stranger or a connection is gone.
    pub(crate) fn end(&mut self, id: u64) {
        self.connections.remove(&id);
        let Some(stranger) = self.strangers.remove(&id) else { return };
        if let Some(count) = self.of_source.get_mut(&stranger.source) {
            *count -= 1;
            if *count == 0 {
                self.of_source.remove(&stranger.source);
            }
        }
    }

    fn oldest(&self, source: Option<Source>) -> Option<u64> {
        let displaceable = |id: &&u64| {
            self.strangers
                .get(id)
                .is_some_and(|s| !s.answered && source.is_none_or(|source| s.source == source))
        };
        self.order.iter().find(displaceable).copied()
    }

    fn compact(&mut self) {
        if self.order.len() >= 2 * self.limits.handshakes {
            let strangers = &self.strangers;
            self.order.retain(|id| strangers.contains_key(id));
        }
    }

    fn spend(&mut self, source: Source, now: Instant) -> bool {
        if self.buckets.len() >= SOURCES && !self.buckets.contains_key(&source) {
            self.buckets.retain(|_, bucket| {
                bucket.fill(now);
                bucket.tokens < BURST
            });
            if self.buckets.len() >= SOURCES {
                self.buckets.clear();
            }
        }
        let bucket = self.buckets.entry(source).or_insert(Bucket { tokens: BURST, filled: now });
        bucket.fill(now);
        let spent = bucket.tokens >= 1.0;
        if spent {
            bucket.tokens -= 1.0;
        }
        spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(n: u8) -> Source {
        Source::of(IpAddr::from([10, 0, 0, n]))
    }

    fn limits(handshakes: usize, of_source: usize) -> Limits {
        Limits { handshakes, handshakes_of_source: of_source, ..Limits::default() }
    }

    #[test]
    fn at_the_bound_of_a_source_its_own_oldest_gives_way() {
        let (mut admission, now) = (Admission::new(limits(10, 2)), Instant::now());
        for id in [1, 2, 3] {
            let source = source(if id == 1 { 9 } else { 7 });
            assert_eq!(admission.begin(id, source, now), Verdict::Admit { displace: None });
        }
        assert_eq!(admission.begin(4, source(7), now), Verdict::Admit { displace: Some(2) });
        assert_eq!(admission.begin(5, source(7), now), Verdict::Admit { displace: Some(3) });
    }

    #[test]
    fn at_the_bound_in_all_the_oldest_of_all_gives_way() {
        let (mut admission, now) = (Admission::new(limits(2, 2)), Instant::now());
        admission.begin(1, source(1), now);
        admission.begin(2, source(2), now);
        assert_eq!(admission.begin(3, source(3), now), Verdict::Admit { displace: Some(1) });
    }

    #[test]
    fn whoever_has_answered_is_not_displaced() {
        let (mut admission, now) = (Admission::new(limits(2, 2)), Instant::now());
        admission.begin(1, source(1), now);
        admission.begin(2, source(2), now);
        admission.answered(1);
        assert_eq!(admission.begin(3, source(3), now), Verdict::Admit { displace: Some(2) });
        admission.answered(3);
        assert_eq!(admission.begin(4, source(4), now), Verdict::Refuse);
        admission.end(1);
        assert_eq!(admission.begin(4, source(4), now), Verdict::Admit { displace: None });
    }

    #[test]
    fn a_source_that_knocks_too_often_waits() {
        let (mut admission, now) = (Admission::new(Limits::default()), Instant::now());
        let burst =
            (0..200).filter(|id| admission.begin(*id, source(1), now) != Verdict::Refuse).count();
        assert_eq!(burst, BURST as usize);
        assert_ne!(
            admission.begin(500, source(2), now),
            Verdict::Refuse,
            "another source does not wait"
        );
        let later = now + Duration::from_secs(1);
        let second = (600..800)
            .filter(|id| admission.begin(*id, source(1), later) != Verdict::Refuse)
            .count();
        assert_eq!(second, RATE as usize);
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }

    #[test]
    fn nobody_begins_when_all_connections_are_taken_or_all_of_the_source() {
        let limits = Limits { connections: 3, connections_of_source: 2, ..Limits::default() };
        let (mut admission, now) = (Admission::new(limits), Instant::now());
        let admitted = Verdict::Admit { displace: None };
        for id in [1, 2, 3] {
            assert_eq!(admission.begin(id, source(1), now), admitted);
        }
        assert!(admission.establish(1) && admission.establish(2));
        assert!(!admission.establish(3), "it began when there was room");
        assert_eq!(admission.begin(4, source(1), now), Verdict::Refuse);
        assert_eq!(admission.begin(5, source(2), now), admitted);
        assert!(admission.establish(5));
        assert_eq!(admission.begin(6, source(3), now), Verdict::Refuse);
        admission.end(1);
        assert_eq!(admission.begin(7, source(1), now), admitted);
    }

    proptest! {
        #[test]
        fn the_bounds_hold_whatever_comes(steps in proptest::collection::vec((0u8..4, any::<u8>(), 0u64..40), 0..400)) {
            let mut admission = Admission::new(limits(8, 3));
            let mut now = Instant::now();
            for (next, (what, from, which)) in steps.into_iter().enumerate() {
                now += Duration::from_millis(20);
                match what {
                    0 | 1 => { admission.begin(1000 + next as u64, source(from % 5), now); }
                    2 => admission.answered(1000 + which * 10),
                    _ => admission.end(1000 + which * 10),
                }
                prop_assert!(admission.strangers.len() <= 8);
                prop_assert!(admission.of_source.values().all(|count| (1..=3).contains(count)));
                prop_assert_eq!(admission.of_source.values().sum::<usize>(), admission.strangers.len());
                prop_assert!(admission.order.len() <= 16);
            }
        }
    }
}
