//! `vc nodes`: lists nodes.

use vc_protocol::Millis;
use vc_protocol::control::{NodeRow, NodeStatus, Request};

use crate::app::{App, now};
use crate::error::Result;
use crate::render;
use vc_client::expect_reply;

/// Arguments of `vc nodes`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc nodes
  vc --token /var/lib/vc/admin.token nodes
  vc nodes --addresses                       the addresses of each node
  vc nodes --output json | jq -r '.[] | select(.state == \"down\") | .name'

CPU and MEMORY show what instances reserve of what the node has; USED shows what is in use.")]
pub(crate) struct Args {
    /// List the addresses of each node; those with /webrtc-direct are for browsers
    #[arg(long)]
    addresses: bool,
    /// List also the nodes that left the cluster more than a day ago
    #[arg(long)]
    all: bool,
}

/// How long nodes that left are listed, in milliseconds.
const LEFT: Millis = 24 * 60 * 60 * 1000;

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let mut rows = expect_reply!(app.ask(Request::Nodes).await?, Nodes)?;
        let now = now();
        let is_old = |row: &NodeRow| {
            row.state == NodeStatus::Left && row.left > 0 && now > row.left.saturating_add(LEFT)
        };
        rows.retain(|row| self.all || !is_old(row));
        let table = if self.addresses { render::addresses } else { render::nodes };
        app.out.show(rows.as_slice(), table)
    }
}
