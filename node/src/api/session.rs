//! A session: an authenticated stream, served until it is closed or its token expires.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use tracing::Instrument as _;
use vc_protocol::audit::AuditAction;
use vc_protocol::control::Reply;

use super::service::Next;
use super::{ControlService, multiplex};
use crate::auth::User;
use crate::frames::{Duplex, Frames};

/// How long a session goes on after its token is revoked: the reply to the revocation may be on its way on this one.
const REPLY_TIMEOUT: Duration = Duration::from_millis(250);

/// The number of the next session of this process, for the log.
static SESSIONS: AtomicU64 = AtomicU64::new(1);

impl ControlService {
    /// Runs a session on an authenticated stream until the client closes it, or the token expires or is revoked.
    /// What it logs names the session and the client.
    pub(crate) async fn serve(&self, user: User, frames: Frames<impl Duplex>) {
        let span = tracing::info_span!(
            "session",
            session = SESSIONS.fetch_add(1, Ordering::Relaxed),
            user = user.name,
            client = user.address,
            via = user.via.map(tracing::field::display),
        );
        self.serve_until_end(user, frames).instrument(span).await;
    }

    async fn serve_until_end(&self, user: User, mut frames: Frames<impl Duplex>) {
        frames.set_max(user.max_frame());
        let left = user.expires.saturating_sub(crate::clock::now());
        // A client that dials several nodes makes requests to one of them. What a worker forwards, the worker reports.
        let used = AtomicBool::new(false);
        let opened = || {
            if user.via.is_none() {
                used.store(true, Ordering::Relaxed);
                self.audit.record(AuditAction::SessionOpened, &user, None, "opened a session");
            }
        };
        let serve = async {
            if self.serve_requests(&user, &mut frames, opened).await == Next::Multiplex
                && frames.send(&Reply::Ready).await.is_ok()
            {
                multiplex::serve(self, &user, frames.into_inner()).await;
            }
        };
        let mut snapshots = self.cluster.snapshots().clone();
        let mut serve = std::pin::pin!(timeout(Duration::from_millis(left), serve));
        // An error means that the node is stopping. The snapshot's lock is not held on.
        let revoked =
            async { snapshots.wait_for(|snapshot| user.is_revoked(&snapshot.view)).await.is_ok() };
        let reason = tokio::select! {
            ended = &mut serve => match ended {
                Ok(()) => None,
                Err(_) => Some("token expired"),
            },
            true = revoked => {
                let _ = timeout(REPLY_TIMEOUT, &mut serve).await;
                Some("token revoked")
            }
        };
        if let Some(reason) = reason {
            tracing::info!(user = user.name, token = user.token, reason, "session closed");
        }
        if used.load(Ordering::Relaxed) {
            let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            let text = format!("ended a session{why}");
            self.audit.record(AuditAction::SessionEnded, &user, None, text);
        }
    }
}
