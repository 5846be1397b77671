//! `vc volume import`: makes a volume of an archive.

use std::path::{Path, PathBuf};

use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;
use vc_client::{SendStreamError, Session, SessionError, expect_reply};
use vc_protocol::VolumeKey;
use vc_protocol::control::{Change, Reply, Request};

use crate::app::App;
use crate::error::{Error, Result, Stop, SystemError};

/// Bytes that are read and sent at once.
const CHUNK: usize = 128 * 1024;

/// Arguments of `vc volume import`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc volume import data.tar.zst shop/data
  vc volume import data.tar shop/data --node attic
  tar -C /srv/app -c . | vc volume import - shop/data

The archive is what 'vc volume backup' writes, or any other of tar, plain or compressed with zstd. The volume must be new. A service
that mounts it and is deployed afterwards begins with the data, on that node or another one. An archive that is not whole leaves
nothing.")]
pub(super) struct Import {
    /// The archive; - for standard input
    file: PathBuf,
    /// The new volume, as project/volume
    #[arg(value_name = "NEW")]
    volume: VolumeKey,
    /// Name or id of the node that is to have it first [default: one that runs Docker]
    #[arg(long)]
    node: Option<String>,
}

impl Import {
    pub(super) async fn run(self, app: &App) -> Result {
        let Self { file, volume, node } = self;
        let request = Request::ImportVolume { volume, node };
        if file == Path::new("-") {
            return upload(app, &request, tokio::io::stdin(), "standard input", None).await;
        }
        let name = file.display().to_string();
        let cannot = || SystemError::doing(format!("read {name}"));
        let opened = tokio::fs::File::open(&file).await.map_err(cannot())?;
        let metadata = opened.metadata().await.map_err(cannot())?;
        let bytes = metadata.is_file().then_some(metadata.len());
        upload(app, &request, opened, &name, bytes).await
    }
}

async fn upload(
    app: &App,
    request: &Request,
    archive: impl AsyncRead + Unpin,
    name: &str,
    bytes: Option<u64>,
) -> Result {
    let changes = app
        .in_session(async |session| {
            tokio::select! {
                sent = send(app, session, request, archive, name, bytes) => sent,
                result = tokio::signal::ctrl_c() => {
                    result.map_err(SystemError::doing("wait for signals"))?;
                    Err(Stop::Interrupted.into())
                }
            }
        })
        .await?;
    app.out.changes(&changes)
}

async fn send(
    app: &App,
    session: &mut Session,
    request: &Request,
    archive: impl AsyncRead + Unpin,
    name: &str,
    bytes: Option<u64>,
) -> Result<Vec<Change>> {
    session.send(request).await?;
    match session.receive_result().await? {
        Reply::Ready => {}
        _ => return Err(SessionError::Unexpected.into()),
    }
    let bar = app.out.transfer_bar(name, bytes);
    let mut chunks = ReaderStream::with_capacity(archive, CHUNK);
    let reply = session.send_stream(&mut chunks, |bytes| bar.inc(bytes)).await;
    bar.finish_and_clear();
    let reply = reply.map_err(|error| match error {
        // The node discards an archive that does not end.
        SendStreamError::Source(error) => SystemError::doing(format!("read {name}"))(error).into(),
        SendStreamError::Session(error) => Error::from(error),
    })?;
    Ok(expect_reply!(reply, Done)?)
}
