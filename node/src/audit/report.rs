//! The records of a worker, which it sends to a server.

use std::time::Duration;

use tokio::sync::watch;
use vc_protocol::NodeId;
use vc_protocol::audit::{AuditRequest, AuditRow, MAX_REPORT};
use vc_protocol::wire::AUDIT_PROTOCOL;

use crate::member_request::{self, MemberError};
use crate::snapshot::Snapshot;

/// Time for a server to take records.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no server took the records.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    #[error("no server is up")]
    NoServer,
    #[error(transparent)]
    Member(#[from] MemberError),
}

/// Sends records to a server that is up.
pub(crate) struct Reporter {
    pub(crate) members: libp2p_stream::Control,
    pub(crate) snapshot: watch::Receiver<Snapshot>,
}

impl Reporter {
    /// Returns once a server has taken the records. One that took some of them may get them again: they are merged by their
    /// numbers.
    ///
    /// # Errors
    /// No server takes them, for the last reason.
    pub(super) async fn send(&self, rows: Vec<AuditRow>) -> Result<(), ReportError> {
        let mut last = ReportError::NoServer;
        for server in self.servers() {
            match self.send_to(server, &rows).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    async fn send_to(&self, server: NodeId, rows: &[AuditRow]) -> Result<(), MemberError> {
        for rows in rows.chunks(MAX_REPORT) {
            let request = AuditRequest::Report { rows: rows.to_vec() };
            let members = self.members.clone();
            member_request::request(members, server, AUDIT_PROTOCOL, &request, REPORT_TIMEOUT)
                .await?;
        }
        Ok(())
    }

    fn servers(&self) -> Vec<NodeId> {
        self.snapshot.borrow().view.up_servers().collect()
    }
}
