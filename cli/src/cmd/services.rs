//! `vc services`: lists services.

use vc_protocol::control::Request;

use crate::app::App;
use crate::error::Result;
use crate::render;
use vc_client::expect_reply;

/// Arguments of `vc services`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc services
  vc services --output json | jq '.[] | select(.running < .replicas) | .service'")]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let rows = expect_reply!(app.ask(Request::Services).await?, Services)?;
        app.out.show(rows.as_slice(), render::services)
    }
}
