//! Limits on handshakes in progress and on user sessions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libp2p::PeerId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::quota::Quota;

/// Deadline for the peer's part of a handshake, and for taking the answer.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// User sessions at a time.
const MAX_SESSIONS: usize = 256;
/// User sessions at a time, per token.
const MAX_SESSIONS_PER_TOKEN: usize = 64;
/// Handshakes in progress: each costs a few kilobytes for at most
/// [`HANDSHAKE_TIMEOUT`].
const MAX_HANDSHAKES: usize = 2048;
/// Handshakes in progress, per peer id.
const MAX_HANDSHAKES_PER_PEER: usize = 8;

/// Limits handshakes in progress. Cheap to clone; all clones share one limit.
#[derive(Clone, Default)]
pub(super) struct PendingHandshakes(Arc<Mutex<Pending>>);

#[derive(Default)]
struct Pending {
    /// The peer of each handshake, and the sender whose drop evicts it; oldest first.
    handshakes: BTreeMap<u64, (PeerId, oneshot::Sender<()>)>,
    next: u64,
}

/// A handshake in progress. Dropping it frees its slot.
pub(super) struct HandshakePermit {
    pending: PendingHandshakes,
    number: u64,
    /// Completes (with an error) when a newer handshake evicts this one.
    pub(super) evicted: oneshot::Receiver<()>,
}

impl PendingHandshakes {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a permit. At the limit the oldest handshake is evicted: an honest peer completes one within a few round
    /// trips. Returns `None` when this peer id has [`MAX_HANDSHAKES_PER_PEER`] in progress.
    pub(super) fn acquire(&self, peer: PeerId) -> Option<HandshakePermit> {
        let mut pending = self.lock();
        let of_peer = pending.handshakes.values().filter(|(of, _)| *of == peer).count();
        if of_peer >= MAX_HANDSHAKES_PER_PEER {
            return None;
        }
        if pending.handshakes.len() >= MAX_HANDSHAKES {
            pending.handshakes.pop_first();
        }
        let number = pending.next;
        pending.next += 1;
        let (keep, evicted) = oneshot::channel();
        pending.handshakes.insert(number, (peer, keep));
        Some(HandshakePermit { pending: self.clone(), number, evicted })
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.pending.lock().handshakes.remove(&self.number);
    }
}

/// Interval of the log lines about failed authentication: peers cause it at will.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Limits the log lines about failed authentication. Cheap to clone; all clones share one limit.
#[derive(Clone, Default)]
pub(super) struct FailureLog(Arc<Mutex<Failures>>);

#[derive(Default)]
struct Failures {
    logged: Option<Instant>,
    /// Failures since then.
    suppressed: u64,
}

impl FailureLog {
    /// Records a failure at `now`. Returns how many were suppressed since the last line if this one is to be logged.
    pub(super) fn record(&self, now: Instant) -> Option<u64> {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.logged.is_some_and(|at| now < at + LOG_INTERVAL) {
            failures.suppressed += 1;
            return None;
        }
        failures.logged = Some(now);
        Some(std::mem::take(&mut failures.suppressed))
    }
}

/// The sessions of one token.
#[derive(Default)]
struct TokenSessions {
    count: usize,
    quota: Arc<Quota>,
}

/// Limits user sessions, in total and per token. Cheap to clone; all clones share one limit.
#[derive(Clone, Default)]
pub(super) struct SessionLimiter(Arc<Mutex<BTreeMap<String, TokenSessions>>>);

/// A session in progress. Dropping it frees its slot.
pub(super) struct SessionPermit {
    limiter: SessionLimiter,
    token: String,
    /// Quota that all sessions of the token share.
    pub(super) quota: Arc<Quota>,
}

/// Why there is no permit for a session. The same token may get one later, or on another node.
#[derive(Debug, thiserror::Error)]
pub(super) enum LimitError {
    /// [`MAX_SESSIONS_PER_TOKEN`] are open.
    #[error("too many sessions use this token: end some, or make another with 'vc token create'")]
    Token,
    /// [`MAX_SESSIONS`] are open.
    #[error("this node has too many user sessions: use another with --peer")]
    Node,
}

impl SessionLimiter {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, TokenSessions>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a permit for a session with this token id.
    pub(super) fn acquire(&self, token: &str) -> Result<SessionPermit, LimitError> {
        let mut sessions = self.lock();
        if sessions.get(token).is_some_and(|it| it.count >= MAX_SESSIONS_PER_TOKEN) {
            return Err(LimitError::Token);
        }
        if sessions.values().map(|it| it.count).sum::<usize>() >= MAX_SESSIONS {
            return Err(LimitError::Node);
        }
        let of_token = sessions.entry(token.to_owned()).or_default();
        of_token.count += 1;
        let quota = Arc::clone(&of_token.quota);
        Ok(SessionPermit { limiter: self.clone(), token: token.to_owned(), quota })
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        let mut sessions = self.limiter.lock();
        if let Some(of_token) = sessions.get_mut(&self.token) {
            of_token.count -= 1;
            if of_token.count == 0 {
                sessions.remove(&self.token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use oneshot::error::TryRecvError;

    use super::*;

    #[test]
    fn at_the_limit_the_oldest_handshake_is_evicted() {
        let pending = PendingHandshakes::default();
        let mut permits: Vec<HandshakePermit> = (0..MAX_HANDSHAKES)
            .map(|_| pending.acquire(PeerId::random()).expect("a permit"))
            .collect();
        let late = pending.acquire(PeerId::random());
        assert!(late.is_some(), "a new peer gets a permit");
        assert!(permits[0].evicted.try_recv().is_err_and(|it| it == TryRecvError::Closed));
        assert!(permits[1].evicted.try_recv().is_err_and(|it| it == TryRecvError::Empty));
        drop((permits, late));
        assert!(pending.lock().handshakes.is_empty());
    }

    #[test]
    fn failures_write_one_log_line_per_interval() {
        let (log, begun) = (FailureLog::default(), Instant::now());
        assert_eq!(log.record(begun), Some(0));
        assert!((0..5).all(|_| log.record(begun).is_none()));
        assert_eq!(log.record(begun + LOG_INTERVAL), Some(5));
        assert_eq!(log.record(begun + LOG_INTERVAL), None);
        assert_eq!(log.record(begun + 2 * LOG_INTERVAL), Some(1));
    }

    #[test]
    fn handshakes_of_one_peer_and_sessions_of_one_token_are_limited() {
        let (pending, peer) = (PendingHandshakes::default(), PeerId::random());
        let permits: Vec<_> = (0..MAX_HANDSHAKES_PER_PEER)
            .map(|_| pending.acquire(peer).expect("a permit"))
            .collect();
        assert!(pending.acquire(peer).is_none());
        drop(permits);
        assert!(pending.acquire(peer).is_some());

        let limiter = SessionLimiter::default();
        let permits: Vec<_> =
            (0..MAX_SESSIONS_PER_TOKEN).map(|_| limiter.acquire("a").expect("a permit")).collect();
        let refused = limiter.acquire("a").err().expect("too many");
        assert!(
            matches!(refused, LimitError::Token) && refused.to_string().contains("vc token create"),
            "{refused}"
        );
        assert!(limiter.acquire("b").is_ok());
        drop(permits);
        assert!(limiter.acquire("a").is_ok() && limiter.lock().is_empty());
    }
}
