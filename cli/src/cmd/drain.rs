//! `vc drain` and `vc undrain`: keeps a machine free, or gives it back.

use vc_protocol::control::Request;

use crate::app::App;

/// Arguments of `vc drain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc drain attic                             its instances move; none comes
  vc undrain attic                           afterwards")]
pub(crate) struct DrainArgs {
    /// Name or id of the machine
    node: String,
}

/// Arguments of `vc undrain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc undrain attic")]
pub(crate) struct UndrainArgs {
    /// Name or id of the machine
    node: String,
}

impl DrainArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        app.change(vec![Request::Drain { node: self.node, drain: true }]).await
    }
}

impl UndrainArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        app.change(vec![Request::Drain { node: self.node, drain: false }]).await
    }
}
