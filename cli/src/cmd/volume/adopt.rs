//! `vc volume adopt`: makes a volume of what a host has already.

use vc_protocol::VolumeKey;
use vc_protocol::control::Request;

use crate::app::App;
use crate::error::Result;

/// Arguments of `vc volume adopt`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc volume adopt nextcloud_data --node nas cloud/data        of what 'docker volume ls' shows there
  vc volume adopt /srv/photos --node nas cloud/photos         of a directory
  vc volume adopt vc-shop.data-Qx3fTz9a --node nas shop/data  of a node that was founded anew

The new volume is a copy; the source stays as it is. No running container may write the source meanwhile. Docker's volumes need an
admin, directories one who may mount them: 'vc project allow PROJECT host-paths=PATH'. To use a directory where it is, name it in
the Compose file.")]
pub(super) struct Adopt {
    /// Docker's name of its volume, or the absolute path of a directory, on the node
    #[arg(value_name = "DOCKER_VOLUME|/PATH")]
    source: String,
    /// The new volume, as project/volume
    #[arg(value_name = "NEW")]
    volume: VolumeKey,
    /// Name or id of the node
    #[arg(long)]
    node: String,
}

impl Adopt {
    pub(super) async fn run(self, app: &App) -> Result {
        let Self { source, volume, node } = self;
        let what = format!("copying {source}");
        let request = Request::AdoptVolume { volume, node, source };
        let changes = app
            .in_session(async |session| app.await_change(session, &request, &what).await)
            .await?;
        app.out.changes(&changes)
    }
}
