//! `vc volume backup`: downloads a snapshot as an archive.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use tokio::io::{AsyncWrite, AsyncWriteExt as _, BufWriter};
use vc_client::{Session, SessionError};
use vc_protocol::control::{Reply, Request};
use vc_protocol::{ApiError, ErrorCode};

use super::at::{self, At};
use crate::app::App;
use crate::cmd::cp::{keep_alive, receive};
use crate::error::{Error, Result, Stop, SystemError};
use crate::render::{self, note};

/// Bytes that are written to the file at once.
const BUFFER: usize = 1024 * 1024;

/// Arguments of `vc volume backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc volume backup shop/data data.tar.zst            the newest snapshot
  vc volume backup data data.tar.zst --at 1d         as it was a day ago
  vc volume backup data - | ssh nas 'cat > data.tar.zst'
  vc volume import data.tar.zst shop/copy            make a volume of it

The archive has owners, modes, times, extended attributes, ACLs, links and devices: a tar archive, compressed with zstd. It comes
from a node that is up and has the newest snapshot. The file is there when it is whole, and not before.")]
pub(super) struct Backup {
    /// The volume, as project/volume, or its name if no other project has one of that name
    volume: String,
    /// The file to write; - for standard output
    file: PathBuf,
    /// The snapshot, by its id, a time or an age: the newest that is not later [default: the newest]
    #[arg(long, value_name = "ID|TIME")]
    at: Option<At>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

impl Backup {
    pub(super) async fn run(self, app: &App) -> Result {
        let to_stdout = self.file == Path::new("-");
        match to_stdout {
            true if io::stdout().is_terminal() => {
                let message = "an archive is not written to a terminal";
                let error = ApiError::new(ErrorCode::InvalidArgument, message);
                return Err(error.with_hint("name a file, or redirect the output").into());
            }
            true => {}
            false => check_target(&self.file, self.force)?,
        }
        app.in_session(async |session| {
            let row = at::find(session, &self.volume).await?;
            let (snapshot, id) = at::choose(app, session, &row, self.at).await?;
            let (volume, node) = (row.volume, snapshot.node);
            let request = Request::ExportVolume { volume, snapshot: id, node, path: None };
            begin(session, &request).await?;
            if to_stdout {
                note(&at::describe(&snapshot));
                return download(app, session, tokio::io::stdout(), "standard output").await;
            }
            to_file(app, session, &self.file, self.force).await?;
            app.out.show(&[snapshot][..], render::snapshots)
        })
        .await
    }
}

/// Asks for an archive, which follows on the stream.
pub(super) async fn begin(session: &mut Session, request: &Request) -> Result {
    session.send(request).await?;
    match session.receive_result().await? {
        Reply::Ready => Ok(()),
        _ => Err(SessionError::Unexpected.into()),
    }
}

/// Errors: a file is there that is not to be replaced, or something else is.
fn check_target(path: &Path, force: bool) -> Result {
    let error = match std::fs::metadata(path) {
        Err(_) => return Ok(()),
        Ok(metadata) if !metadata.is_file() => {
            let message = format!("{} is no file", path.display());
            ApiError::new(ErrorCode::InvalidArgument, message)
                .with_hint("name a file, or write - and redirect the output")
        }
        Ok(_) if force => return Ok(()),
        Ok(_) => exists(path),
    };
    Err(error.into())
}

fn exists(path: &Path) -> ApiError {
    ApiError::new(ErrorCode::AlreadyExists, format!("{} exists", path.display()))
        .with_hint("name another file, or replace it with --force")
}

/// Downloads the archive to a file beside `path`, and renames it when it is whole and on the disk.
async fn to_file(app: &App, session: &mut Session, path: &Path, force: bool) -> Result {
    let cannot = || SystemError::doing(format!("write {}", path.display()));
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // Removed when it is dropped; only this user may read it.
    let part = NamedTempFile::new_in(directory).map_err(cannot())?;
    let file = tokio::fs::File::from_std(part.as_file().try_clone().map_err(cannot())?);
    let name = path.display().to_string();
    download(app, session, BufWriter::with_capacity(BUFFER, file), &name).await?;
    part.as_file().sync_all().map_err(cannot())?;
    let placed = if force { part.persist(path) } else { part.persist_noclobber(path) };
    placed.map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => Error::from(exists(path)),
        _ => cannot()(error.error).into(),
    })?;
    Ok(File::open(directory).and_then(|it| it.sync_all()).map_err(cannot())?)
}

/// Receives an archive up to its explicit end. After Ctrl-C, or when the stream breaks, it is an error.
async fn download(
    app: &App,
    session: &mut Session,
    mut sink: impl AsyncWrite + Unpin,
    name: &str,
) -> Result {
    let bar = app.out.transfer_bar(name, None);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::BrokenPipe => Error::from(Stop::OutputClosed),
        _ => SystemError::doing(format!("write {name}"))(error).into(),
    };
    let (mut to, mut from) = session.split();
    let receiving = async {
        while let Some(bytes) = receive(&mut from).await? {
            sink.write_all(&bytes).await.map_err(failed)?;
            bar.inc(bytes.len() as u64);
        }
        sink.flush().await.map_err(failed)
    };
    let received = tokio::select! {
        received = receiving => received,
        never = keep_alive(&mut to) => match never {},
        result = tokio::signal::ctrl_c() => {
            result.map_err(SystemError::doing("wait for signals"))?;
            Err(Stop::Interrupted.into())
        }
    };
    bar.finish_and_clear();
    received
}
