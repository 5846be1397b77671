//! The audit log: who did what, from where, and what was refused.
//!
//! Any task records through an [`Audit`]; one task, [`Recorder`], writes. On a server the records go into its [`log`], those of
//! the changes of the cluster document as well, which the engine describes. A worker keeps none: it could be lost, or lie. It
//! sends its records to a server ([`report`]), which has the changes and sees the requests that a worker passes on anyway.
//! [`read`] merges the logs of all servers.

mod limiter;
mod log;
mod read;
mod recorder;
mod report;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use vc_protocol::audit::{AuditAction, AuditRow};
use vc_protocol::change::Subject;
use vc_protocol::{NodeId, ServiceKey};

use self::limiter::Limiter;
use crate::auth::User;
use crate::clock;

pub(crate) use self::read::AuditLogs;
pub(crate) use self::recorder::{Recorder, Sink};
pub(crate) use self::report::Reporter;

/// Directory of the log in the data directory of a server.
pub(crate) const LOG: &str = "audit";

/// The longest text of a record, in bytes; what is beyond is cut off, and a worker's record is refused for it.
const MAX_TEXT: usize = 4096;

/// Batches of records that may wait for the recorder. Further events are lost, and counted; changes wait.
const QUEUE: usize = 256;
/// Time for the recorder to write what is queued when the node stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Whose action it is, as far as that is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    /// Name of the user.
    pub(crate) user: Option<String>,
    /// Id of the token; `None` for a peer without a valid one.
    pub(crate) token: Option<String>,
    /// IP address of the client.
    pub(crate) address: Option<String>,
    /// The member that passed on the request.
    pub(crate) via: Option<NodeId>,
}

impl From<&User> for Origin {
    fn from(user: &User) -> Self {
        let Subject { name, token_id, address } = user.subject();
        Self { user: Some(name), token: Some(token_id), address, via: user.via }
    }
}

/// Records what happens on this node. Cheap to clone, and never waits except in [`Audit::changes`].
#[derive(Clone)]
pub(crate) struct Audit(Arc<Shared>);

struct Shared {
    node: NodeId,
    name: String,
    queue: mpsc::Sender<Batch>,
    limiter: Mutex<Limiter>,
    /// Number of the next event.
    next: AtomicU64,
    /// Events that found the queue full.
    lost: AtomicU64,
}

/// What the recorder gets.
enum Batch {
    Rows(Vec<AuditRow>),
    /// Answered when everything before is written, or cannot be.
    Flush(oneshot::Sender<()>),
}

impl Audit {
    /// Returns the handle of a node, and the queue for its [`Recorder`].
    pub(crate) fn new(node: NodeId, name: String) -> (Self, AuditQueue) {
        let (queue, batches) = mpsc::channel(QUEUE);
        // Unique over restarts, as long as the clock does not go back further than the node has run.
        let next = AtomicU64::new(clock::now().saturating_mul(1000));
        let (limiter, lost) = (Mutex::default(), AtomicU64::new(0));
        let audit = Self(Arc::new(Shared { node, name, queue, limiter, next, lost }));
        (audit.clone(), AuditQueue { audit, batches })
    }

    /// Records what a client did: `text` is a verb phrase without the user, and contains no secrets. Each client has a limit;
    /// what is beyond is counted.
    pub(crate) fn record(
        &self,
        action: AuditAction,
        origin: impl Into<Origin>,
        service: Option<ServiceKey>,
        text: impl Into<String>,
    ) {
        let origin = origin.into();
        let more = {
            let mut limiter = self.0.limiter.lock().unwrap_or_else(PoisonError::into_inner);
            let client = origin.token.clone().or_else(|| Some(origin.via?.to_string()));
            limiter.admit(client.as_deref(), action, clock::now())
        };
        if let Some(more) = more {
            let mut text = text.into();
            text.truncate(text.floor_char_boundary(MAX_TEXT));
            self.queue(vec![self.row(action, origin, service, text, more)]);
        }
    }

    /// Records that a request was refused.
    pub(crate) fn refused(&self, origin: impl Into<Origin>, reason: &str) {
        self.record(AuditAction::Refused, origin, None, format!("was refused: {reason}"));
    }

    /// Records what changes of the cluster document did, which are durable. Waits while the recorder is busy.
    pub(crate) async fn changes(&self, rows: Vec<AuditRow>) {
        // An error means that the node is stopping: the records are made again at its next start.
        let _ = self.0.queue.send(Batch::Rows(rows)).await;
    }

    /// Waits until what was recorded is written, for at most [`FLUSH_TIMEOUT`].
    pub(crate) async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        let flush = async {
            if self.0.queue.send(Batch::Flush(done)).await.is_ok() {
                let _ = is_done.await;
            }
        };
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, flush).await;
    }

    fn queue(&self, rows: Vec<AuditRow>) {
        if self.0.queue.try_send(Batch::Rows(rows)).is_err() {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn row(
        &self,
        action: AuditAction,
        origin: Origin,
        service: Option<ServiceKey>,
        text: String,
        more: u64,
    ) -> AuditRow {
        let Origin { user, token, address, via } = origin;
        AuditRow {
            time: clock::now(),
            action,
            text,
            user,
            token,
            address,
            service,
            node: self.0.node,
            node_name: self.0.name.clone(),
            via,
            via_name: None,
            more,
            change: None,
            event: self.0.next.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Returns a record for each client and kind that was beyond its limit, and has written nothing since.
    fn suppressed(&self) -> Vec<AuditRow> {
        let mut limiter = self.0.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let suppressed = limiter.flush(clock::now());
        drop(limiter);
        let row = |(token, action, more)| {
            let origin = Origin { token, ..Origin::default() };
            let kind = serde_json::to_value(action).unwrap_or_default();
            let kind = kind.as_str().unwrap_or_default();
            self.row(action, origin, None, format!("caused {more} more records: {kind}"), 0)
        };
        suppressed.into_iter().map(row).collect()
    }

    /// Returns a record of the events that were lost since the last call, if any.
    fn lost(&self, more: u64) -> Option<AuditRow> {
        let lost = self.0.lost.swap(0, Ordering::Relaxed) + more;
        let text = format!("lost {lost} records: they could not be written in time");
        let row = || self.row(AuditAction::LogRepaired, Origin::default(), None, text, lost);
        (lost > 0).then(row)
    }
}

/// The records that wait for the [`Recorder`].
pub(crate) struct AuditQueue {
    audit: Audit,
    batches: mpsc::Receiver<Batch>,
}

impl AuditQueue {
    /// Takes the records of a node that keeps none.
    #[cfg(feature = "fuzzing")]
    pub(crate) async fn discard(&mut self) {
        while self.batches.recv().await.is_some() {}
    }
}
