//! `vc deploy`: puts the services of a Compose file in place.

use anyhow::{anyhow, bail};
use vc_protocol::control::{Reply, Request};

use super::image;
use super::project::{ProjectArgs, warn};
use super::wait::{WaitArgs, Wanted, until_running};
use crate::app::App;
use crate::docker::DockerArgs;
use crate::render::{self, note};
use vc_client::{Session, SessionError, expect_reply};

/// Arguments of `vc deploy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc deploy compose.yaml                     on a terminal it shows first what changes
  vc deploy compose.yaml --dry-run           only shows it
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
    /// Say what would change, and change nothing
    #[arg(long, conflicts_with_all = ["diff", "wait"])]
    dry_run: bool,
    /// Say what changes first, also when no terminal is attached
    #[arg(long)]
    diff: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        if self.diff && app.out.is_json() {
            bail!("--diff is for people: with --output json, say --dry-run");
        }
        let project = self.project.read()?;
        let (deployments, files) = (project.services.clone(), project.files.clone());
        let diff = Request::Diff { deployments: deployments.clone(), files: files.clone() };
        if self.dry_run {
            let rows = expect_reply!(app.ask(diff).await?, Diff)?;
            warn(&project);
            return app.out.show(rows.as_slice(), render::diff);
        }
        let docker = self.docker.connect();
        for build in &project.builds {
            docker.as_ref().map_err(|error| anyhow!("{error}"))?.build(build).await?;
        }
        app.in_session(async |session| {
            for build in &project.builds {
                if let Ok(docker) = &docker {
                    image::push(app, session, docker, &build.tag).await?;
                }
            }
            if self.diff || app.out.is_live() {
                show_diff(app, session, &diff).await?;
            }
            let lines = session.change(&Request::Deploy { deployments, files }).await?;
            warn(&project);
            if !(self.wait.wait && app.out.is_json()) {
                app.out.lines(&lines)?;
            }
            if self.wait.wait {
                let wanted = project.services.iter().map(Wanted::from).collect();
                until_running(app, session, wanted, self.wait.timeout).await?;
            }
            Ok(())
        })
        .await
    }
}

/// Says what changes, if the member can tell: an older one does not know the question, and ends the session over it.
async fn show_diff(app: &App, session: &mut Session, diff: &Request) -> anyhow::Result<()> {
    match session.ask(diff).await {
        Ok(Reply::Diff(rows)) => app.out.show(rows.as_slice(), render::diff),
        Ok(_) => Err(SessionError::Unexpected.into()),
        Err(SessionError::Refused(why)) => {
            note(&format!("what changes is not known: {why}"));
            app.renew(session).await
        }
        Err(error) => Err(error.into()),
    }
}
