//! `vc deploy`: puts the services of a Compose file in place.

use std::time::Duration;

use anyhow::anyhow;
use vc_protocol::control::Request;

use super::project::{ProjectArgs, warn};
use super::{image, wait};
use crate::app::App;
use crate::args::duration;
use crate::docker::DockerArgs;

/// Arguments of `vc deploy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc deploy compose.yaml
  vc deploy compose.yaml -p staging --wait --timeout 2m
  envsubst < compose.yaml | vc deploy - -p shop

Services of the project that are not in the file stay as they are; 'vc rm' removes them.
Images with 'build:' are built by your Docker and handed to the mesh first.
With --wait and --output json the instances are printed, once all of them run.")]
pub(crate) struct Args {
    #[command(flatten)]
    project: ProjectArgs,
    #[command(flatten)]
    docker: DockerArgs,
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
        let docker = self.docker.connect();
        for build in &project.builds {
            docker.as_ref().map_err(|error| anyhow!("{error}"))?.build(build).await?;
        }
        let mut session = app.connect().await?;
        for build in &project.builds {
            if let Ok(docker) = &docker
                && let Err(error) = image::push(app, &mut session, docker, &build.tag).await
            {
                session.close().await;
                return Err(error);
            }
        }
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
