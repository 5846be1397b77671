//! `vc events`: shows recent events.

use vc_protocol::control::{Reply, Request};

use crate::app::App;
use crate::error::{Result, Stop, SystemError};
use crate::render::{self, print};
use vc_client::{Session, SessionError};

/// Arguments of `vc events`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc events                                  recent events seen by the node that answers, oldest first
  vc events -f                               also print new events
  vc --peer 10.0.0.2 events                  events seen by that node
  vc events -f --output json | jq -r 'select(.level == \"error\") | .subject'

Each node records the events it has seen since it started, and keeps the last 500.")]
pub(crate) struct Args {
    /// Print new events as they happen, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        app.in_session(async |session| {
            session.send(&Request::Events { follow: self.follow }).await?;
            tokio::select! {
                result = copy(session, app) => result,
                result = tokio::signal::ctrl_c(), if self.follow => {
                    result.map_err(SystemError::doing("wait for signals"))?;
                    Err(Stop::Interrupted.into())
                }
            }
        })
        .await
    }
}

async fn copy(session: &mut Session, app: &App) -> Result {
    let style = app.out.style();
    loop {
        match session.receive_result().await? {
            Reply::Event(row) if app.out.is_json() => app.out.json(&row)?,
            Reply::Event(row) => print(&render::event_line(&row, style))?,
            Reply::End => return Ok(()),
            _ => return Err(SessionError::Unexpected.into()),
        }
    }
}
