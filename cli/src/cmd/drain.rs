//! `vc drain` and `vc undrain`: keeps a node free, or gives it back.

use std::time::Duration;

use anyhow::anyhow;
use vc_protocol::control::{InstanceRow, NodeRow, NodeStatus, Request};

use super::wait::{Departure, MoveArgs, explain, until};
use crate::app::{App, Stop};
use crate::render::{note, print};
use vc_client::text::one_line;
use vc_client::{Session, SessionError, expect_reply};

/// Arguments of `vc drain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc drain attic                             its instances move; none comes; returns when it is empty
  vc drain attic --no-wait
  vc undrain attic                           afterwards

What no other node can take goes on where it is, and is listed with the reason; with --output json that list is
printed. Ctrl-C and --timeout end the wait and not the drain.")]
pub(crate) struct DrainArgs {
    /// Name or id of the node
    node: String,
    #[command(flatten)]
    moves: MoveArgs,
}

/// Arguments of `vc undrain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc undrain attic")]
pub(crate) struct UndrainArgs {
    /// Name or id of the node
    node: String,
}

impl DrainArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        if self.moves.no_wait {
            return app.change(vec![Request::Drain { node: self.node, drain: true }]).await;
        }
        app.in_session(async |session| {
            let Drained { node, stays, .. } =
                empty(app, session, &self.node, self.moves.timeout).await?;
            if app.out.is_json() {
                return app.out.json(&stays);
            }
            if stays.is_empty() {
                return print(&match node.state {
                    NodeStatus::Up => format!("{} is empty\n", one_line(&node.name)),
                    _ => format!("{} is down: nothing is known to run there\n", node.name),
                });
            }
            print(&stays.iter().map(|row| told(row) + "\n").collect::<String>())
        })
        .await
    }
}

impl UndrainArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        app.change(vec![Request::Drain { node: self.node, drain: false }]).await
    }
}

/// A node from which all has moved that can.
pub(super) struct Drained {
    /// As it was when the drain began.
    pub(super) node: NodeRow,
    /// What the member said of it.
    pub(super) lines: Vec<String>,
    /// What no other node can take, with the reason.
    pub(super) stays: Vec<InstanceRow>,
}

/// Drains a node and waits, with progress, until nothing is left that can move.
pub(super) async fn empty(
    app: &App,
    session: &mut Session,
    node: &str,
    limit: Duration,
) -> anyhow::Result<Drained> {
    let lines = session.change(&Request::Drain { node: node.to_owned(), drain: true }).await?;
    if !app.out.is_json() {
        app.out.lines(&lines)?;
    }
    let nodes = expect_reply!(session.ask(&Request::Nodes).await?, Nodes)?;
    // One that left may have had the same name.
    let is_it =
        |row: &NodeRow| row.name == node || row.id.to_string() == node || row.id.short() == node;
    let node = nodes.into_iter().find(|row| row.state != NodeStatus::Left && is_it(row));
    let node = node.ok_or(SessionError::Unexpected)?;
    // Of a node that is down nothing is heard.
    if node.state != NodeStatus::Up {
        return Ok(Drained { node, lines, stays: Vec::new() });
    }
    let mut departure = Departure::from_node(node.id);
    until(app, session, Vec::new(), &mut departure, limit)
        .await
        .map_err(|error| still_drained(error, &node.name))?;
    let mut stays = departure.stays;
    app.renew(session).await?;
    if !stays.is_empty() {
        explain(session, &mut stays).await?;
    }
    Ok(Drained { node, lines, stays })
}

/// The wait has ended before its time, and the drain has not: says so.
pub(super) fn still_drained(error: anyhow::Error, name: &str) -> anyhow::Error {
    let name = one_line(name);
    match error.downcast_ref::<Stop>() {
        Some(Stop::Interrupted) => {
            note(&format!("{name} stays drained; 'vc undrain {name}' takes that back"));
            error
        }
        Some(_) => error,
        None => anyhow!("{error:#}; {name} stays drained"),
    }
}

/// `shop/db.1 stays: attic holds the data of volume shop/data`.
pub(super) fn told(row: &InstanceRow) -> String {
    format!("{}.{} stays: {}", row.service, row.replica, one_line(&row.reason))
}
