//! `vc history`: lists the versions of a service.

use vc_protocol::control::Request;

use crate::app::App;
use crate::error::Result;
use crate::render;
use vc_client::expect_reply;

/// Arguments of `vc history`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc history web
  vc rollback web --to 3
  vc history shop/web --output json | jq '.[] | select(.state == \"failed\") | .reason'

Newest first, each with what changed since the version before it. The cluster keeps the last 10 versions, and the images of the
last 3 whose update was complete. 'vc restart' makes no version.")]
pub(crate) struct Args {
    /// Service: web, or shop/web
    #[arg(value_name = "SERVICE")]
    service: String,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let reply = app.ask(Request::History { service: self.service }).await?;
        let rows = expect_reply!(reply, History)?;
        app.out.show(rows.as_slice(), render::versions)
    }
}
