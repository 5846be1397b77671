//! `vc cp`: copies files to or from an instance.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use vc_protocol::control::{CopyRequest, Reply, Request};
use vc_protocol::exec::{ExecFrame, KEEPALIVE_INTERVAL, MAX_EXEC_CHUNK};

use super::exec::receive_frame;
use super::target::{Target, TargetError, choose_replica};
use crate::app::App;
use crate::error::{Error, Result, SystemError, describe_io, io_code};
use crate::render::note;
use libp2p::Stream;
use vc_client::frames::{FramesIn, FramesOut};
use vc_client::{Session, SessionError};
use vc_protocol::{ApiError, ErrorCode};
use vc_unpack::{UnpackError, unpack};

/// The most chunks of an archive buffered between the files and the network.
const CHUNKS: usize = 8;

/// Arguments of `vc cp`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc cp web:/etc/nginx/nginx.conf .          from the first running instance
  vc cp web.2:/var/log ./logs                a directory, from replica 2
  vc cp ./site shop/web:/srv                 to /srv/site
  vc cp ./site/. web:/srv                    the contents of ./site, to /srv

If TO is an existing directory, the copy keeps its name inside it; else TO is the name of the copy. Files copied into an
instance are lost when it is replaced.")]
pub(crate) struct Args {
    /// SERVICE[.N]:PATH, or a local path
    #[arg(value_name = "[SERVICE:]FROM")]
    from: Endpoint,
    /// SERVICE[.N]:PATH, or a local path
    #[arg(value_name = "[SERVICE:]TO")]
    to: Endpoint,
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Endpoint {
    Local(PathBuf),
    Instance(Target, String),
}

/// The text is neither a local path nor `SERVICE:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum EndpointError {
    #[error("'{path}' is not absolute: write {target}:/{path}")]
    Relative { target: String, path: String },
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("the path is empty: write SERVICE:/PATH, or a local path")]
    Empty,
}

impl std::str::FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> std::result::Result<Self, EndpointError> {
        // A local path with a colon is written ./a:b.
        let local = text.starts_with(['/', '.']);
        match text.split_once(':') {
            Some((target, path)) if !local => {
                if !path.starts_with('/') {
                    let (target, path) = (target.to_owned(), path.to_owned());
                    return Err(EndpointError::Relative { target, path });
                }
                Ok(Self::Instance(target.parse()?, path.to_owned()))
            }
            _ if text.is_empty() => Err(EndpointError::Empty),
            _ => Ok(Self::Local(PathBuf::from(text))),
        }
    }
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let request = |target: Target, path, name| -> Result<CopyRequest> {
            let replica = target.replica_or(None)?;
            Ok(CopyRequest { service: target.service, replica, path, name })
        };
        match (self.from, self.to) {
            (Endpoint::Instance(target, path), Endpoint::Local(to)) => {
                let contents = path.ends_with("/.");
                let copy = request(target, path, String::new())?;
                app.in_session(async |session| {
                    begin(session, copy, Request::CopyOut).await?;
                    out(session, to, contents).await
                })
                .await
            }
            (Endpoint::Local(from), Endpoint::Instance(target, path)) => {
                let name = name_of(&from)?;
                let copy = request(target, path, name)?;
                app.in_session(async |session| {
                    begin(session, copy, Request::CopyIn).await?;
                    into(session, from).await
                })
                .await
            }
            _ => {
                let message = "exactly one of FROM and TO must be in an instance";
                let error = ApiError::new(ErrorCode::InvalidArgument, message);
                Err(error.with_hint("write SERVICE:PATH").into())
            }
        }
    }
}

/// Returns the name of a file for the archive; `.` when only the contents of a directory are meant.
pub(super) fn name_of(path: &Path) -> std::result::Result<String, SystemError> {
    let cannot = || SystemError::doing(format!("read {}", path.display()));
    std::fs::metadata(path).map_err(cannot())?;
    if path.as_os_str().as_encoded_bytes().ends_with(b"/.") || path == Path::new(".") {
        return Ok(".".to_owned());
    }
    let whole = path.canonicalize().map_err(cannot())?;
    // The name as written: that of a link, not of its target.
    let name = path.file_name().or(whole.file_name());
    Ok(name.map_or_else(|| ".".to_owned(), |name| name.to_string_lossy().into_owned()))
}

async fn begin(
    session: &mut Session,
    mut copy: CopyRequest,
    request: fn(CopyRequest) -> Request,
) -> Result {
    copy.replica = choose_replica(session, &copy.service, copy.replica).await?;
    match session.ask(&request(copy)).await? {
        Reply::Ready => Ok(()),
        _ => Err(SessionError::Unexpected.into()),
    }
}

/// Receives the next chunk; `None` when the node is done.
pub(super) async fn receive(from: &mut FramesIn<'_, Stream>) -> Result<Option<Vec<u8>>> {
    loop {
        match receive_frame(from).await? {
            ExecFrame::Stdout(bytes) if bytes.is_empty() => {}
            ExecFrame::Stdout(bytes) => return Ok(Some(bytes)),
            ExecFrame::Exit(0) => return Ok(None),
            _ => return Err(SessionError::Unexpected.into()),
        }
    }
}

/// Sends keepalives.
pub(super) async fn keep_alive(to: &mut FramesOut<'_, Stream>) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(KEEPALIVE_INTERVAL).await;
        if to.send_bytes(ExecFrame::Stdin(Vec::new()).encode()).await.is_err() {
            return std::future::pending().await;
        }
    }
}

