//! `vc-node restore`: founds a cluster anew from a backup.
//!
//! The new cluster has a root key of its own, and so another id: nodes of the one that was backed up cannot speak with it, whatever
//! they still have, and neither can its tokens. Everything is made in a directory beside what the node will use, and put in place when
//! it is whole (`Staging`).

mod content;
mod staging;
mod volumes;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::task::spawn_blocking;
use vc_backup::{BackupFile, Download, Found, Location, Passphrase, find_stored};
use vc_client::text::list;
use vc_crdt::{KnownVersions, Replica};
use vc_protocol::ClusterId;
use vc_protocol::change::Subject;
use vc_protocol::token::NodeRole;
use vc_s3::Credentials;
use vc_store::Store;

use crate::args::Options;
use crate::commands::named;
use crate::identity::{self, Membership};
use crate::settings::{self, Settings};
use crate::{clock, data_dir};
use content::{Founding, UserToken};
use staging::Staging;
use volumes::VolumeSink;

/// The most names in a line of the log.
const MAX_NAMED: usize = 20;

/// Arguments of `vc-node restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The data directory has to be empty. The new cluster has other keys: nodes and tokens of the one that was backed up do not belong to it.
Its users get new tokens, in DIR/user-tokens. Other nodes join as always, and get copies of the volumes.

Examples:
  vc backup verify cluster.vcb                       before, on any computer: is the file whole?
  vc-node restore cluster.vcb                        ask for the passphrase, found the cluster, and run
  vc-node restore cluster.vcb --passphrase-file /root/passphrase --data-dir ./n1 --name attic
  vc-node setup --restore cluster.vcb                the same, and have systemd run the node
  vc-node restore s3://backups/vc?region=eu-central-1 --credentials-file /root/s3-credentials
                                                     from the newest backup there; the address of a file names another

Services whose volumes are not in the file wait with 0 replicas, so that 'vc volume import' can bring their data: the log names them.")]
pub struct Args {
    /// The file that 'vc backup' wrote, or the address of --backup-dir, s3://BUCKET/PREFIX?endpoint=URL&region=NAME, for the newest
    /// backup there, or that of one of them
    #[arg(value_name = "FILE|s3://…")]
    file: Location,
    /// File with the credentials of that bucket, as 'aws configure' writes it [default: $AWS_ACCESS_KEY_ID and
    /// $AWS_SECRET_ACCESS_KEY, else ~/.aws/credentials]
    #[arg(long, value_name = "FILE")]
    credentials_file: Option<PathBuf>,
    /// File whose first line is the passphrase; - for standard input [default: ask on the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Start all services, those whose volumes are not in the file with empty ones
    #[arg(long)]
    empty_volumes: bool,
    /// Options of the node.
    #[command(flatten)]
    pub(crate) options: Options,
}

/// What was restored.
struct Restored {
    founding: Founding,
    tokens: Vec<UserToken>,
    cluster: ClusterId,
    from: vc_backup::Header,
    included: usize,
}

/// Restores a backup into the data directory, and remembers the settings.
///
/// # Errors
/// The directory is in use, the file or its passphrase is wrong, or there is no room. Nothing is left then.
pub(crate) async fn restore(args: Args) -> anyhow::Result<()> {
    let dir = &args.options.data_dir;
    let settings = named(args.options.settings.clone());
    settings.check_role(NodeRole::Server)?;
    Staging::check(dir)?;
    let source = Source::find(&args).await?;
    let from_file = args.passphrase_file.clone();
    let asked =
        spawn_blocking(move || Passphrase::obtain(from_file.as_deref(), false).map_err(in_words));
    let passphrase = asked.await.context("cannot read the passphrase")??;
    // Not before: a person may interrupt the question for the passphrase.
    let staging = Staging::begin(dir)?;
    let backup = source.copy(staging.path()).await?;
    let restored = fill(staging.path(), backup, passphrase, &settings, args.empty_volumes).await?;
    staging.publish().with_context(|| format!("cannot restore to {}", dir.display()))?;
    restored.report(dir);
    Ok(())
}

/// Where the backup is.
enum Source {
    /// A file, which was checked.
    File(BackupFile),
    S3(Found),
}

/// A backup on this host, which was checked.
enum Local {
    File(BackupFile),
    /// A copy, which is removed with it.
    Copy(Download),
}

impl Source {
    async fn find(args: &Args) -> anyhow::Result<Self> {
        match args.file.clone() {
            Location::Path(path) => {
                let opened = spawn_blocking(move || {
                    let file = BackupFile::open(&path).map_err(in_words)?;
                    check(&file, &path.display().to_string())?;
                    anyhow::Ok(file)
                });
                Ok(Self::File(opened.await.context("cannot read the file")??))
            }
            Location::S3(address) => {
                let credentials = Credentials::find(args.credentials_file.as_deref())?;
                let found = find_stored(&address, &credentials, clock::now()).await;
                Ok(Self::S3(found.map_err(in_words)?))
            }
        }
    }

