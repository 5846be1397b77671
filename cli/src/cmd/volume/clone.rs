//! `vc volume clone`: makes a volume of a snapshot of another one.

use vc_client::Session;
use vc_protocol::control::{Change, Request};

use super::at::{self, At};
use crate::app::App;
use crate::error::Result;
use crate::render::note;

/// Arguments of `vc volume clone`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc volume clone shop/data shop/trial
  vc volume clone data staging/data --at 1d          as it was a day ago

The new volume begins with the snapshot, on a node that has it, and takes no room there until it is written. Services may run
meanwhile: the snapshot is what a power cut would have left.")]
pub(super) struct Clone {
    /// The volume, as project/volume, or its name if no other project has one of that name
    volume: String,
    /// The new volume, as project/volume, or its name for the same project
    #[arg(value_name = "NEW")]
    to: String,
    /// The snapshot, by its id, a time or an age: the newest that is not later [default: the newest]
    #[arg(long, value_name = "ID|TIME")]
    at: Option<At>,
}

impl Clone {
    pub(super) async fn run(self, app: &App) -> Result {
        let Self { volume, to, at } = self;
        let changes =
            app.in_session(async |session| clone(app, session, &volume, at, &to).await).await?;
        app.out.changes(&changes)
    }
}

/// Makes the volume `to` of a snapshot, on a node that has it.
pub(super) async fn clone(
    app: &App,
    session: &mut Session,
    volume: &str,
    at: Option<At>,
    to: &str,
) -> Result<Vec<Change>> {
    let row = at::find(session, volume).await?;
    let to = at::beside(&row.volume, to)?;
    let (found, snapshot) = at::choose(app, session, &row, at).await?;
    note(&at::describe(&found));
    let request = Request::CloneVolume { volume: row.volume, snapshot, node: found.node, to };
    app.await_change(session, &request, "linking the snapshot").await
}
