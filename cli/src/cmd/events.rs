//! `vc events`: what happened in the cluster.

use vc_protocol::control::{Reply, Request};

use crate::app::{App, Stop};
use crate::render::{self, print};
use vc_client::{Session, SessionError};

/// Arguments of `vc events`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc events                                  what the node that answers saw lately, oldest first
  vc events -f                               and on as things happen
  vc --peer 10.0.0.2 events                  as that node saw it
  vc events -f --output json | jq -r 'select(.level == \"error\") | .subject'

Each node notes what it sees from its start on, and keeps the last 500 lines.")]
pub(crate) struct Args {
    /// Go on as things happen, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        app.in_session(async |session| {
            session.send(&Request::Events { follow: self.follow }).await?;
            tokio::select! {
                result = copy(session, app) => result,
                result = tokio::signal::ctrl_c(), if self.follow => {
                    result?;
                    Err(Stop::Interrupted.into())
                }
            }
        })
        .await
    }
}

async fn copy(session: &mut Session, app: &App) -> anyhow::Result<()> {
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
