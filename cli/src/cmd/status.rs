//! `vc status`: shows the state of the cluster and its problems.

use vc_protocol::control::Request;

use crate::app::App;
use crate::error::{Result, Stop};
use crate::render;
use vc_client::expect_reply;

/// Arguments of `vc status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc status
  vc --peer 10.0.0.2 status                  as that node sees it
  vc status --output json | jq .problems
  vc status --exit-code >/dev/null || mail -s 'the cluster has problems' ops@example.com")]
pub(crate) struct Args {
    /// Exit with 1 if there are problems
    #[arg(long)]
    exit_code: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let report = expect_reply!(app.ask(Request::Status).await?, Status)?;
        app.out.show(&report, render::status)?;
        match report.problems.is_empty() {
            false if self.exit_code => Err(Stop::Exit(1).into()),
            _ => Ok(()),
        }
    }
}
