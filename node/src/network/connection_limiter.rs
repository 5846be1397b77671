//! Limits the connections of unauthenticated peers, per transport and per source address.
//!
//! A new connection is never refused: at a limit it displaces the oldest one in the same phase. An honest peer completes the
//! handshakes within a few round trips, so a flood displaces its own connections. Sources of known members have room of their own,
//! so that floods from any number of other addresses leave members' handshakes alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::channel::oneshot;
use libp2p::PeerId;
use vc_webrtc::Source;

use super::connection_gater::ConnectionGater;

/// Limits on the connections of one transport in one phase.
struct Limits {
    /// Of sources that are no known member's.
    total: usize,
    per_source: usize,
    /// Of sources of known members.
    reserved: usize,
}

/// In the transport handshake: a socket and a few kilobytes each. For QUIC, the source may be spoofed.
const HANDSHAKE: Limits = Limits { total: 512, per_source: 128, reserved: 256 };
/// Past it: keys, a stream multiplexer and a task each.
const ESTABLISHED: Limits = Limits { total: 256, per_source: 64, reserved: 128 };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TransportKind {
    Tcp,
    Quic,
    WebRtc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Handshake,
    Established,
}

impl Phase {
    fn limits(self) -> &'static Limits {
        match self {
            Self::Handshake => &HANDSHAKE,
            Self::Established => &ESTABLISHED,
        }
    }
}

/// Limits connections. Cheap to clone; all clones share one limit.
#[derive(Clone)]
pub(crate) struct ConnectionLimiter {
    gater: ConnectionGater,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// The connections of each budget, oldest first.
    budgets: HashMap<(TransportKind, Phase), BTreeMap<u64, Entry>>,
    /// Sources of known members.
    reserved: HashSet<Source>,
    next: u64,
}

struct Entry {
    source: Source,
    /// Known once the transport handshake is complete.
    peer: Option<PeerId>,
    /// Dropping it displaces the connection.
    _keep: oneshot::Sender<()>,
}

/// A connection that counts against a limit. Dropping it frees its slot.
pub(super) struct ConnectionPermit {
    limiter: ConnectionLimiter,
    transport: TransportKind,
    phase: Phase,
    number: u64,
    displaced: oneshot::Receiver<()>,
}

/// The connection was closed in favour of a newer one.
#[derive(Debug, thiserror::Error)]
#[error("too many unauthenticated connections: the oldest was closed")]
pub(super) struct Displaced;

impl ConnectionLimiter {
    pub(super) fn new(gater: ConnectionGater) -> Self {
        Self { gater, inner: Arc::default() }
    }

    /// Sets the sources of known members.
    pub(super) fn reserve(&self, sources: HashSet<Source>) {
        self.lock().reserved = sources;
    }

    /// Takes a permit for a connection that starts its handshake, displacing another at a limit.
    pub(super) fn acquire(&self, transport: TransportKind, source: Source) -> ConnectionPermit {
        let (keep, displaced) = oneshot::channel();
        let phase = Phase::Handshake;
        let number = self.insert((transport, phase), Entry { source, peer: None, _keep: keep });
        ConnectionPermit { limiter: self.clone(), transport, phase, number, displaced }
    }

    fn insert(&self, budget: (TransportKind, Phase), entry: Entry) -> u64 {
        let mut inner = self.lock();
        let Inner { budgets, reserved, next } = &mut *inner;
        let (limits, open) = (budget.1.limits(), budgets.entry(budget).or_default());
        let is_reserved = reserved.contains(&entry.source);
        let most = if is_reserved { limits.reserved } else { limits.total };
        // Connections of members and users do not count.
        let counted = open.iter().filter(|(_, other)| {
            !other.peer.is_some_and(|peer| self.gater.is_authenticated(&peer))
                && reserved.contains(&other.source) == is_reserved
        });
        let (mut of_source, mut of_all) = (Vec::new(), Vec::new());
        for (&number, other) in counted {
            of_all.push(number);
            if other.source == entry.source {
                of_source.push(number);
            }
        }
        let oldest = if of_source.len() >= limits.per_source {
            of_source.first()
        } else if of_all.len() >= most {
            of_all.first()
        } else {
            None
        };
        oldest.map(|number| open.remove(number));
        let number = *next;
        *next += 1;
        open.insert(number, entry);
        number
    }

