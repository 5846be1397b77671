//! `vc backup`: backs the cluster up to a file, and checks such files.

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use tokio::task::spawn_blocking;
use vc_backup::{
    BackupFile, BackupSummary, Download, FileTarget, Location, PART_PREFIX, Passphrase, Progress,
    Selection, find_stored, take,
};
use vc_client::expect_reply;
use vc_client::text::list;
use vc_protocol::control::{BackupRow, Request};
use vc_protocol::{ApiError, ErrorCode};
use vc_s3::{Credentials, SCHEME};

use crate::app::{App, now};
use crate::error::{Error, Result, Stop, SystemError};
use crate::render::{self, note};

/// The most volumes that are named as missing.
const MAX_NAMED: usize = 20;

/// Arguments of `vc backup`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  vc backup cluster.vcb                      the services, secrets, configs, users and policies; asks for a passphrase
  vc backup cluster.vcb --volumes            and the data of all volumes
  vc backup cluster.vcb --volumes=shop/db,wiki --passphrase-file /root/passphrase --force
  vc backup verify cluster.vcb               is it whole, and is this its passphrase?
  vc-node restore cluster.vcb                found the cluster anew from it, on an empty node

The file is encrypted with the passphrase, which no node learns: without it nobody reads the file, you included. It is there when it
is whole, and not before. Without the data of a volume that cannot be read to its end, as its node dies meanwhile, it is made all the
same; the exit code is 1 then. It has no keys of the cluster. Images are not in it. Needs a token of an admin."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    create: Create,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check a backup, without a cluster: its checksum, its passphrase and its content
    Verify(Box<Verify>),
    /// List the nodes that back the cluster up by their settings, and their newest backups
    Ls(Ls),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The file to write
    #[arg(required = true)]
    file: Option<PathBuf>,
    /// Also the data of volumes, as of their newest snapshots: all of them, or these
    #[arg(
        long,
        value_name = "VOLUME,…",
        num_args = 0..=1,
        require_equals = true,
        value_delimiter = ',',
        default_missing_value = ""
    )]
    volumes: Option<Vec<String>>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct PassphraseArgs {
    /// File whose first line is the passphrase; - for standard input [default: ask on the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Arguments of `vc backup verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc backup verify cluster.vcb
  vc backup verify /mnt/usb/cluster.vcb --passphrase-file /root/passphrase
  vc backup verify s3://backups/vc?region=eu-central-1    the newest backup there; the address of a file names another
  vc backup verify 's3://backups/vc?endpoint=https://minio.example:9000' --credentials-file ~/minio-credentials

Reads and decrypts all of the file, and writes nothing; of one in a bucket it makes a copy in $TMPDIR meanwhile. Needs no token.")]
struct Verify {
    /// The file that 'vc backup' wrote, or the address of --backup-dir, s3://BUCKET/PREFIX?endpoint=URL&region=NAME, for the newest
    /// backup there, or that of one of them
    #[arg(value_name = "FILE|s3://…")]
    file: Location,
    /// File with the credentials of that bucket, as 'aws configure' writes it [default: $AWS_ACCESS_KEY_ID and
    /// $AWS_SECRET_ACCESS_KEY, else ~/.aws/credentials]
    #[arg(long, value_name = "FILE")]
    credentials_file: Option<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Arguments of `vc backup ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc backup ls
  vc backup ls --output json

A node makes backups after 'vc-node run --backup-dir DIR --backup-passphrase-file FILE'. 'vc status' says when one failed or is overdue.")]
struct Ls {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        match (self.command, self.create.file) {
            (Some(Command::Ls(Ls {})), _) => {
                let rows = expect_reply!(app.ask(Request::Nodes).await?, Nodes)?;
                let now = now();
                let rows: Vec<BackupRow> =
                    rows.iter().filter_map(|row| BackupRow::of(row, now)).collect();
                app.out.show(&rows[..], render::backups)
            }
            (Some(Command::Verify(arguments)), _) => verify(app, *arguments).await,
            (None, Some(file)) => {
                let Create { volumes, passphrase, force, file: _ } = self.create;
                create(app, &file, selection(volumes), passphrase, force).await
            }
            (None, None) => Err(Error::Usage("name the file to write")),
        }
    }
}

fn selection(volumes: Option<Vec<String>>) -> Selection {
    let named =
        volumes.map(|it| it.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>());
    match named {
        None => Selection::None,
        Some(names) if names.is_empty() => Selection::All,
        Some(names) => Selection::Named(names),
    }
}

impl PassphraseArgs {
    /// Returns the passphrase; asks twice for a `new` one.
    async fn obtain(self, new: bool) -> Result<Passphrase> {
        let asking =
            spawn_blocking(move || Passphrase::obtain(self.passphrase_file.as_deref(), new));
        Ok(joined(asking.await)??)
    }
}

fn joined<T>(result: std::result::Result<T, tokio::task::JoinError>) -> Result<T> {
    Ok(result.map_err(std::io::Error::other).map_err(SystemError::doing("read the file"))?)
}

async fn create(
    app: &App,
    file: &Path,
    selection: Selection,
    passphrase: PassphraseArgs,
    force: bool,
) -> Result {
    if file.starts_with(SCHEME.trim_end_matches('/')) {
        let message = "'vc backup' writes files of this computer";
        let error = ApiError::new(ErrorCode::InvalidArgument, message);
        let hint = "a node backs the cluster up to a bucket by itself, with 'vc-node run --backup-dir s3://…'";
        return Err(error.with_hint(hint).into());
    }
    if !force && std::fs::symlink_metadata(file).is_ok() {
        let message = format!("{} exists", file.display());
        let error = ApiError::new(ErrorCode::AlreadyExists, message);
        return Err(error.with_hint("name another file, or replace it with --force").into());
    }
    // Before anybody is asked anything.
    app.credential()?;
    let passphrase = passphrase.obtain(true).await?;
    let connect = async || {
        app.connect().await.map_err(|error| match error {
            Error::Failed(error) => error,
            Error::Stop(_) | Error::Usage(_) => ApiError::new(ErrorCode::Internal, "interrupted"),
        })
    };
    let mut bar: Option<ProgressBar> = None;
    let show = |progress: Progress<'_>| match progress {
        Progress::Volume(volume, _) => {
            if let Some(before) = bar.take() {
                before.finish_and_clear();
            }
            bar = Some(app.out.transfer_bar(&volume.to_string(), None));
        }
        Progress::Bytes(bytes) => {
            if let Some(bar) = &bar {
                bar.inc(bytes);
            }
        }
    };
    let to = FileTarget::new(file, force, PART_PREFIX)?;
    let taken = tokio::select! {
        taken = take(connect, &selection, passphrase, to, show) => taken,
        result = tokio::signal::ctrl_c() => {
            result.map_err(SystemError::doing("wait for signals"))?;
            return Err(Stop::Interrupted.into());
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let summary = taken?;
    warn(&summary, selection != Selection::None);
    app.out.show(&summary, |it, _| render::backup(it))?;
    let failed: Vec<String> = summary.failed().map(|it| it.volume.to_string()).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => {
            let message =
                format!("{} lacks the data of {}", file.display(), list(failed, MAX_NAMED));
            let error = ApiError::new(ErrorCode::Unavailable, message);
            Err(error.with_hint("the rest of it is whole; make another one").into())
        }
    }
}

async fn verify(app: &App, arguments: Verify) -> Result {
    let Verify { file, credentials_file, passphrase } = arguments;
    // Of one in a bucket, the copy, which is removed with this.
    let mut copy: Option<Download> = None;
    let file = match file {
        Location::Path(path) => {
            let opening = spawn_blocking(move || BackupFile::open(&path));
            joined(opening.await)??
        }
        Location::S3(address) => {
            let credentials = Credentials::find(credentials_file.as_deref())
                .map_err(|error| ApiError::new(ErrorCode::Unauthenticated, error.to_string()))?;
            let found = find_stored(&address, &credentials, now()).await?;
            if let Some(newer) = &found.newer_incomplete {
                note(&format!("a newer backup lacks the data of volumes: {newer}"));
            }
            let spinner = app.out.spinner(&format!("copying {}", found.address()));
            let copied = found.download(&std::env::temp_dir()).await;
            spinner.finish_and_clear();
            copy.insert(copied?).backup.clone()
        }
    };
    let (opened, checked) = {
        let checking = spawn_blocking(move || {
            let checked = file.check();
            (file, checked)
        });
        joined(checking.await)?
    };
    // What is damaged needs no passphrase.
    checked?;
    let passphrase = passphrase.obtain(false).await?;
    let spinner = app.out.spinner("reading all of it");
    let verified = spawn_blocking(move || opened.verify(&passphrase)).await;
    spinner.finish_and_clear();
    let summary = joined(verified)??;
    warn(&summary, false);
    app.out.show(&summary, |it, _| render::backup(it))
}

/// Names what a person may believe to be in it.
fn warn(summary: &BackupSummary, asked: bool) {
    for volume in summary.volumes.iter().filter(|it| !it.included) {
        match volume.problem.as_str() {
            "" if asked => {}
            "" => note(&format!("the data of volume {} is not in it", volume.volume)),
            problem => {
                note(&format!("the data of volume {} is not in it: {problem}", volume.volume));
            }
        }
    }
}
