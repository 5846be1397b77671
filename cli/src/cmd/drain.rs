//! `vc drain` and `vc undrain`: move all instances off a node, and allow instances on it again.

use std::time::Duration;

use vc_protocol::ApiError;
use vc_protocol::control::{Change, InstanceRow, NodeRow, NodeStatus, Request};

use super::wait::{Departure, MoveArgs, explain, until};
use crate::app::App;
use crate::error::{Error, Result, Stop};
use crate::render::{note, print};
use vc_client::text::one_line;
use vc_client::{Session, SessionError, expect_reply};

/// Arguments of `vc drain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc drain attic                             moves its instances; returns when it is empty
  vc drain attic --no-wait                   returns at once
  vc undrain attic                           allows instances on it again

Instances that no other node can run stay where they are and are listed with the reason; with --output json, that list
is the result. Ctrl-C and --timeout end the wait, not the drain.")]
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
    pub(crate) async fn run(self, app: &App) -> Result {
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
                    _ => format!(
                        "{} is down; its instances are replaced on other nodes\n",
                        one_line(&node.name)
                    ),
                });
            }
            print(&stays.iter().map(|row| describe_stay(row) + "\n").collect::<String>())
        })
        .await
    }
}

impl UndrainArgs {
    pub(crate) async fn run(self, app: &App) -> Result {
        app.change(vec![Request::Drain { node: self.node, drain: false }]).await
    }
}

/// A node from which all instances have moved that can.
pub(super) struct Drained {
    /// Its row when the drain began.
    pub(super) node: NodeRow,
    /// The changes that the node reported.
    pub(super) changes: Vec<Change>,
    /// The instances that no other node can run, with the reason.
    pub(super) stays: Vec<InstanceRow>,
}

/// Returns whether a text is the name or id of a node.
pub(super) fn names(text: &str, row: &NodeRow) -> bool {
    row.name == text || row.id.to_string() == text || row.id.short() == text
}

/// Drains a node and waits, with progress, until nothing is left that can move.
pub(super) async fn empty(
    app: &App,
    session: &mut Session,
    node: &str,
    limit: Duration,
) -> Result<Drained> {
    let changes = session.change(&Request::Drain { node: node.to_owned(), drain: true }).await?;
    if !app.out.is_json() {
        app.out.changes(&changes)?;
    }
    let nodes = expect_reply!(session.ask(&Request::Nodes).await?, Nodes)?;
    // A node that has left may have had the same name.
    let node = nodes.into_iter().find(|row| row.state != NodeStatus::Left && names(node, row));
    let node = node.ok_or(SessionError::Unexpected)?;
    // A node that is down reports nothing.
    if node.state != NodeStatus::Up {
        return Ok(Drained { node, changes, stays: Vec::new() });
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
    Ok(Drained { node, changes, stays })
}

/// Adds to an error, or notes after Ctrl-C, that the node stays drained.
pub(super) fn still_drained(error: Error, name: &str) -> Error {
    let name = one_line(name);
    match error {
        Error::Stop(Stop::Interrupted) => {
            note(&format!("{name} stays drained; undo it with 'vc undrain {name}'"));
            error
        }
        Error::Failed(error) => {
            let message = format!("{}; {name} stays drained", error.message);
            Error::Failed(ApiError { message, ..error })
        }
        other => other,
    }
}

/// Describes an instance that cannot move: `shop/db.1 stays: attic holds the data of volume shop/data`.
pub(super) fn describe_stay(row: &InstanceRow) -> String {
    format!("{}.{} stays: {}", row.service, row.replica, one_line(&row.reason))
}