    /// Copies it to a directory if it is not on this host, and checks it.
    async fn copy(self, dir: &Path) -> anyhow::Result<Local> {
        let found = match self {
            Self::File(file) => return Ok(Local::File(file)),
            Self::S3(found) => found,
        };
        let address = found.address().to_string();
        if let Some(newer) = &found.newer_incomplete {
            tracing::warn!("a newer backup lacks the data of volumes: to use it, name it: {newer}");
        }
        tracing::info!("copying {address}");
        let copy = found.download(dir).await.map_err(in_words)?;
        let checked = spawn_blocking(move || {
            check(&copy.backup, &address)?;
            anyhow::Ok(Local::Copy(copy))
        });
        checked.await.context("cannot read the copy")?
    }
}

impl Local {
    fn backup(&self) -> &BackupFile {
        match self {
            Self::File(file) => file,
            Self::Copy(copy) => &copy.backup,
        }
    }
}

fn check(file: &BackupFile, shown: &str) -> anyhow::Result<()> {
    tracing::info!("checking {shown}");
    file.check().map_err(in_words)
}

fn in_words(error: impl Into<vc_protocol::ApiError>) -> anyhow::Error {
    anyhow::anyhow!("{}", error.into())
}

/// Makes a data directory of the backup, in a directory of its own.
async fn fill(
    dir: &Path,
    backup: Local,
    passphrase: Passphrase,
    settings: &Settings,
    empty_volumes: bool,
) -> anyhow::Result<Restored> {
    data_dir::open(dir)?;
    let store = vc_volumes::Store::open(&dir.join("volumes"))?;
    let sink = VolumeSink::new(store);
    let read = spawn_blocking(move || {
        let mut sink = sink;
        // A copy is removed after this, before what is in the directory is put in place.
        backup.backup().read(&passphrase, &mut sink).map_err(in_words)
    });
    let contents = read.await.context("cannot read the file")??;
    let from = contents.manifest.header.clone();
    let included = contents.manifest.volumes.iter().filter(|it| it.included).count();

    let membership = Membership::found(dir)?;
    let seal = membership.seal.clone().context("a server has the key of secrets")?;
    let (cluster, now) = (membership.cluster, clock::now());
    let mut founding = Founding::of(&contents, empty_volumes)?;
    founding.seal_files(&contents.cluster.files, &seal, cluster)?;
    let tokens = founding.issue_tokens(&membership, &settings.own_addresses(), now)?;
    let (key, knows) = (membership.key.clone(), KnownVersions::default());
    let certificates = vec![membership.credentials.certificate()];
    let loaded =
        Replica::load(key, membership.node, cluster, knows, certificates.clone(), Vec::new());
    let mut replica = loaded.context("cannot make the cluster document")?.replica;
    let by = Subject { name: "restore".to_owned(), token_id: String::new(), address: None };
    let changes = replica.found(&founding.state, &by, now, getrandom::u64()?);
    let changes = changes.context("cannot write the cluster document")?;
    {
        let store = Store::open(dir)?;
        let durable = vc_engine::Durable { certificates, changes, ..vc_engine::Durable::default() };
        store.persist(&durable)?;
    }
    settings::save(dir, settings)?;
    identity::write_admin_token(dir, &membership, &settings.own_addresses())?;
    content::write_tokens(dir, &tokens)?;
    identity::save(dir, &membership, &[])?;
    Ok(Restored { founding, tokens, cluster, from, included })
}

impl Restored {
    /// Says what there is, and what a person has to do.
    fn report(&self, dir: &Path) {
        let Self { founding, tokens, cluster, from, included } = self;
        tracing::info!(
            %cluster,
            of = %from.cluster,
            services = founding.state.services.len(),
            files = founding.state.files.len(),
            volumes = included,
            "restored as a new cluster; its admin token is {}",
            dir.join("admin.token").display()
        );
        let name = |all: Vec<String>| list(all, MAX_NAMED);
        if !tokens.is_empty() {
            let users = tokens.iter().map(|it| it.user.clone()).collect();
            tracing::info!(
                "new tokens for {} are in {}: hand them out and delete them",
                name(users),
                dir.join(content::USER_TOKENS).display()
            );
        }
        if !founding.missing.is_empty() {
            let volumes = founding.missing.iter().map(ToString::to_string).collect();
            tracing::warn!("the file does not have the data of {}", name(volumes));
        }
        for (service, replicas) in &founding.waiting {
            tracing::warn!(
                "{service} waits with 0 replicas for a volume that is not in the file: \
                 'vc volume import' it, or let it begin empty, with 'vc scale {service}={replicas}'"
            );
        }
        if !founding.receivers.is_empty() {
            let receivers = founding.receivers.iter().map(ToString::to_string).collect();
            tracing::warn!(
                "receivers of alerts are not in the file: add {} again, with 'vc notify add'",
                name(receivers)
            );
        }
        if !founding.state.images.is_empty() {
            let images = founding.state.images.keys().cloned().collect();
            tracing::warn!(
                "images are not in the file: push {} again, as their services wait for them",
                name(images)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[tokio::test]
    async fn nothing_is_made_before_the_file_is_checked() {
        let root = tempfile::tempdir().expect("a directory");
        let (file, dir) = (root.path().join("cluster.vcb"), root.path().join("vc"));
        std::fs::write(&file, "something else").expect("written");
        let words = [Path::new("restore"), &file, Path::new("--data-dir"), &dir];
        let Cli { args } = Cli::try_parse_from(words).expect("valid arguments");
        let error = restore(args).await.expect_err("refused");
        assert!(error.to_string().contains("is no backup"), "{error}");
        assert!(!dir.exists());
    }
}
