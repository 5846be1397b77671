//! `vc volume`: lists and removes named volumes.

use vc_protocol::VolumeKey;
use vc_protocol::control::{Request, VolumeRow};

use crate::app::App;
use crate::error::Result;
use crate::render::{self, note};
use crate::terminal::{Confirmation, confirmed};
use vc_client::expect_reply;
use vc_client::text::one_line;

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
  vc volume rm -y shop/data                  without asking

The data is deleted permanently, on a node that is down as soon as it returns. Asks on a terminal.")]
struct Rm {
    /// Volumes, as project/volume
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<VolumeKey>,
    #[command(flatten)]
    confirmation: Confirmation,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        match self.command {
            Command::Ls(Ls {}) => {
                let rows = expect_reply!(app.ask(Request::Volumes).await?, Volumes)?;
                app.out.show(rows.as_slice(), render::volumes)
            }
            Command::Rm(Rm { volumes, confirmation }) => {
                if confirmation.is_needed() {
                    let rows = expect_reply!(app.ask(Request::Volumes).await?, Volumes)?;
                    let found = rows.iter().filter(|row| volumes.contains(&row.volume));
                    let named: Vec<String> = found.map(describe).collect();
                    let named = named.join("; ");
                    // The node says what is wrong with a volume that does not exist.
                    if !named.is_empty()
                        && !confirmed(&format!("Delete the data of {named} permanently?"))?
                    {
                        note("nothing was removed");
                        return Ok(());
                    }
                }
                let request = |volume| Request::RemoveVolume { volume };
                app.change(volumes.into_iter().map(request).collect()).await
            }
        }
    }
}

/// Describes a volume: `shop/data on attic (down)`.
fn describe(row: &VolumeRow) -> String {
    let down = if row.up { "" } else { " (down)" };
    format!("{} on {}{down}", row.volume, one_line(&row.node_name))
}
