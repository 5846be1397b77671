//! What becomes of the forwarded connections when the node restarts.
//!
//! 1. [`Router::drain`]: connections over streams of other nodes cannot outlive this process. Those that are open may finish; they
//!    are closed once they are idle, as a server closes connections that it kept alive. New ones are served meanwhile.
//! 2. [`Router::detach`], once no listener accepts: the connections to instances on this node are taken out of this process,
//!    which another one goes on with, and other nodes are refused.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::router::Router;
use crate::handover::Connection;

/// How long connections over streams may take to finish.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connections that begin or end may take once no listener accepts: new clients wait meanwhile.
const DETACH_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection is idle after this part of the time that is left: at first, pauses within an answer do not count.
const IDLE_PART: u32 = 10;

/// The state of the restart, for all connections.
#[derive(Debug, Default)]
pub(super) struct Restart {
    draining: CancellationToken,
    detaching: CancellationToken,
    /// When connections over streams are to have ended.
    deadline: Mutex<Option<Instant>>,
    /// All connections.
    open: TaskTracker,
    /// Connections over streams that began before the drain, then those that began after.
    streams: Mutex<TaskTracker>,
    detached: Mutex<Vec<Connection>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Restart {
    /// Counts a connection while the token lives.
    pub(super) fn connection(&self) -> TaskTrackerToken {
        self.open.token()
    }

    /// Counts a connection over a stream while the token lives.
    pub(super) fn stream(&self) -> TaskTrackerToken {
        lock(&self.streams).token()
    }

    /// Completes when idle connections over streams are to be closed.
    pub(super) fn draining(&self) -> WaitForCancellationFuture<'_> {
        self.draining.cancelled()
    }

    /// Returns for how long a connection over a stream must have been idle to be closed.
    pub(super) fn idle_limit(&self) -> Duration {
        let deadline = lock(&self.deadline).unwrap_or_else(Instant::now);
        deadline.saturating_duration_since(Instant::now()) / IDLE_PART
    }

    /// Completes when connections to instances on this node are to be taken out of this process.
    pub(super) fn detaching(&self) -> WaitForCancellationFuture<'_> {
        self.detaching.cancelled()
    }

    /// Returns whether other nodes are refused.
    pub(super) fn is_detaching(&self) -> bool {
        self.detaching.is_cancelled()
    }

    /// Takes a connection out of this process.
    pub(super) fn detached(&self, connection: Connection) {
        lock(&self.detached).push(connection);
    }
}

impl Router {
    /// Lets the open connections over streams finish, for at most 5 s.
    pub async fn drain(&self) {
        let restart = &self.inner.restart;
        *lock(&restart.deadline) = Some(Instant::now() + DRAIN_TIMEOUT);
        let before = std::mem::take(&mut *lock(&restart.streams));
        restart.draining.cancel();
        before.close();
        let _ = timeout(DRAIN_TIMEOUT, before.wait()).await;
    }

    /// Takes the connections to instances on this node out of this process and returns them. Other connections get at most
    /// 1 s to finish. `accepting` completes when no connection is between its listener and this router.
    pub async fn detach(&self, accepting: impl Future<Output = ()>) -> Vec<Connection> {
        let restart = &self.inner.restart;
        *lock(&restart.deadline) = Some(Instant::now() + DETACH_TIMEOUT);
        restart.detaching.cancel();
        restart.open.close();
        let ended = async {
            accepting.await;
            restart.open.wait().await;
        };
        let _ = timeout(DETACH_TIMEOUT, ended).await;
        std::mem::take(&mut lock(&restart.detached))
    }
}
