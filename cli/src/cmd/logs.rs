//! `vc logs`: prints the output of instances in the order in which it was written.

use std::time::Duration;

use futures::FutureExt as _;
use vc_protocol::control::{LogRequest, LogRow, Reply, Request};

use super::target::Target;
use crate::app::{App, ago};
use crate::args::duration;
use crate::error::{Result, Stop, SystemError};
use crate::render::{self, LogStyle, json_line, note, print};
use vc_client::{Session, SessionError};

/// The most bytes of lines that are printed together, and one line more.
const MAX_TOGETHER: usize = 64 * 1024;

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
    #[arg(value_name = "SERVICE[.N]")]
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
            batched: true,
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

/// Prints the lines of a log until its end, those together that have arrived: a write for each would read a flood too slowly.
async fn copy(session: &mut Session, app: &App, mut style: LogStyle) -> Result {
    let mut lines = String::new();
    loop {
        let ready = match lines.len() {
            ..MAX_TOGETHER => session.receive_result().now_or_never(),
            _ => None,
        };
        let reply = match ready {
            Some(reply) => reply,
            None => {
                print(&std::mem::take(&mut lines))?;
                session.receive_result().await
            }
        };
        match reply {
            Ok(Reply::Log(row)) => append(&mut lines, app, &row, &mut style)?,
            Ok(Reply::Logs(batch)) => {
                for row in batch.into_rows() {
                    append(&mut lines, app, &row, &mut style)?;
                }
            }
            other => {
                print(&std::mem::take(&mut lines))?;
                match other? {
                    Reply::Note(text) => note(&text),
                    Reply::End => return Ok(()),
                    _ => return Err(SessionError::Unexpected.into()),
                }
            }
        }
    }
}

/// Adds a line to those that are to be printed.
fn append(lines: &mut String, app: &App, row: &LogRow, style: &mut LogStyle) -> Result {
    if app.out.is_json() {
        *lines += &json_line(row)?;
        return Ok(());
    }
    if let Some(lost) = row.lost {
        print(&std::mem::take(lines))?;
        note(&render::lost_lines(row, lost));
    }
    *lines += &render::log_line(row, style);
    Ok(())
}
