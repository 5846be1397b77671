//! `vc logs`: prints the output of instances in the order in which it was written.

use std::time::Duration;

use vc_protocol::control::{LogRequest, Reply, Request};

use super::target::Target;
use crate::app::{App, ago};
use crate::args::duration;
use crate::error::{Result, Stop, SystemError};
use crate::render::{self, LogStyle, note, print};
use vc_client::{Session, SessionError};

/// Arguments of `vc logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc logs web                                all lines of every instance
  vc logs -f --tail 20 shop/web              the last 20 lines of each, then new ones
  vc logs --since 10m web.2                  one replica
  vc logs -t --no-prefix web > web.log
  vc logs -f web --output json               one JSON object a line

Lines of all instances are merged in the order in which they were written. With -f, instances that start later are
followed too, and each line is held for 0.15 s so that earlier lines of other nodes can arrive. Where the output is read too
slowly, lines are lost: a note says how many, and with --output json the next line has them in 'lost'.")]
pub(crate) struct Args {
    /// Service: web, or shop/web; one replica: web.2
    #[arg(value_name = "SERVICE")]
    target: Target,
    /// Print new lines as they are written, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Print only the last N lines of each instance
    #[arg(long, value_name = "N")]
    tail: Option<u32>,
    /// Print only lines newer than this: 90s, 1h30m, 7d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Print only this replica
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replica: Option<u32>,
    /// Print the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Do not print the instance of each line
    #[arg(long)]
    no_prefix: bool,
}

impl Args {
    /// Returns the arguments that print all lines of one instance, without its name.
    pub(super) fn of(target: Target, follow: bool, timestamps: bool) -> Self {
        let (tail, since, replica) = (None, None, None);
        Self { target, follow, tail, since, replica, timestamps, no_prefix: true }
    }

    pub(crate) async fn run(self, app: &App) -> Result {
        let since = self.since.map(ago);
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
                    result.map_err(SystemError::doing("wait for signals"))?;
                    Err(Stop::Interrupted.into())
                }
            }
        })
        .await
    }
}

async fn copy(session: &mut Session, app: &App, mut style: LogStyle) -> Result {
    loop {
        match session.receive_result().await? {
            Reply::Log(row) if app.out.is_json() => app.out.json(&row)?,
            Reply::Log(row) => {
                if let Some(lost) = row.lost {
                    note(&render::lost_lines(&row, lost));
                }
                print(&render::log_line(&row, &mut style))?;
            }
            Reply::Note(text) => note(&text),
            Reply::End => return Ok(()),
            _ => return Err(SessionError::Unexpected.into()),
        }
    }
}
