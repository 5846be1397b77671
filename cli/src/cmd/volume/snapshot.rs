//! `vc volume snapshot`: takes a snapshot now.

use vc_client::Session;
use vc_protocol::VolumeKey;
use vc_protocol::control::{Change, Request};

use super::at::find;
use crate::app::App;
use crate::error::Result;

/// Arguments of `vc volume snapshot`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc volume snapshot shop/data               before something risky
  vc volume snapshots shop/data              those that there are

Volumes with copies get snapshots every few seconds by themselves, a volume with one copy does not. Where nothing has changed since
the newest one, that is it. The rule of the volume (keep) says how long it stays.")]
pub(super) struct Snapshot {
    /// The volume, as project/volume, or its name if no other project has one of that name
    volume: String,
}

impl Snapshot {
    pub(super) async fn run(self, app: &App) -> Result {
        let changes = app
            .in_session(async |session| {
                let volume = find(session, &self.volume).await?.volume;
                take(app, session, &volume).await
            })
            .await?;
        app.out.changes(&changes)
    }
}

/// Takes a snapshot on the node that writes the volume.
pub(super) async fn take(
    app: &App,
    session: &mut Session,
    volume: &VolumeKey,
) -> Result<Vec<Change>> {
    let request = Request::SnapshotVolume { volume: volume.clone() };
    app.await_change(session, &request, "taking a snapshot").await
}
