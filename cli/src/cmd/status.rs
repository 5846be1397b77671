//! `vc status`: shows the state of the cluster and its problems.

use vc_protocol::control::Request;

use crate::app::App;
use crate::error::Result;
use crate::render;
use vc_client::expect_reply;

/// Arguments of `vc status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc status
  vc --peer 10.0.0.2 status                  as that node sees it
  vc status --output json | jq .problems")]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let report = expect_reply!(app.ask(Request::Status).await?, Status)?;
        app.out.show(&report, render::status)
    }
}
