//! `vc nodes`: lists nodes.

use vc_protocol::control::Request;

use crate::app::App;
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
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let rows = expect_reply!(app.ask(Request::Nodes).await?, Nodes)?;
        let table = if self.addresses { render::addresses } else { render::nodes };
        app.out.show(rows.as_slice(), table)
    }
}
