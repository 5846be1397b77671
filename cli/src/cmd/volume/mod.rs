//! `vc volume`: lists, moves, copies, restores and removes named volumes.

mod adopt;
mod at;
mod backup;
mod clone;
mod cp;
mod forget;
mod import;
mod snapshot;

use vc_protocol::control::{
    Change, NodeStatus, ReplicaState, Request, SnapshotKind, SnapshotRow, VolumeRow,
};
use vc_protocol::volume::SnapshotId;
use vc_protocol::{ApiError, ErrorCode, VolumeKey};

use self::at::{At, choose, find, kept, on_nodes};
use super::rebalance::await_moves;
use super::wait::MoveArgs;
use crate::app::App;
use crate::error::Result;
use crate::render::{self, note};
use crate::terminal::{Confirmation, confirmed};
use vc_client::text::one_line;
use vc_client::{Session, expect_reply};

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
    /// Take a snapshot now
    Snapshot(snapshot::Snapshot),
    /// Download a snapshot as an archive
    Backup(backup::Backup),
    /// Make a new volume of an archive
    Import(import::Import),
    /// Make a new volume of a snapshot of another one
    Clone(clone::Clone),
    /// Make a new volume of what Docker or a directory has on a node
    Adopt(adopt::Adopt),
    /// Copy files out of a volume, or into it
    Cp(cp::Cp),
    /// Remove volumes that no service uses, with their data
    Rm(Rm),
    /// Make the cluster forget a volume that no service uses; its data stays on the nodes
    Forget(forget::Forget),
    /// Take a volume out of the trash that was removed in the last 24 hours, or forgotten
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
  vc volume restore data --at 2h                     as it was two hours ago
  vc volume restore data --at 2026-11-28T10:00:00Z
  vc volume restore data --conflict 1000002-7
  vc scale db=1
  vc volume restore data --at 1d --as before         a new volume; services may run

The services of the volume must be stopped. What the volume has before is a snapshot too, so it can be restored again.")]
struct Restore {
    /// The volume, as project/volume, or its name if no other project has one of that name
    volume: String,
    /// The snapshot, by its id, a time or an age: the newest that is not later
    #[arg(long, value_name = "ID|TIME", required_unless_present = "conflict")]
    at: Option<At>,
    /// What was kept aside, as 'vc volume conflicts' shows it
    #[arg(long, value_name = "ID", conflicts_with = "at")]
    conflict: Option<SnapshotId>,
    /// Make this new volume of the snapshot, and leave the volume as it is
    #[arg(long = "as", value_name = "NEW", conflicts_with = "conflict")]
    new: Option<String>,
}

/// Arguments of `vc volume undelete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc volume undelete shop/data

The volume has what its last snapshot has. Of several nodes that have it in the trash, the one with the newest takes it out.")]
struct Undelete {
    /// The volume, as project/volume
    #[arg(value_name = "REMOVED")]
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
    #[arg(long, value_name = "NODE")]
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
            Command::Snapshot(args) => args.run(app).await,
            Command::Backup(args) => args.run(app).await,
            Command::Import(args) => args.run(app).await,
            Command::Clone(args) => args.run(app).await,
            Command::Adopt(args) => args.run(app).await,
            Command::Cp(args) => args.run(app).await,
            Command::Forget(args) => args.run(app).await,
            Command::Move(Move { volume, to, moves }) => {
                app.in_session(async |session| {
                    let volume = find(session, &volume).await?.volume;
                    let request = Request::MoveVolume { volume, to: to.clone() };
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
            Command::Snapshots(Of { volume }) => list(app, &volume, SnapshotKind::Snapshot).await,
            Command::Conflicts(Of { volume }) => list(app, &volume, SnapshotKind::Conflict).await,
            Command::Restore(args) => {
                let changes = app.in_session(async |session| args.run(app, session).await).await?;
                app.out.changes(&changes)
            }
            Command::Undelete(Undelete { volume }) => {
                let changes = app.in_session(async |session| undelete(session, volume).await);
                app.out.changes(&changes.await?)
            }
            Command::Rm(Rm { volumes, confirmation }) => {
                let mut rows = expect_reply!(app.ask(Request::Volumes).await?, Volumes)?;
                rows.retain(|row| volumes.contains(&row.volume));
                if confirmation.is_needed() {
                    let named: Vec<String> = rows.iter().map(describe).collect();
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
                for (name, nodes) in rows.iter().filter_map(down) {
                    note(&format!(
                        "the data of {name} on {nodes} is removed when that returns: to its trash, for 24 h from then"
                    ));
                }
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

/// Returns a volume that nodes have which are down, and these.
fn down(row: &VolumeRow) -> Option<(&VolumeKey, String)> {
    let replicas = row.replicas.iter().filter(|it| it.state == ReplicaState::Down);
    let home = (!row.up).then_some(&row.node_name).into_iter();
    let nodes: Vec<String> =
        home.chain(replicas.map(|it| &it.node_name)).map(|name| one_line(name)).collect();
    (!nodes.is_empty()).then(|| (&row.volume, nodes.join(" and ")))
}

impl Restore {
    async fn run(self, app: &App, session: &mut Session) -> Result<Vec<Change>> {
        let Self { volume, at, conflict, new } = self;
        if let Some(new) = new {
            return clone::clone(app, session, &volume, at, &new).await;
        }
        let row = find(session, &volume).await?;
        let snapshot = match (conflict, at) {
            (Some(id), _) | (None, Some(At::Snapshot(id))) => id,
            (None, at) => {
                // The primary restores it: what other nodes have counts only if it has none.
                let on_primary = VolumeRow { replicas: Vec::new(), ..row.clone() };
                let chosen = match choose(app, session, &on_primary, at).await {
                    Err(_) => choose(app, session, &row, at).await,
                    chosen => chosen,
                };
                let (found, id) = chosen?;
                note(&at::describe(&found));
                id
            }
        };
        let (volume, conflict) = (row.volume, conflict.is_some());
        let request = Request::RestoreVolume { volume, snapshot, conflict };
        app.await_change(session, &request, "restoring the volume").await
    }
}

/// Takes what was removed or forgotten last of a volume out of the trash.
async fn undelete(session: &mut Session, volume: VolumeKey) -> Result<Vec<Change>> {
    let nodes = expect_reply!(session.ask(&Request::Nodes).await?, Nodes)?;
    let up = nodes.iter().filter(|row| row.state == NodeStatus::Up && !row.runtime.is_empty());
    let mut trashed = on_nodes(session, &volume, up.map(|row| row.id).collect()).await?;
    trashed.retain(|row| row.kind == SnapshotKind::Removed);
    let newest =
        trashed.into_iter().max_by_key(|row| (row.time, row.snapshot.parse::<SnapshotId>().ok()));
    let Some(SnapshotRow { node, .. }) = newest else {
        let message = format!("nothing of volume {volume} is in the trash of a node that is up");
        let error = ApiError::new(ErrorCode::NotFound, message);
        return Err(error.with_hint("what is removed stays for 24 h; see 'vc nodes'").into());
    };
    Ok(session.change(&Request::UndeleteVolume { volume, node }).await?)
}

/// Lists what the nodes keep of a volume.
async fn list(app: &App, volume: &str, kind: SnapshotKind) -> Result {
    let rows = app
        .in_session(async |session| {
            let row = find(session, volume).await?;
            kept(session, &row, kind).await
        })
        .await?;
    app.out.show(rows.as_slice(), render::snapshots)
}
