//! `vc volume`: lists, moves and removes named volumes.

use vc_protocol::control::{Change, Request, VolumeRow};
use vc_protocol::{ApiError, ErrorCode, VolumeKey};

use super::rebalance::await_moves;
use super::wait::MoveArgs;
use crate::app::App;
use crate::error::{Error, Result};
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
    /// Move a volume, with the services that mount it, to another node
    Move(Move),
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

/// Arguments of `vc volume move`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc volume move shop/data --to attic
  vc volume move data --to attic --no-wait

A node that has no copy gets one first, while the services run. Then they stop, what they wrote last is copied, and they start
there: nothing is lost. Ctrl-C and --timeout end the wait, not the move.")]
struct Move {
    /// The volume, as project/volume, or its name if no other project has one of that name
    volume: String,
    /// Name or id of the node
    #[arg(long)]
    to: String,
    #[command(flatten)]
    moves: MoveArgs,
}

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
            Command::Move(Move { volume, to, moves }) => {
                let rows = expect_reply!(app.ask(Request::Volumes).await?, Volumes)?;
                let volume = find(&rows, &volume)?;
                app.in_session(async |session| {
                    let request = Request::MoveVolume { volume: volume.clone(), to: to.clone() };
                    let changes = session.change(&request).await?;
                    app.out.changes(&changes)?;
                    let slots = changes.iter().filter_map(|change| match change {
                        Change::Moving { slot, from, .. } => Some((slot.clone(), *from)),
                        _ => None,
                    });
                    await_moves(app, session, slots.collect(), &moves).await
                })
                .await
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

/// Returns the volume that a text names, with its project or without. Errors: there is none, or there are several.
fn find(rows: &[VolumeRow], text: &str) -> Result<VolumeKey> {
    let named = |key: &VolumeKey| key.to_string() == text || key.volume.as_str() == text;
    let found: Vec<&VolumeKey> =
        rows.iter().map(|row| &row.volume).filter(|key| named(key)).collect();
    let error = match found[..] {
        [found] => return Ok(found.clone()),
        [] => ApiError::new(ErrorCode::NotFound, format!("no volume '{text}'"))
            .with_hint("see 'vc volume ls'"),
        _ => {
            let names: Vec<String> = found.iter().map(ToString::to_string).collect();
            ApiError::new(ErrorCode::InvalidArgument, format!("several volumes are named '{text}'"))
                .with_hint(format!("name one of {}", names.join(", ")))
        }
    };
    Err(Error::Failed(error))
}
