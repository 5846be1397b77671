//! `vc node`: the membership of nodes.

use vc_protocol::control::Request;

use crate::app::App;
use crate::error::Result;

/// Arguments of `vc node`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Shut a node out of the cluster at once, as when it was stolen
    #[command(after_help = "\
Examples:
  vc node revoke attic

Every node that is connected refuses it within a second, and ends its connections; the tokens that it issued are void. Its
instances are started on other nodes. A server knows the keys of the cluster: run 'vc trust rotate' after the removal of one.
'vc leave' takes a node out in order.")]
    Revoke {
        /// Name or id of the node
        node: String,
    },
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        match self.command {
            Command::Revoke { node } => {
                app.change(vec![Request::Leave { node, force: true }]).await
            }
        }
    }
}
