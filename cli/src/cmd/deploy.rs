//! `vc deploy`: deploys the services of Compose files.

use vc_protocol::control::{Change, Reply, Request, UploadPlan};
use vc_protocol::spec::Deployment;
use vc_protocol::{ApiError, ErrorCode, TraceId};

use super::project::{ProjectArgs, warn};
use super::upload::{Pending, Replacement};
use super::wait::{ServiceTarget, WaitArgs, until_running};
use super::{image, upload};
use crate::app::App;
use crate::docker::DockerArgs;
use crate::error::Result;
use crate::render::{self, note};
use crate::terminal::{Confirmation, confirmed};
use vc_client::{Session, SessionError, expect_reply};

/// Arguments of `vc deploy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc deploy                                  compose.yaml of this directory; on a terminal, shows the changes first
  vc deploy -f compose.yaml -f prod.yaml     the second is merged over the first
  vc deploy compose.yaml --dry-run           only shows the changes
  vc deploy compose.yaml --on attic          all services on one node, with the paths that it has
  vc deploy compose.yaml -p staging --wait --timeout 2m
  vc deploy compose.yaml --pull              takes what the tags name in the registry now
  vc deploy compose.yaml --upload=./site     replaces what the volume of ./site has by the directory
  envsubst < compose.yaml | vc deploy - -p shop

A service keeps the image that it is pinned to, until its tag is pushed with 'vc image push', pulled with --pull, or changed in
the file. Which node you deploy through makes no difference.
Directories of the file are volumes. Those on this computer are uploaded when their volume is new; an upload that broke off goes on
with the next 'vc deploy' within 24 hours. What services write stays, unless --upload replaces it: their services stop for that, and
what the volume had is a snapshot. Absolute paths are looked up on the nodes.
Services of the project that are not in the file are not changed; remove them with 'vc rm'.
Images with 'build:' are built by your local Docker and pushed to the cluster first.
With --wait and --output json, prints the instances once all of them run.")]
pub(crate) struct Args {
    #[command(flatten)]
    project: ProjectArgs,
    #[command(flatten)]
    docker: DockerArgs,
    /// Show what would change, and change nothing
    #[arg(long, conflicts_with_all = ["diff", "wait"])]
    dry_run: bool,
    /// Show the changes first, also without a terminal
    #[arg(long)]
    diff: bool,
    /// Ask the registry, or else Docker on the node, which image each tag names now
    #[arg(long)]
    pull: bool,
    /// Deploy also if the image of a service is on no node and in no registry, or a directory may be on a node that is down
    #[arg(long)]
    force: bool,
    /// The node whose directories count, for volumes that begin with a directory which several nodes have
    #[arg(long, value_name = "NODE")]
    data_from: Option<String>,
    /// Upload a directory again, by its path or volume, or all of them, in place of what their volumes have; asks on a terminal
    #[arg(
        long,
        value_name = "VOLUME|DIR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ""
    )]
    upload: Vec<String>,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    wait: WaitArgs,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        if self.diff && app.out.is_json() {
            let error = ApiError::new(ErrorCode::InvalidArgument, "--diff prints text");
            return Err(error.with_hint("use --dry-run with --output json").into());
        }
        let project = self.project.read()?;
        let (deployments, files) = (project.services.clone(), project.files.clone());
        let (pull, force) = (self.pull, self.force);
        let data_from = self.data_from;
        let diff = Request::Diff {
            deployments: deployments.clone(),
            files: files.clone(),
            pull,
            force,
            data_from: data_from.clone(),
        };
        if self.dry_run {
            return app
                .in_session(async |session| {
                    let rows = expect_reply!(session.ask(&diff).await?, Diff)?;
                    let all = upload::pending(app, session, &project.uploads, &self.upload).await?;
                    for pending in &all {
                        note(&format!("would {pending}"));
                        if !app.out.is_json() {
                            pending.show_diff();
                        }
                    }
                    warn(&project);
                    if !self.upload.is_empty() && app.out.is_json() {
                        let uploads = all.iter().filter_map(Pending::diff).cloned().collect();
                        return app.out.json(&UploadPlan { services: rows, uploads });
                    }
                    app.out.show(rows.as_slice(), render::diff)
                })
                .await;
        }
        let docker = match project.builds.is_empty() {
            true => None,
            false => Some(self.docker.connect()?),
        };
        for (docker, build) in
            docker.iter().flat_map(|it| project.builds.iter().map(move |build| (it, build)))
        {
            docker.build(build).await?;
        }
        app.in_session(async |session| {
            for (docker, build) in
                docker.iter().flat_map(|it| project.builds.iter().map(move |build| (it, build)))
            {
                image::push(app, session, docker, &build.tag).await?;
            }
            if self.diff || app.out.is_live() {
                show_diff(app, session, &diff).await?;
            }
            let pending = upload::pending(app, session, &project.uploads, &self.upload).await?;
            let replaces = pending.iter().any(|it| it.diff().is_some());
            for pending in pending.iter().filter(|it| it.diff().is_some()) {
                note(&pending.to_string());
                pending.show_diff();
            }
            if replaces
                && self.confirmation.is_needed()
                && !confirmed("Replace what these volumes have? Their services stop meanwhile.")?
            {
                note("nothing was changed");
                return Ok(());
            }
            if !pending.is_empty() {
                // What is refused is not uploaded first.
                session.ask(&diff).await?;
            }
            let mut deployments = deployments;
            for pending in &pending {
                if pending.diff().is_none() {
                    note(&pending.to_string());
                }
                upload::send(app, session, pending, &mut deployments).await?;
            }
            let trace = new_trace();
            let deploy = Request::Deploy { deployments, files, pull, force, data_from, trace };
            let changes = match replaces {
                true => Replacement::default().perform(app, session, &pending, &deploy).await?,
                false => session.change(&deploy).await?,
            };
            warn(&project);
            let is_change = |change: &Change| !matches!(change, Change::Unchanged { .. });
            let is_traced = app.out.is_json() && changes.iter().any(is_change);
            let traced = trace.filter(|_| is_traced).map(|trace| Change::Traced { trace });
            let changes: Vec<Change> = changes.into_iter().chain(traced).collect();
            if !(self.wait.wait && app.out.is_json()) {
                app.out.changes(&changes)?;
            }
            say_chosen_ports(session, &project.services).await?;
            if self.wait.wait {
                let targets = project.services.iter().map(ServiceTarget::from).collect();
                until_running(app, session, targets, self.wait.timeout).await?;
            }
            Ok(())
        })
        .await
    }
}

