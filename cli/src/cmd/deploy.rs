//! `vc deploy`: puts the services of a Compose file in place.

use std::time::Duration;

use vc_protocol::control::Request;

use super::project::{ProjectArgs, warn};
use super::wait;
use crate::app::App;
use crate::args::duration;

/// Arguments of `vc deploy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc deploy compose.yaml
  vc deploy compose.yaml -p staging --wait --timeout 2m
  envsubst < compose.yaml | vc deploy - -p shop

Services of the project that are not in the file stay as they are; 'vc rm' removes them.
With --wait and --output json the instances are printed, once all of them run.")]
pub(crate) struct Args {
    #[command(flatten)]
    project: ProjectArgs,
    /// Return when every instance runs what the file says, and passes its healthcheck if it has one
    #[arg(long)]
    wait: bool,
    /// With --wait: fail after this time
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration, requires = "wait")]
    timeout: Duration,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        let project = self.project.read()?;
        let request =
            Request::Deploy { deployments: project.services.clone(), files: project.files.clone() };
        let mut session = app.connect().await?;
        let lines = match session.change(&request).await {
            Ok(lines) => lines,
            Err(error) => {
                session.close().await;
                return Err(error.into());
            }
        };
        warn(&project);
        if !(self.wait && app.out.is_json()) {
            app.out.lines(&lines)?;
        }
        if self.wait {
            wait::until_running(app, session, &project.services, self.timeout).await
        } else {
            session.close().await;
            Ok(())
        }
    }
}
