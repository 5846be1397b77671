//! `vc volume`: lists, moves, restores and removes named volumes.

use vc_protocol::control::{
    Change, NodeStatus, ReplicaState, Request, SnapshotKind, SnapshotRow, VolumeRow,
};
use vc_protocol::volume::SnapshotId;
use vc_protocol::{ApiError, ErrorCode, NodeId, VolumeKey};

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
    /// List the snapshots of a volume, on all nodes
    Snapshots(Of),
    /// List what lost nodes had written last, and was kept aside when they returned
    Conflicts(Of),
    /// Make a volume equal to a snapshot, or to what was kept aside
    Restore(Restore),
    /// Remove volumes that no service uses, with their data
    Rm(Rm),
    /// Take a removed volume out of the trash, within 24 hours
    Undelete(Undelete),
}

/// Arguments of `vc volume snapshots` and `vc volume conflicts`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc volume snapshots shop/data
  vc volume conflicts data --output json | jq -r '.[].snapshot'
  vc volume restore data --at 1000003-12     make the volume equal to one")]
struct Of {
    /// The volume, as project/volume, or its name if no other project has one of that name
    volume: String,
}

/// Arguments of `vc volume restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc scale db=0
  vc volume restore data --at 1000003-12
  vc volume restore data --conflict 1000002-7
  vc scale db=1

The services of the volume must be stopped. What the volume has before is a snapshot too, so it can be restored again.")]
struct Restore {
    /// The volume, as project/volume, or its name if no other project has one of that name
    volume: String,
    /// The snapshot, as 'vc volume snapshots' shows it
    #[arg(long, value_name = "ID", required_unless_present = "conflict")]
    at: Option<SnapshotId>,
    /// What was kept aside, as 'vc volume conflicts' shows it
    #[arg(long, value_name = "ID", conflicts_with = "at")]
    conflict: Option<SnapshotId>,
}

/// Arguments of `vc volume undelete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc volume undelete shop/data

The volume has what its last snapshot has. Of several nodes that have it in the trash, the one with the newest takes it out.")]
struct Undelete {
    /// The volume, as project/volume
    volume: VolumeKey,
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

The data is deleted, on a node that is down as soon as it returns. A last snapshot of it stays in the trash of each node for 24
hours: 'vc volume undelete'. Asks on a terminal.")]
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
            Command::Snapshots(Of { volume }) => {
                let rows = kept(app, &volume, &[SnapshotKind::Snapshot]).await?;
                app.out.show(rows.as_slice(), render::snapshots)
            }
            Command::Conflicts(Of { volume }) => {
                let rows = kept(app, &volume, &[SnapshotKind::Conflict]).await?;
                app.out.show(rows.as_slice(), render::snapshots)
            }
            Command::Restore(Restore { volume, at, conflict }) => {
                let rows = expect_reply!(app.ask(Request::Volumes).await?, Volumes)?;
                let volume = find(&rows, &volume)?;
                // One of them is there: clap says so.
                let Some(snapshot) = conflict.or(at) else { return Ok(()) };
                let conflict = conflict.is_some();
                app.change(vec![Request::RestoreVolume { volume, snapshot, conflict }]).await
            }
            Command::Undelete(Undelete { volume }) => {
                let nodes = expect_reply!(app.ask(Request::Nodes).await?, Nodes)?;
                let up = nodes
                    .iter()
                    .filter(|row| row.state == NodeStatus::Up && !row.runtime.is_empty());
                let mut trashed = on_nodes(app, &volume, up.map(|row| row.id).collect()).await?;
                trashed.retain(|row| row.kind == SnapshotKind::Removed);
                let newest = trashed
                    .into_iter()
                    .max_by_key(|row| (row.snapshot.parse::<SnapshotId>().ok(), row.time));
                let Some(SnapshotRow { node, .. }) = newest else {
                    let message =
                        format!("nothing of volume {volume} is in the trash of a node that is up");
                    return Err(Error::Failed(
                        ApiError::new(ErrorCode::NotFound, message)
                            .with_hint("what is removed is kept for 24 h; see 'vc nodes'"),
                    ));
                };
                app.change(vec![Request::UndeleteVolume { volume, node }]).await
            }
            Command::Rm(Rm { volumes, confirmation }) => {
                if confirmation.is_needed() {
                    let rows = expect_reply!(app.ask(Request::Volumes).await?, Volumes)?;
                    let found = rows.iter().filter(|row| volumes.contains(&row.volume));
                    let named: Vec<String> = found.map(describe).collect();
                    let named = named.join("; ");
                    // The node says what is wrong with a volume that does not exist.
                    if !named.is_empty() && !confirmed(&format!("Delete the data of {named}?"))? {
                        note("nothing was removed");
                        return Ok(());
                    }
                }
                let names: Vec<String> = volumes.iter().map(ToString::to_string).collect();
                let request = |volume| Request::RemoveVolume { volume };
                app.change(volumes.into_iter().map(request).collect()).await?;
                for name in names {
                    note(&format!("a last snapshot stays for 24 h: 'vc volume undelete {name}'"));
                }
                Ok(())
            }
        }
    }
}

/// Describes a volume: `shop/data on attic (down) and desk`.
fn describe(row: &VolumeRow) -> String {
    let named = |name: &str, up| {
        let down = if up { "" } else { " (down)" };
        format!("{}{down}", one_line(name))
    };
    let replicas = row.replicas.iter();
    let replicas = replicas.map(|it| named(&it.node_name, it.state != ReplicaState::Down));
    let nodes: Vec<String> = [named(&row.node_name, row.up)].into_iter().chain(replicas).collect();
    format!("{} on {}", row.volume, nodes.join(" and "))
}

/// Returns what the nodes that are up keep of a volume, the newest first.
async fn kept(app: &App, volume: &str, kinds: &[SnapshotKind]) -> Result<Vec<SnapshotRow>> {
    let rows = expect_reply!(app.ask(Request::Volumes).await?, Volumes)?;
    let volume = find(&rows, volume)?;
    let row = rows.iter().filter(|row| row.volume == volume);
    let nodes = row.flat_map(|row| {
        let replicas = row.replicas.iter().filter(|it| it.state != ReplicaState::Down);
        row.up.then_some(row.node).into_iter().chain(replicas.map(|it| it.node))
    });
    let mut kept = on_nodes(app, &volume, nodes.collect()).await?;
    kept.retain(|row| kinds.contains(&row.kind));
    kept.sort_by_cached_key(|row| {
        (std::cmp::Reverse(row.snapshot.parse::<SnapshotId>().ok()), row.node_name.clone())
    });
    Ok(kept)
}

/// Returns what these nodes keep of a volume.
async fn on_nodes(app: &App, volume: &VolumeKey, nodes: Vec<NodeId>) -> Result<Vec<SnapshotRow>> {
    let mut kept = Vec::new();
    for node in nodes {
        let request = Request::Snapshots { volume: volume.clone(), node };
        kept.extend(expect_reply!(app.ask(request).await?, Snapshots)?);
    }
    Ok(kept)
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
