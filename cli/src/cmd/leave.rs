//! `vc leave`: takes a machine out of the cluster for good.

use vc_protocol::control::Request;

use crate::app::App;

/// Arguments of `vc leave`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc drain attic                             first: its instances move
  vc leave attic                             then it goes
  vc leave attic --force                     whatever it still runs or holds, as when it is broken")]
pub(crate) struct Args {
    /// Name or id of the machine
    node: String,
    /// Also when it runs instances, or holds the data of volumes that services use
    #[arg(long)]
    force: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        app.change(vec![Request::Leave { node: self.node, force: self.force }]).await
    }
}
