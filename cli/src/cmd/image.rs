//! `vc image`: pushes images to the cluster and lists them.

use vc_protocol::control::{Change, ImagePush, Reply, Request};

use crate::app::App;
use crate::docker::{Docker, DockerArgs};
use crate::error::{Error, Result, Stop, SystemError};
use crate::render::{self, note};
use crate::terminal::{Confirmation, confirmed};
use vc_client::text::list;
use vc_client::{SendStreamError, Session, SessionError, expect_reply};

/// The most images that a question names.
const MAX_NAMED: usize = 8;

/// Arguments of `vc image`.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Push images of your local Docker to the cluster; needs no registry
    Push(Push),
    /// Remove images that were pushed and that nothing needs
    Rm(Rm),
    /// Remove all images that were pushed and that nothing needs
    Prune(Prune),
    /// List images that were pushed or are in use, with the nodes that have them
    Ls(Ls),
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        match self.command {
            Command::Push(args) => args.run(app).await,
            Command::Rm(Rm { images }) => {
                app.change(vec![Request::RemoveImages { references: images }]).await
            }
            Command::Prune(args) => args.run(app).await,
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

One node stores the image; the others fetch it when they need it. Services deployed from then on that name this reference
run this image; running services keep theirs until they are deployed again.")]
struct Push {
    /// Images, as listed by 'docker images'
    #[arg(required = true, value_name = "LOCAL_IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    docker: DockerArgs,
}

impl Push {
    async fn run(self, app: &App) -> Result {
        let docker = self.docker.connect()?;
        let changes = app
            .in_session(async |session| {
                let mut changes = Vec::new();
                for image in &self.images {
                    changes.extend(push(app, session, &docker, image).await?);
                }
                Ok(changes)
            })
            .await?;
        app.out.changes(&changes)
    }
}

/// Pushes an image to the node of the session; returns the changes. After Ctrl-C nothing has changed.
pub(super) async fn push(
    app: &App,
    session: &mut Session,
    docker: &Docker,
    reference: &str,
) -> Result<Vec<Change>> {
    tokio::select! {
        pushed = send(app, session, docker, reference) => pushed,
        result = tokio::signal::ctrl_c() => {
            result.map_err(SystemError::doing("wait for signals"))?;
            Err(Stop::Interrupted.into())
        }
    }
}

async fn send(
    app: &App,
    session: &mut Session,
    docker: &Docker,
    reference: &str,
) -> Result<Vec<Change>> {
    let image = docker.find(reference).await?;
    let push =
        ImagePush { reference: reference.to_owned(), id: image.id.to_string(), size: image.size };
    session.send(&Request::PushImage(push)).await?;
    match session.receive_result().await? {
        Reply::Done(changes) => return Ok(changes),
        Reply::Ready => {}
        _ => return Err(SessionError::Unexpected.into()),
    }
    // `docker save` sends slightly more than the size.
    let bar = app.out.transfer_bar(reference, Some(image.size));
    let mut pieces = docker.save(&image);
    let reply = session.send_stream(&mut pieces, |bytes| bar.inc(bytes)).await;
    bar.finish_and_clear();
    let reply = reply.map_err(|error| {
        let error = match error {
            SendStreamError::Source(error) => Error::from(error),
            SendStreamError::Session(error) => Error::from(error),
        };
        error.context(&format!("cannot push {reference}"))
    })?;
    Ok(expect_reply!(reply, Done)?)
}

/// Arguments of `vc image rm`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc image rm myapp:1 worker:1

An image that a service uses, or an earlier version that 'vc rollback' can return to, is not removed. Nodes delete the content within an
hour, and from their Docker, where they have loaded it, within seven days.")]
struct Rm {
    /// References, as 'vc image ls' lists them
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Arguments of `vc image prune`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc image prune                             on a terminal, shows them first and asks
  vc image prune --dry-run                   only shows them
  vc image prune --dry-run --output json | jq -r '.[].reference'

Images that a service uses, or an earlier version that 'vc rollback' can return to, stay, and those that were pushed within an hour.")]
struct Prune {
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

impl Prune {
    async fn run(self, app: &App) -> Result {
        if self.dry_run || self.confirmation.is_needed() {
            let rows =
                expect_reply!(app.ask(Request::PruneImages { apply: false }).await?, Images)?;
            if self.dry_run {
                return app.out.show(rows.as_slice(), render::images);
            }
            let references: Vec<String> = rows.into_iter().map(|row| row.reference).collect();
            if references.is_empty() {
                note("there is nothing to remove");
                return Ok(());
            }
            if !confirmed(&format!("Remove {}?", list(references.clone(), MAX_NAMED)))? {
                note("nothing was removed");
                return Ok(());
            }
            // Not what has come out of use since the question.
            return app.change(vec![Request::RemoveImages { references }]).await;
        }
        app.change(vec![Request::PruneImages { apply: true }]).await
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
    async fn run(self, app: &App) -> Result {
        let rows = expect_reply!(app.ask(Request::Images).await?, Images)?;
        app.out.show(rows.as_slice(), render::images)
    }
}
