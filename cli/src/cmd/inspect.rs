//! `vc inspect`: shows a service with its instances and specification.

use vc_protocol::control::Request;

use crate::app::App;
use crate::error::Result;
use crate::render;
use vc_client::expect_reply;

/// Arguments of `vc inspect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc inspect web
  vc inspect web --show-values
  vc inspect shop/web --output json | jq .previous.container.image")]
pub(crate) struct Args {
    /// Service: web, or shop/web
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Show the values of environment variables, which are *** otherwise; needs a deployer
    #[arg(long)]
    show_values: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let reply = app
            .ask(Request::Inspect { service: self.service, show_values: self.show_values })
            .await?;
        let detail = expect_reply!(reply, Service)?;
        app.out.show(detail.as_ref(), render::inspect)
    }
}
