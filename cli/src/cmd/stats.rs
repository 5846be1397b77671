//! `vc stats`: shows what instances use.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use crossterm::cursor::MoveTo;
use crossterm::terminal::{Clear, ClearType};
use crossterm::{ExecutableCommand as _, QueueableCommand as _};
use tokio::time::{MissedTickBehavior, interval};
use vc_client::{Session, SessionError};
use vc_protocol::control::{Reply, Request, UsageRow};

use super::target::Target;
use crate::app::{App, now};
use crate::error::{Result, Stop, SystemError};
use crate::render::{self, Style, note};

/// Time between two requests: nodes measure no more often.
const INTERVAL: Duration = Duration::from_secs(2);

/// Arguments of `vc stats`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc stats                                   of all instances on all nodes, until Ctrl-C
  vc stats --no-stream web db.2              once, of these
  vc stats --node attic                      of what runs on this node
  vc stats --no-stream --output json | jq -r '.[] | select(.memory_bytes > 1e9) | .service'

CPU % is of one core, over the last seconds. MEMORY is without what the kernel can drop when it needs room. A process has
no network of its own, nor a container with 'network_mode: host'. Nodes measure every 10 s, and every 2 s while they are asked.")]
pub(crate) struct Args {
    /// Show only these services, or replicas of them: web, shop/web, web.2, or the services of a project: shop/
    #[arg(value_name = "SERVICE[.N]")]
    targets: Vec<Target>,
    /// Show only what runs on this node
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Print the values once
    #[arg(long)]
    no_stream: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        app.in_session(async |session| {
            if self.no_stream {
                let used = self.read(session).await?;
                used.notes.iter().for_each(|line| note(line));
                return app.out.show(used.rows.as_slice(), render::usage);
            }
            tokio::select! {
                result = self.follow(session, app) => result,
                result = tokio::signal::ctrl_c() => {
                    result.map_err(SystemError::doing("wait for signals"))?;
                    Err(Stop::Interrupted.into())
                }
            }
        })
        .await
    }

    /// Prints the values again and again; on a terminal in the same place.
    async fn follow(&self, session: &mut Session, app: &App) -> Result {
        let in_place = !app.out.is_json() && io::stdout().is_terminal();
        let mut pace = interval(INTERVAL);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = Vec::new();
        loop {
            pace.tick().await;
            let used = self.read(session).await?;
            if in_place {
                let draw = SystemError::doing("write to the terminal");
                home().map_err(draw)?;
            }
            let style = Style { now: now(), ..app.out.style() };
            app.out.show(used.rows.as_slice(), |rows, _| render::usage(rows, style))?;
            // In the same place they are part of the picture; otherwise each is news once.
            let notes = used.notes.iter();
            notes.filter(|line| in_place || !known.contains(*line)).for_each(|line| note(line));
            known = used.notes;
        }
    }

    /// Asks for the values of all targets.
    async fn read(&self, session: &mut Session) -> Result<Used> {
        let mut used = Used::default();
        if self.targets.is_empty() {
            used.add(session, None, self.node.clone()).await?;
        }
        for Target { service, replica } in &self.targets {
            let before = used.rows.len();
            used.add(session, Some(service.clone()), self.node.clone()).await?;
            let mut added = used.rows.split_off(before);
            added.retain(|row| replica.is_none_or(|replica| row.replica == replica));
            used.rows.append(&mut added);
        }
        let key = |row: &UsageRow| (row.service.clone(), row.replica, row.node, row.digest.clone());
        used.rows.sort_by_key(key);
        used.rows.dedup_by_key(|row| key(row));
        used.notes.sort();
        used.notes.dedup();
        Ok(used)
    }
}

/// What nodes answered.
#[derive(Debug, Default)]
struct Used {
    rows: Vec<UsageRow>,
    /// Which nodes did not answer.
    notes: Vec<String>,
}

impl Used {
    async fn add(
        &mut self,
        session: &mut Session,
        service: Option<String>,
        node: Option<String>,
    ) -> Result {
        session.send(&Request::Usage { service, node }).await?;
        loop {
            match session.receive_result().await? {
                Reply::Note(text) => self.notes.push(text),
                Reply::Usage(rows) => {
                    self.rows.extend(rows);
                    return Ok(());
                }
                _ => return Err(SessionError::Unexpected.into()),
            }
        }
    }
}

/// Empties the terminal.
fn home() -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.queue(MoveTo(0, 0))?;
    out.execute(Clear(ClearType::FromCursorDown))?;
    Ok(())
}
