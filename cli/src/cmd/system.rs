//! `vc system`: what the data of the nodes takes.

use vc_protocol::control::{NodeStatus, Request};

use crate::app::App;
use crate::error::Result;
use crate::render::{self, note};
use vc_client::expect_reply;

/// Arguments of `vc system`.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what images, volumes, snapshots, trash and logs take on the disks of the nodes, and what can be freed
    Df(Df),
}

/// Arguments of `vc system df`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc system df
  vc system df --node attic
  vc system df --output json | jq '[.[] | select(.kind == \"trash\") | .bytes] | add'

Of what Docker has it shows nothing: see 'docker system df' on the host.")]
struct Df {
    /// Only of the node with this name or id
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let Command::Df(Df { node }) = self.command;
        let nodes = expect_reply!(app.ask(Request::Nodes).await?, Nodes)?;
        let is_meant = |name: &str, id: String| {
            node.as_ref().is_none_or(|wanted| wanted == name || *wanted == id)
        };
        let mut rows = Vec::new();
        for row in nodes.iter().filter(|row| is_meant(&row.name, row.id.to_string())) {
            if row.state != NodeStatus::Up {
                if row.state == NodeStatus::Down {
                    note(&format!("{} is down", row.name));
                }
                continue;
            }
            let request = Request::DiskUsage { node: row.id };
            rows.extend(expect_reply!(app.ask(request).await?, DiskUsage)?);
        }
        app.out.show(rows.as_slice(), render::disk_usage)
    }
}
