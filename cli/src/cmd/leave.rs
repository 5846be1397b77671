//! `vc leave`: removes a node from the cluster permanently.

use std::time::Duration;

use vc_protocol::control::Request;
use vc_protocol::{ApiError, ErrorCode};

use super::drain::{Drained, describe_stay, empty, still_drained};
use super::voters::hand_over;
use crate::app::App;
use crate::args::duration;
use crate::error::Result;
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
            let Drained { node, mut changes, stays } =
                empty(app, session, &self.node, self.timeout).await?;
            if !stays.is_empty() {
                let stays = list(stays.iter().map(describe_stay).collect(), MAX_NAMED);
                let hint = format!("'vc leave {} --force' removes it all the same", node.name);
                let error = ApiError::new(ErrorCode::FailedPrecondition, stays).with_hint(hint);
                return Err(still_drained(error.into(), &node.name));
            }
            if node.votes {
                if !app.out.is_json() {
                    print(&format!("{} hands over its vote\n", one_line(&node.name)))?;
                }
                let handed = hand_over(app, session, &self.node, self.timeout).await;
                changes.extend(handed.map_err(|error| still_drained(error, &node.name))?);
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
