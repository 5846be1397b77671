//! `vc rm`: removes services.

use vc_protocol::control::Request;

use crate::app::App;
use crate::error::Result;

/// Arguments of `vc rm`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc rm web
  vc rm shop/web shop/db
  vc rm shop/                                the whole project")]
pub(crate) struct Args {
    /// Services (web, or shop/web) or whole projects (shop/)
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        app.change(self.services.into_iter().map(|service| Request::Remove { service }).collect())
            .await
    }
}