pub(super) async fn out(session: &mut Session, target: PathBuf, contents: bool) -> Result {
    let (pieces, waiting) = mpsc::channel(CHUNKS);
    let unpacking = spawn_blocking(move || unpack(Pieces::new(waiting), &target, contents));
    let (mut to, mut from) = session.split();
    let receiving = async {
        while let Some(bytes) = receive(&mut from).await? {
            if pieces.send(Ok(bytes)).await.is_err() {
                break; // Writing the files failed: the thread returns why.
            }
        }
        Ok::<_, Error>(())
    };
    let received = tokio::select! {
        received = receiving => received,
        never = keep_alive(&mut to) => match never {},
    };
    if received.is_err() {
        // A truncated archive must not pass for a complete one.
        let _ = pieces.send(Err(io::Error::other("the transfer was interrupted"))).await;
    }
    drop(pieces);
    let unpacked = unpacking.await.map_err(thread_failed)?;
    received?;
    for skipped in unpacked.map_err(not_unpacked)? {
        note(&format!("skipped: {skipped}"));
    }
    Ok(())
}

/// Returns the error that says why an archive was not unpacked.
fn not_unpacked(error: UnpackError) -> ApiError {
    match &error {
        UnpackError::NoName => ApiError::new(ErrorCode::InvalidArgument, error.to_string()),
        UnpackError::NoDirectory(_) => {
            ApiError::new(ErrorCode::NotFound, error.to_string()).with_hint("create it first")
        }
        UnpackError::Write(path, cause) => ApiError::new(
            io_code(cause),
            format!("cannot write {}: {}", path.display(), describe_io(cause)),
        ),
    }
}

async fn into(session: &mut Session, source: PathBuf) -> Result {
    let (mut to, mut from) = session.split();
    let root = receive(&mut from).await?.ok_or(SessionError::Unexpected)?;
    let root = String::from_utf8(root).map_err(|_| SessionError::Unexpected)?;
    let (pieces, mut waiting) = mpsc::channel::<Vec<u8>>(CHUNKS);
    let packing = spawn_blocking(move || pack(&source, &root, pieces));
    let sending = async {
        // Never completes with `Ok`: the reply ends the copy.
        loop {
            match timeout(KEEPALIVE_INTERVAL, waiting.recv()).await {
                Ok(Some(bytes)) => to
                    .send_bytes(ExecFrame::Stdin(bytes).encode())
                    .await
                    .map_err(SessionError::from)?,
                Ok(None) => break,
                Err(_) => to
                    .send_bytes(ExecFrame::Stdin(Vec::new()).encode())
                    .await
                    .map_err(SessionError::from)?,
            }
        }
        // Without StdinEnd the node discards a truncated archive.
        packing.await.map_err(thread_failed)??;
        to.send_bytes(ExecFrame::StdinEnd.encode()).await.map_err(SessionError::from)?;
        match keep_alive(&mut to).await {}
    };
    tokio::select! {
        // The reply of the node counts, also when it reads no further.
        biased;
        done = receive(&mut from) => match done? {
            None => Ok(()),
            Some(_) => Err(SessionError::Unexpected.into()),
        },
        failed = sending => failed,
    }
}

fn thread_failed(error: tokio::task::JoinError) -> SystemError {
    SystemError::doing("finish the copy")(error.into())
}

/// Writes a file or a directory as an archive with this root.
fn pack(
    source: &Path,
    root: &str,
    pieces: mpsc::Sender<Vec<u8>>,
) -> std::result::Result<(), SystemError> {
    let cannot = || SystemError::doing(format!("read {}", source.display()));
    let to = io::BufWriter::with_capacity(MAX_EXEC_CHUNK, Sending(pieces));
    let mut archive = tar::Builder::new(to);
    archive.follow_symlinks(false);
    if std::fs::metadata(source).map_err(cannot())?.is_dir() {
        archive.append_dir_all(root, source).map_err(cannot())?;
    } else {
        let mut file = std::fs::File::open(source).map_err(cannot())?;
        archive.append_file(root, &mut file).map_err(cannot())?;
    }
    archive.into_inner().and_then(|mut to| to.flush()).map_err(cannot())
}

/// Writes chunks to the network.
struct Sending(mpsc::Sender<Vec<u8>>);

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(MAX_EXEC_CHUNK)];
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(piece.to_vec()).map_err(gone)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads chunks from the network.
struct Pieces {
    waiting: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: io::Cursor<Vec<u8>>,
}

impl Pieces {
    fn new(waiting: mpsc::Receiver<io::Result<Vec<u8>>>) -> Self {
        Self { waiting, piece: io::Cursor::default() }
    }
}

impl Read for Pieces {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(bytes)?;
            if count > 0 || bytes.is_empty() {
                return Ok(count);
            }
            match self.waiting.blocking_recv() {
                Some(piece) => self.piece = io::Cursor::new(piece?),
                None => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_in_an_instance_or_local() {
        let there: Endpoint = "shop/web.2:/a:b".parse().expect("an endpoint");
        assert_eq!(
            there,
            Endpoint::Instance("shop/web.2".parse().expect("one"), "/a:b".to_owned())
        );
        for here in ["./web:/a", "/web:/a", "web", "../x"] {
            assert_eq!(here.parse(), Ok(Endpoint::Local(here.into())), "{here}");
        }
        for bad in ["", "web:a", "web.0:/a", ":/a"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
