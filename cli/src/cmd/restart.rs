//! `vc restart` and `vc rollback`: the same once more, or what was before.

use vc_protocol::control::Request;

use crate::app::App;

/// Arguments of `vc restart`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc restart web
  vc restart shop/web shop/api

Instances are replaced as an update replaces them: so many at a time as update_config says.")]
pub(crate) struct RestartArgs {
    /// Services (web, or shop/web)
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

/// Arguments of `vc rollback`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc rollback web                            back to the version before
  vc rollback web                            and forth again")]
pub(crate) struct RollbackArgs {
    /// Service (web, or shop/web)
    #[arg(value_name = "SERVICE")]
    service: String,
}

impl RestartArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        app.change(self.services.into_iter().map(|service| Request::Restart { service }).collect())
            .await
    }
}

impl RollbackArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        app.change(vec![Request::Rollback { service: self.service }]).await
    }
}
