//! `vc volume`: lists and removes named volumes.

use vc_protocol::VolumeKey;
use vc_protocol::control::Request;

use crate::app::App;
use crate::error::Result;
use crate::render;
use vc_client::expect_reply;

/// Arguments of `vc volume`.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List named volumes
    Ls(Ls),
    /// Remove volumes that no service uses, with their data
    Rm(Rm),
}

/// Arguments of `vc volume ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc volume ls
  vc volume ls --output json | jq '.[] | select(.services == []) | .volume'")]
struct Ls {}

/// Arguments of `vc volume rm`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc volume rm shop/data

The data is deleted permanently.")]
struct Rm {
    /// Volumes, as project/volume
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<VolumeKey>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        match self.command {
            Command::Ls(Ls {}) => {
                let rows = expect_reply!(app.ask(Request::Volumes).await?, Volumes)?;
                app.out.show(rows.as_slice(), render::volumes)
            }
            Command::Rm(Rm { volumes }) => {
                let request = |volume| Request::RemoveVolume { volume };
                app.change(volumes.into_iter().map(request).collect()).await
            }
        }
    }
}
