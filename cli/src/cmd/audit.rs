//! `vc audit`: shows who did what.

use std::time::Duration;

use vc_protocol::audit::{AuditCheck, AuditQuery};
use vc_protocol::control::{Reply, Request};
use vc_protocol::{ApiError, ErrorCode};

use crate::app::{App, ago};
use crate::args::duration;
use crate::error::{Result, Stop, SystemError};
use crate::render::{self, note, print};
use vc_client::{Session, SessionError};

/// Arguments of `vc audit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc audit                                   all that the servers have, oldest first
  vc audit --since 1h -f                     the last hour, and what happens from now on
  vc audit --user ann --service shop/web
  vc audit --output json | jq -c 'select(.action == \"refused\")'
  vc audit --verify                          check the logs for records that were altered

Shows changes of the cluster with their users, sessions, commands in instances, copies, reads of logs, and refused attempts.
Each server keeps a log of at most 64 MiB; this command merges those of all servers that are up. Times are by the clock of
the node that a line names.")]
pub(crate) struct Args {
    /// Also print new records as they are written, until Ctrl-C
    #[arg(short, long, conflicts_with = "verify")]
    follow: bool,
    /// Only of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only about this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only since this long ago, as 1h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Check the logs of all servers, and print no records
    #[arg(long, conflicts_with_all = ["user", "service", "since"])]
    verify: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let query = AuditQuery {
            user: self.user.clone(),
            service: self.service.clone(),
            since: self.since.map(ago),
            follow: self.follow,
            verify: self.verify,
        };
        app.in_session(async |session| {
            session.send(&Request::Audit(query)).await?;
            tokio::select! {
                result = self.show(session, app) => result,
                result = tokio::signal::ctrl_c(), if self.follow => {
                    result.map_err(SystemError::doing("wait for signals"))?;
                    Err(Stop::Interrupted.into())
                }
            }
        })
        .await
    }

    async fn show(&self, session: &mut Session, app: &App) -> Result {
        let style = app.out.style();
        let mut checks: Vec<AuditCheck> = Vec::new();
        loop {
            match session.receive_result().await? {
                Reply::Audit(row) if app.out.is_json() => app.out.json(&row)?,
                Reply::Audit(row) => print(&render::audit_line(&row, style))?,
                Reply::AuditCheck(check) => {
                    if !self.verify && !check.problem.is_empty() {
                        note(&altered(&check));
                    }
                    checks.push(check);
                }
                Reply::Note(text) => note(&text),
                Reply::End => break,
                _ => return Err(SessionError::Unexpected.into()),
            }
        }
        if !self.verify {
            return Ok(());
        }
        app.out.show(checks.as_slice(), render::audit_checks)?;
        let Some(check) = checks.iter().find(|check| !check.problem.is_empty()) else {
            return Ok(());
        };
        let error = ApiError::new(ErrorCode::FailedPrecondition, altered(check));
        Err(error.with_hint("compare it with the logs of the other servers").into())
    }
}

fn altered(check: &AuditCheck) -> String {
    format!("the audit log of {} was altered: {}", check.node_name, check.problem)
}
