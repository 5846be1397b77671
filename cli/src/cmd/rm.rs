//! `vc rm`: removes services.

use vc_client::expect_reply;
use vc_client::text::list;
use vc_protocol::control::Request;

use crate::app::App;
use crate::error::Result;
use crate::render::note;
use crate::terminal::{Confirmation, confirmed};

/// The most instances that the question names.
const MAX_NAMED: usize = 8;

/// Arguments of `vc rm`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc rm web
  vc rm shop/web shop/db
  vc rm shop/                                the whole project
  vc rm -y web                               without asking

Asks on a terminal. The data of named volumes stays: see 'vc volume'.")]
pub(crate) struct Args {
    /// Services (web, or shop/web) or whole projects (shop/)
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    confirmation: Confirmation,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        if self.confirmation.is_needed() {
            let mut instances = Vec::new();
            for service in &self.services {
                let request = Request::Instances { service: Some(service.clone()), usage: false };
                let rows = expect_reply!(app.ask(request).await?, Instances)?;
                instances.extend(rows.iter().map(|row| format!("{}.{}", row.service, row.replica)));
            }
            let services = self.services.join(", ");
            let question = match instances.as_slice() {
                [] => format!("Remove {services}, which has no instances?"),
                _ => format!("Remove {services} with {}?", list(instances, MAX_NAMED)),
            };
            if !confirmed(&question)? {
                note("nothing was removed");
                return Ok(());
            }
        }
        app.change(self.services.into_iter().map(|service| Request::Remove { service }).collect())
            .await
    }
}
