//! `vc logs`: what the instances of a service wrote, in the order in which they wrote it.

use std::time::Duration;

use vc_protocol::Millis;
use vc_protocol::control::{LogRequest, Reply, Request};

use super::target::Target;
use crate::app::{App, Stop, now};
use crate::args::duration;
use crate::render::{self, LogStyle, note, print};
use vc_client::{Session, SessionError};

/// Arguments of `vc logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc logs web                                all there is, of every instance
  vc logs -f --tail 20 shop/web              the last lines, and on as they are written
  vc logs --since 10m web.2                  of one replica
  vc logs -t --no-prefix web > web.log
  vc logs -f web --output json               one JSON object a line

The lines of all instances come in the order in which they were written. With -f, instances that come later are followed
too, and a line waits a moment (0.15 s) for earlier ones that are still on their way from other nodes.")]
pub(crate) struct Args {
    /// Service: web, or shop/web; of one replica web.2
    #[arg(value_name = "SERVICE")]
    target: Target,
    /// Go on as lines are written, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines of each instance
    #[arg(long, value_name = "N")]
    tail: Option<u32>,
    /// Only lines not older than this: 90s, 1h30m, 7d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Only of this replica
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replica: Option<u32>,
    /// Say when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Leave out which instance wrote each line
    #[arg(long)]
    no_prefix: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        let since = self.since.map(|since| {
            now().saturating_sub(Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX))
        });
        let request = Request::Logs(LogRequest {
            replica: self.target.replica_or(self.replica)?,
            service: self.target.service,
            follow: self.follow,
            tail: self.tail,
            since,
        });
        let style = LogStyle {
            prefix: !self.no_prefix,
            timestamps: self.timestamps,
            width: 0,
            style: app.out.style(),
        };
        app.in_session(async |session| {
            session.send(&request).await?;
            tokio::select! {
                result = copy(session, app, style) => result,
                result = tokio::signal::ctrl_c(), if self.follow => {
                    result?;
                    Err(Stop::Interrupted.into())
                }
            }
        })
        .await
    }
}

async fn copy(session: &mut Session, app: &App, mut style: LogStyle) -> anyhow::Result<()> {
    loop {
        match session.receive_result().await? {
            Reply::Log(row) if app.out.is_json() => app.out.json(&row)?,
            Reply::Log(row) => print(&render::log_line(&row, &mut style))?,
            Reply::Note(text) => note(&text),
            Reply::End => return Ok(()),
            _ => return Err(SessionError::Unexpected.into()),
        }
    }
}
