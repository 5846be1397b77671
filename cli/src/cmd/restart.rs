//! `vc restart` and `vc rollback`: replace the instances of a service by the same or an earlier version.

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
  vc rollback web                            returns to the version before that did not fail
  vc rollback web                            a second time: undoes the rollback
  vc rollback web --to 3                     returns to version 3 of 'vc history web'
  vc rollback web --wait                     returns when all instances run

A version whose update failed is returned to only if --to names it.")]
pub(crate) struct RollbackArgs {
    /// Service: web, or shop/web
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The version, as 'vc history' numbers them
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u32).range(1..))]
    to: Option<u32>,
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
        let (service, force) = (self.service.clone(), self.force);
        let request = match self.to {
            Some(version) => Request::RollbackTo { service, version, force },
            None => Request::Rollback { service, force },
        };
        wait::change(app, vec![request], vec![self.service], self.wait).await
    }
}
