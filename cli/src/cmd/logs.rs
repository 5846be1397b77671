//! `vc logs`: what the instances of a service wrote.

use std::time::Duration;

use vc_protocol::Millis;
use vc_protocol::control::{LogRequest, LogRow, Reply, Request};

use crate::app::{App, Stop, now};
use crate::args::duration;
use crate::client::{Session, SessionError};
use crate::render::{self, print};

/// Arguments of `vc logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc logs web                                all there is, of every instance
  vc logs -f --tail 20 shop/web              the last lines, and on as they are written
  vc logs --since 10m web --replica 2
  vc logs -f web --output json               one JSON object a line")]
pub(crate) struct Args {
    /// Service: web, or shop/web
    service: String,
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
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        let since = self.since.map(|since| {
            now().saturating_sub(Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX))
        });
        let request = Request::Logs(LogRequest {
            service: self.service,
            replica: self.replica,
            follow: self.follow,
            tail: self.tail,
            since,
        });
        // Without an end there is no array to close: then each line is a document.
        let mut printer = Printer { app, array: app.out.is_json() && !self.follow, rows: 0 };
        app.in_session(async |session| {
            session.send(&request).await?;
            tokio::select! {
                result = copy(session, &mut printer) => result,
                result = tokio::signal::ctrl_c(), if self.follow => {
                    result?;
                    Err(Stop::Interrupted.into())
                }
            }
        })
        .await
    }
}

async fn copy(session: &mut Session, printer: &mut Printer<'_>) -> anyhow::Result<()> {
    loop {
        match session.next().await? {
            Reply::Log(row) => printer.row(&row)?,
            Reply::End => return printer.end(),
            _ => return Err(SessionError::Unexpected.into()),
        }
    }
}

/// Prints rows as they come.
struct Printer<'a> {
    app: &'a App,
    array: bool,
    rows: usize,
}

impl Printer<'_> {
    fn row(&mut self, row: &LogRow) -> anyhow::Result<()> {
        if !self.app.out.is_json() {
            return print(&render::log_line(row, self.app.out.style()));
        }
        if !self.array {
            return self.app.out.json(row);
        }
        let before = if self.rows == 0 { "[" } else { "," };
        self.rows += 1;
        print(&format!("{before}{}", serde_json::to_string(row)?))
    }

    fn end(&self) -> anyhow::Result<()> {
        match (self.array, self.rows) {
            (false, _) => Ok(()),
            (true, 0) => print("[]\n"),
            (true, _) => print("]\n"),
        }
    }
}
