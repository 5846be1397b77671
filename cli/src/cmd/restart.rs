//! `vc restart` and `vc rollback`: replace the instances of a service by the same or the previous version.

use vc_protocol::control::Request;

use super::wait::{self, WaitArgs};
use crate::app::App;
use crate::error::Result;

/// Arguments of `vc restart`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc restart web
  vc restart shop/web shop/api --wait

Instances are replaced as in an update, following the update_config of the service.")]
pub(crate) struct RestartArgs {
    /// Services: web, or shop/web
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
    /// Restart also if the image of the service is on no node and in no registry
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Arguments of `vc rollback`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc rollback web                            returns to the previous version
  vc rollback web                            a second time: undoes the rollback
  vc rollback web --wait                     returns when all instances run")]
pub(crate) struct RollbackArgs {
    /// Service: web, or shop/web
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Roll back also if the image of that version is on no node and in no registry
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

impl RestartArgs {
    pub(crate) async fn run(self, app: &App) -> Result {
        let force = self.force;
        let request = |service| Request::Restart { service, force };
        let requests = self.services.iter().cloned().map(request);
        wait::change(app, requests.collect(), self.services, self.wait).await
    }
}

impl RollbackArgs {
    pub(crate) async fn run(self, app: &App) -> Result {
        let request = Request::Rollback { service: self.service.clone(), force: self.force };
        wait::change(app, vec![request], vec![self.service], self.wait).await
    }
}
