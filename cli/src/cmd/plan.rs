//! `vc plan`: shows where the services of a Compose file would be placed.

use vc_protocol::control::Request;

use super::project::{ProjectArgs, warn};
use crate::app::App;
use crate::error::Result;
use crate::render;
use vc_client::expect_reply;

/// Arguments of `vc plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc plan compose.yaml
  vc plan compose.yaml --output json | jq .unplaced")]
pub(crate) struct Args {
    #[command(flatten)]
    project: ProjectArgs,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let project = self.project.read()?;
        let request = Request::Plan { deployments: project.services.clone() };
        let report = expect_reply!(app.ask(request).await?, Plan)?;
        warn(&project);
        app.out.show(&report, render::plan)
    }
}