/// Returns a new id for the logs of nodes; `None` where the system has no random numbers, which is no reason not to deploy.
pub(super) fn new_trace() -> Option<TraceId> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok().map(|()| TraceId::new(random))
}

/// Says which ports the deployment has chosen for those that the file publishes without saying where.
async fn say_chosen_ports(session: &mut Session, deployed: &[Deployment]) -> Result {
    if deployed.iter().all(|it| it.spec.dynamic_ports.is_empty()) {
        return Ok(());
    }
    let rows = expect_reply!(session.ask(&Request::Services).await?, Services)?;
    for Deployment { service, spec, .. } in deployed {
        let written: Vec<String> = spec.ports.iter().map(ToString::to_string).collect();
        let ports = rows.iter().filter(|row| row.service == *service).flat_map(|row| &row.ports);
        let chosen: Vec<&str> =
            ports.filter(|it| !written.contains(it)).map(String::as_str).collect();
        if !spec.dynamic_ports.is_empty() && !chosen.is_empty() {
            note(&format!("{service} publishes {}", chosen.join(", ")));
        }
    }
    Ok(())
}

/// Shows the changes, if the node supports it: an older one does not know the request and closes the session.
async fn show_diff(app: &App, session: &mut Session, diff: &Request) -> Result {
    match session.ask(diff).await {
        Ok(Reply::Diff(rows)) => app.out.show(rows.as_slice(), render::diff),
        Ok(_) => Err(SessionError::Unexpected.into()),
        // The deployment would be refused as well.
        Err(SessionError::Refused(why)) if why.code == ErrorCode::FailedPrecondition => {
            Err(SessionError::Refused(why).into())
        }
        Err(SessionError::Refused(why)) => {
            note(&format!("cannot show the changes: {why}"));
            app.renew(session).await
        }
        Err(error) => Err(error.into()),
    }
}
