//! `vc restart` and `vc rollback`: the same once more, or what was before.

use vc_protocol::control::Request;

use super::wait::{self, WaitArgs};
use crate::app::App;

/// Arguments of `vc restart`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc restart web
  vc restart shop/web shop/api --wait

Instances are replaced as an update replaces them: so many at a time as update_config says.")]
pub(crate) struct RestartArgs {
    /// Services (web, or shop/web)
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Arguments of `vc rollback`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc rollback web                            back to the version before
  vc rollback web                            and forth again
  vc rollback web --wait                     returns when it runs")]
pub(crate) struct RollbackArgs {
    /// Service (web, or shop/web)
    #[arg(value_name = "SERVICE")]
    service: String,
    #[command(flatten)]
    wait: WaitArgs,
}

impl RestartArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        let requests = self.services.iter().cloned().map(|service| Request::Restart { service });
        wait::change(app, requests.collect(), self.services, self.wait).await
    }
}

impl RollbackArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        let request = Request::Rollback { service: self.service.clone() };
        wait::change(app, vec![request], vec![self.service], self.wait).await
    }
}
