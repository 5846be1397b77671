//! `vc leave`: takes a node out of the cluster for good.

use std::time::Duration;

use anyhow::anyhow;
use vc_protocol::control::Request;

use super::drain::{Drained, empty, still_drained, told};
use crate::app::App;
use crate::args::duration;
use vc_client::text::list;

/// At most so many instances are named in an error.
const MAX_NAMED: usize = 8;

/// Arguments of `vc leave`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc leave attic                             its instances move first; then it goes, and its program ends
  vc leave attic --force                     at once, whatever it runs or holds, as when it is broken

What no other node can take keeps it: then it stays drained and does not leave.")]
pub(crate) struct Args {
    /// Name or id of the node
    node: String,
    /// At once, also when it runs instances or holds the data of volumes that services use
    #[arg(long)]
    force: bool,
    /// Stop waiting for its instances to move after this time, and fail
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration, conflicts_with = "force")]
    timeout: Duration,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        let leave = Request::Leave { node: self.node.clone(), force: self.force };
        if self.force {
            return app.change(vec![leave]).await;
        }
        app.in_session(async |session| {
            let Drained { node, mut lines, stays } =
                empty(app, session, &self.node, self.timeout).await?;
            if !stays.is_empty() {
                let stays = list(stays.iter().map(told).collect(), MAX_NAMED);
                let why = anyhow!("{stays}; 'vc leave {} --force' leaves that behind", node.name);
                return Err(still_drained(why, &node.name));
            }
            let left = session.change(&leave).await;
            let left = left.map_err(|error| still_drained(error.into(), &node.name))?;
            if app.out.is_json() {
                lines.extend(left);
                return app.out.lines(&lines);
            }
            app.out.lines(&left)
        })
        .await
    }
}
