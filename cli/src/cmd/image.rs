//! `vc image`: images that members hold for one another.

use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vc_protocol::control::{ImagePush, Reply, Request};

use crate::app::{App, Stop};
use crate::docker::{Docker, DockerArgs};
use crate::render;
use vc_client::{SendStreamError, Session, SessionError, expect_reply};

/// Arguments of `vc image`.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Hand images of your Docker to the mesh; no registry is needed
    Push(Push),
    /// List the images that were pushed or are in use, and who has them
    Ls(Ls),
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        match self.command {
            Command::Push(args) => args.run(app).await,
            Command::Ls(args) => args.run(app).await,
        }
    }
}

/// Arguments of `vc image push`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc image push myapp:1
  vc image push myapp:1 worker:1 && vc deploy compose.yaml

One member takes it; the others fetch it when they need it. From then on the name means this very image, wherever a
service that is deployed names it. What runs already stays as it is until it is deployed again.")]
struct Push {
    /// Images, as 'docker images' names them
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    docker: DockerArgs,
}

impl Push {
    async fn run(self, app: &App) -> anyhow::Result<()> {
        let docker = self.docker.connect()?;
        let lines = app
            .in_session(async |session| {
                let mut lines = Vec::new();
                for image in &self.images {
                    lines.extend(push(app, session, &docker, image).await?);
                }
                Ok(lines)
            })
            .await?;
        app.out.lines(&lines)
    }
}

/// Hands an image to the node at the other end; says what that changed. Ctrl-C ends it, and nothing has changed.
pub(super) async fn push(
    app: &App,
    session: &mut Session,
    docker: &Docker,
    reference: &str,
) -> anyhow::Result<Vec<String>> {
    tokio::select! {
        pushed = send(app, session, docker, reference) => pushed,
        result = tokio::signal::ctrl_c() => {
            result?;
            Err(Stop::Interrupted.into())
        }
    }
}

async fn send(
    app: &App,
    session: &mut Session,
    docker: &Docker,
    reference: &str,
) -> anyhow::Result<Vec<String>> {
    let image = docker.find(reference).await?;
    let push =
        ImagePush { reference: reference.to_owned(), id: image.id.clone(), size: image.size };
    session.send(&Request::PushImage(push)).await?;
    match session.receive_result().await? {
        Reply::Done(lines) => return Ok(lines),
        Reply::Ready => {}
        _ => return Err(SessionError::Unexpected.into()),
    }
    let bar = bar(app, reference, image.size);
    let mut pieces = docker.save(&image);
    let reply = session.send_stream(&mut pieces, |bytes| bar.inc(bytes)).await;
    let reply = reply.map_err(|error| match error {
        SendStreamError::Source(error) => error,
        SendStreamError::Session(error) => error.into(),
    });
    bar.finish_and_clear();
    let lines = expect_reply!(reply.with_context(|| format!("cannot push {reference}"))?, Done)?;
    Ok(lines)
}

/// How far a push is, for a person; `docker save` adds a little to the image's size.
fn bar(app: &App, reference: &str, size: u64) -> ProgressBar {
    if !app.out.is_live() {
        return ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden());
    }
    let template = "{prefix} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
    let bar = ProgressBar::new(size).with_prefix(reference.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Arguments of `vc image ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc image ls
  vc image ls --output json | jq '.[] | select(.nodes == []) | .reference'")]
struct Ls {}

impl Ls {
    async fn run(self, app: &App) -> anyhow::Result<()> {
        let rows = expect_reply!(app.ask(Request::Images).await?, Images)?;
        app.out.show(rows.as_slice(), render::images)
    }
}