    fn remove(&self, budget: (TransportKind, Phase), number: u64) -> Option<Entry> {
        self.lock().budgets.get_mut(&budget)?.remove(&number)
    }

    // No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Records that the transport handshake proved the peer's id. Errors: the connection has been displaced.
    pub(super) fn establish(&mut self, peer: PeerId) -> Result<(), Displaced> {
        let entry = self.limiter.remove((self.transport, self.phase), self.number);
        let entry = entry.ok_or(Displaced)?;
        self.phase = Phase::Established;
        let entry = Entry { peer: Some(peer), ..entry };
        self.number = self.limiter.insert((self.transport, self.phase), entry);
        Ok(())
    }

    /// Completes when the connection is displaced.
    pub(super) fn poll_displaced(&mut self, cx: &mut Context<'_>) -> Poll<Displaced> {
        self.displaced.poll_unpin(cx).map(|_| Displaced)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limiter.remove((self.transport, self.phase), self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn source(n: usize) -> Source {
        Source::of(IpAddr::from([10, 0, (n >> 8) as u8, n as u8]))
    }

    fn is_displaced(permit: &mut ConnectionPermit) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        permit.poll_displaced(&mut cx).is_ready()
    }

    fn displaced(permits: &mut [ConnectionPermit]) -> Vec<usize> {
        (0..permits.len()).filter(|&i| is_displaced(&mut permits[i])).collect()
    }

    #[test]
    fn at_its_limit_a_source_displaces_its_own_oldest_handshake() {
        let limiter = ConnectionLimiter::new(ConnectionGater::default());
        let mut other = limiter.acquire(TransportKind::Tcp, source(2));
        let mut permits: Vec<_> = (0..HANDSHAKE.per_source + 2)
            .map(|_| limiter.acquire(TransportKind::Tcp, source(1)))
            .collect();
        assert_eq!(displaced(&mut permits), [0, 1]);
        assert!(!is_displaced(&mut other));
        assert!(permits[0].establish(PeerId::random()).is_err());
    }

    #[test]
    fn many_sources_displace_neither_members_nor_another_transport() {
        let limiter = ConnectionLimiter::new(ConnectionGater::default());
        limiter.reserve(HashSet::from([source(1)]));
        let mut member = limiter.acquire(TransportKind::Tcp, source(1));
        let mut quic = limiter.acquire(TransportKind::Quic, source(2));
        let mut permits: Vec<_> = (0..HANDSHAKE.total + 3)
            .map(|n| limiter.acquire(TransportKind::Tcp, source(100 + n)))
            .collect();
        assert_eq!(displaced(&mut permits), [0, 1, 2]);
        assert!(!is_displaced(&mut member) && !is_displaced(&mut quic));
        drop((permits, member, quic));
        assert!(limiter.lock().budgets.values().all(BTreeMap::is_empty));
    }

    #[test]
    fn connections_with_a_session_are_not_displaced_until_it_ends() {
        let gater = ConnectionGater::default();
        let limiter = ConnectionLimiter::new(gater.clone());
        let connect = |peer| {
            let mut permit = limiter.acquire(TransportKind::Tcp, source(1));
            permit.establish(peer).expect("not displaced");
            permit
        };
        let user = PeerId::random();
        let mut first = connect(user);
        let session = gater.start_session(user);
        let mut permits: Vec<_> =
            (0..=ESTABLISHED.per_source).map(|_| connect(PeerId::random())).collect();
        assert!(!is_displaced(&mut first));
        assert_eq!(displaced(&mut permits), [0]);
        drop(session);
        let _next = connect(PeerId::random());
        assert!(is_displaced(&mut first));
    }
}
