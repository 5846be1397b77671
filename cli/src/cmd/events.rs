//! `vc events`: shows recent events.

use std::time::Duration;

use vc_protocol::control::{EventLevel, Reply, Request};
use vc_protocol::event::EventQuery;

use crate::app::{App, ago};
use crate::args::duration;
use crate::error::{Result, Stop, SystemError};
use crate::render::{self, print};
use vc_client::{Session, SessionError};

/// Arguments of `vc events`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc events                                  the last 100 events of the cluster, oldest first
  vc events -f                               also print new events
  vc events --since 1d --level warning       what went wrong since yesterday
  vc events --service shop/web --node attic  of this service, and on this node
  vc events -f --output json | jq -r 'select(.level == \"error\") | .subject'

Each node keeps the last 10,000 events of the cluster, through restarts; what happened while it was not running it gets from a
server. Times are by the clock of the node that saw them.")]
pub(crate) struct Args {
    /// Print new events as they happen, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only since this long ago, as 1h [default: the last 100 events]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Only of this service: web, or shop/web; or of a whole project: shop/
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only of this node, and of what happened on it
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Only of this level or above
    #[arg(long, value_name = "LEVEL", value_enum)]
    level: Option<Level>,
    /// Only the last N
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
}

/// A level of events.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Level {
    Info,
    Warning,
    Error,
}

impl From<Level> for EventLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Info => Self::Info,
            Level::Warning => Self::Warning,
            Level::Error => Self::Error,
        }
    }
}

/// Events that are shown unless it is said how many, or since when.
const DEFAULT_TAIL: usize = 100;

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let query = EventQuery {
            follow: self.follow,
            since: self.since.map(ago),
            service: self.service,
            node: self.node,
            level: self.level.map(EventLevel::from),
            tail: self.tail.or_else(|| self.since.is_none().then_some(DEFAULT_TAIL)),
        };
        app.in_session(async |session| {
            session.send(&Request::Events(query.clone())).await?;
            tokio::select! {
                result = copy(session, app, &query) => result,
                result = tokio::signal::ctrl_c(), if self.follow => {
                    result.map_err(SystemError::doing("wait for signals"))?;
                    Err(Stop::Interrupted.into())
                }
            }
        })
        .await
    }
}

async fn copy(session: &mut Session, app: &App, query: &EventQuery) -> Result {
    let style = app.out.style();
    loop {
        match session.receive_result().await? {
            // From an older node, which knows no queries.
            Reply::Event(row) if !query.selects(&row) => {}
            Reply::Event(row) if app.out.is_json() => app.out.json(&row)?,
            Reply::Event(row) => print(&render::event_line(&row, style))?,
            Reply::End => return Ok(()),
            _ => return Err(SessionError::Unexpected.into()),
        }
    }
}
