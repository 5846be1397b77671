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
    /// Take over what a former node has left on a host: stop its containers, and use the data of its volumes
    #[command(after_help = "\
Examples:
  vc node adopt DgYY6dBa                     of the node with this id: 'vc status' lists such nodes
  vc node adopt DgYY6dBa --stop              end its containers, and leave the data of its volumes where it is

A host whose data directory was lost, and that has joined again, still has the containers and volumes of the node that it was.
Remove that one first: 'vc leave ID --force'. The containers are stopped and removed. Data of a volume that services of the
cluster use by now on another host is left where it is; on the same host it replaces what they have written since, which stays in
Docker as a volume of its own.")]
    Adopt {
        /// Id or name of the former node
        #[arg(value_name = "FORMER_NODE")]
        node: String,
        /// Do not take over the data of its volumes
        #[arg(long)]
        stop: bool,
    },
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        match self.command {
            Command::Revoke { node } => {
                app.change(vec![Request::Leave { node, force: true }]).await
            }
            Command::Adopt { node, stop } => app.change(vec![Request::Adopt { node, stop }]).await,
        }
    }
}
