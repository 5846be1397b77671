//! `vc volume forget`: makes the cluster forget a volume, and deletes nothing.

use vc_client::expect_reply;
use vc_protocol::VolumeKey;
use vc_protocol::control::Request;

use super::describe;
use crate::app::App;
use crate::error::Result;
use crate::render::note;
use crate::terminal::{Confirmation, confirmed};

/// Arguments of `vc volume forget`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc volume forget shop/data
  vc volume forget -y shop/data              without asking
  vc volume undelete shop/data               the cluster knows it again

Docker's volume, or the directory, stays on each node, and so do the snapshots; on a node that is down, too, when it returns. All
members must know this. Asks on a terminal.")]
pub(super) struct Forget {
    /// The volume, as project/volume
    volume: VolumeKey,
    #[command(flatten)]
    confirmation: Confirmation,
}

impl Forget {
    pub(super) async fn run(self, app: &App) -> Result {
        let Self { volume, confirmation } = self;
        if confirmation.is_needed() {
            let rows = expect_reply!(app.ask(Request::Volumes).await?, Volumes)?;
            let row = rows.iter().find(|row| row.volume == volume);
            // The node says what is wrong with a volume that does not exist.
            if let Some(row) = row
                && !confirmed(&format!("Forget {}? Its data stays.", describe(row)))?
            {
                note("nothing was forgotten");
                return Ok(());
            }
        }
        let name = volume.to_string();
        app.change(vec![Request::ForgetVolume { volume }]).await?;
        note(&format!("its data stays, outside the cluster: 'vc volume undelete {name}'"));
        Ok(())
    }
}
