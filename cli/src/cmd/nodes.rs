//! `vc nodes`: the nodes of the cluster.

use vc_protocol::control::Request;

use crate::app::App;
use crate::render;
use vc_client::expect_reply;

/// Arguments of `vc nodes`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc nodes
  vc --token /var/lib/vc/admin.token nodes
  vc nodes --addresses                       where each is dialled, an address a line
  vc nodes --output json | jq -r '.[] | select(.state == \"down\") | .name'

CPU and MEMORY tell what instances reserve, of what the node has; USED, what is in use.")]
pub(crate) struct Args {
    /// List where each node is dialled: /webrtc-direct is for browsers
    #[arg(long)]
    addresses: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        let rows = expect_reply!(app.ask(Request::Nodes).await?, Nodes)?;
        let table = if self.addresses { render::addresses } else { render::nodes };
        app.out.show(rows.as_slice(), table)
    }
}
