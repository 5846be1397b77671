//! `vc ps`: lists instances with their node and state.

use vc_protocol::control::Request;

use crate::app::App;
use crate::error::Result;
use crate::render;
use vc_client::expect_reply;

/// Arguments of `vc ps`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc ps
  vc ps shop/web
  vc ps web --output json | jq -r '.[].address'

CPU % is of one core, MEMORY without what the kernel can drop; - of nodes that do not answer at once. 'vc stats' shows more.")]
pub(crate) struct Args {
    /// List only this service: web, or shop/web; or the services of a project: shop/
    service: Option<String>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let request = Request::Instances { service: self.service, usage: true };
        let rows = expect_reply!(app.ask(request).await?, Instances)?;
        app.out.show(rows.as_slice(), render::instances)
    }
}
