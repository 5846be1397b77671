//! `vc leave`: removes a node from the cluster permanently.

use std::time::Duration;

use vc_client::expect_reply;
use vc_protocol::control::{NodeRow, NodeStatus, Request};
use vc_protocol::{ApiError, ErrorCode};

use super::drain::{Drained, describe_stay, empty, names, still_drained};
use super::voters::until_votes;
use crate::app::App;
use crate::args::duration;
use crate::error::{Error, Result};
use crate::render::{note, print};
use crate::terminal::{Confirmation, confirmed};
use vc_client::text::{list, one_line};

/// The most instances that an error names.
const MAX_NAMED: usize = 8;

/// Arguments of `vc leave`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc leave attic                             moves its instances and its vote, then removes it; vc-node exits there
  vc leave attic --force                     removes it at once, as when it is broken

If instances cannot run on any other node, the node stays drained and does not leave. A node that has left can only join anew.
Asks on a terminal, unless -y is given.")]
pub(crate) struct Args {
    /// Name or id of the node
    node: String,
    /// Remove it at once, even if it runs instances or holds the data of volumes in use
    #[arg(long)]
    force: bool,
    /// Stop waiting for its instances to move after this time, and fail
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration, conflicts_with = "force")]
    timeout: Duration,
    #[command(flatten)]
    confirmation: Confirmation,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        if self.confirmation.is_needed() {
            let how = if self.force { ", with all that it runs and holds," } else { "" };
            let question = format!("Remove node {}{how} from the cluster for good?", self.node);
            if !confirmed(&question)? {
                note("nothing was changed");
                return Ok(());
            }
        }
        let leave = Request::Leave { node: self.node.clone(), force: self.force };
        if self.force {
            return app.change(vec![leave]).await;
        }
        app.in_session(async |session| {
            let nodes = expect_reply!(session.ask(&Request::Nodes).await?, Nodes)?;
            let is_it = |row: &&NodeRow| row.state != NodeStatus::Left && names(&self.node, row);
            // The voters decide while the instances move; they refuse what would leave none.
            let voter = nodes.iter().find(is_it).filter(|row| row.votes);
            if voter.is_some() {
                let request = Request::SetVoter { node: self.node.clone(), votes: Some(false) };
                session.change(&request).await?;
            }
            let still_leaving = |error: Error| match voter {
                Some(row) => {
                    let name = one_line(&row.name);
                    note(&format!(
                        "{name} is to be no voter; undo that with 'vc voters auto {name}'"
                    ));
                    error
                }
                None => error,
            };
            let Drained { node, mut changes, stays } =
                empty(app, session, &self.node, self.timeout).await.map_err(still_leaving)?;
            if !stays.is_empty() {
                let stays = list(stays.iter().map(describe_stay).collect(), MAX_NAMED);
                let hint = format!("'vc leave {} --force' removes it all the same", node.name);
                let error = ApiError::new(ErrorCode::FailedPrecondition, stays).with_hint(hint);
                return Err(still_leaving(still_drained(error.into(), &node.name)));
            }
            if let Some(row) = voter {
                if !app.out.is_json() {
                    print(&format!("{} hands over its vote\n", one_line(&row.name)))?;
                }
                until_votes(app, session, row.id, false, self.timeout)
                    .await
                    .map_err(|error| still_leaving(still_drained(error, &row.name)))?;
            }
            let left = session.change(&leave).await;
            let left = left.map_err(|error| still_drained(error.into(), &node.name))?;
            if app.out.is_json() {
                changes.extend(left);
                return app.out.changes(&changes);
            }
            app.out.changes(&left)
        })
        .await
    }
}
