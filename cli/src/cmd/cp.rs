//! `vc cp`: copies files into an instance, or out of it.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use vc_protocol::control::{CopyRequest, Reply, Request};
use vc_protocol::exec::{ExecFrame, IDLE_TIMEOUT, KEEPALIVE_INTERVAL, MAX_EXEC_CHUNK};

use super::target::Target;
use crate::app::App;
use crate::render::note;
use crate::unpack::unpack;
use libp2p::Stream;
use vc_client::frames::{FramesIn, FramesOut};
use vc_client::{Session, SessionError};
use vc_protocol::{ApiError, ErrorCode};

/// Pieces of an archive that may wait between the files and the network.
const PIECES: usize = 8;

/// Arguments of `vc cp`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc cp web:/etc/nginx/nginx.conf .          out of the first instance that runs
  vc cp web.2:/var/log ./logs                a directory, out of that replica
  vc cp ./site shop/web:/srv                 into /srv, as /srv/site
  vc cp ./site/. web:/srv                    what is in it, into /srv

What is copied into a directory that is there comes into it under its own name; else it comes under the name that is
given. An instance has what was copied into it only until it is replaced.")]
pub(crate) struct Args {
    /// SERVICE[.N]:PATH, or a path here
    #[arg(value_name = "FROM")]
    from: Place,
    /// SERVICE[.N]:PATH, or a path here
    #[arg(value_name = "TO")]
    to: Place,
}

/// Where files are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Here(PathBuf),
    There(Target, String),
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A path here that has a colon is written ./a:b.
        let here = text.starts_with(['/', '.']);
        match text.split_once(':') {
            Some((target, path)) if !here => {
                if !path.starts_with('/') {
                    return Err(format!("'{path}' is not absolute: write {target}:/{path}"));
                }
                Ok(Self::There(target.parse()?, path.to_owned()))
            }
            _ if text.is_empty() => Err("write a path".to_owned()),
            _ => Ok(Self::Here(PathBuf::from(text))),
        }
    }
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        let request = |target: Target, path, name| -> anyhow::Result<CopyRequest> {
            let replica = target.replica_or(None)?;
            Ok(CopyRequest { service: target.service, replica, path, name })
        };
        match (self.from, self.to) {
            (Place::There(target, path), Place::Here(to)) => {
                let contents = path.ends_with("/.");
                let copy = Request::CopyOut(request(target, path, String::new())?);
                app.in_session(async |session| {
                    begin(session, &copy).await?;
                    out(session, to, contents).await
                })
                .await
            }
            (Place::Here(from), Place::There(target, path)) => {
                let name = name_of(&from)?;
                let copy = Request::CopyIn(request(target, path, name)?);
                app.in_session(async |session| {
                    begin(session, &copy).await?;
                    into(session, from).await
                })
                .await
            }
            _ => anyhow::bail!("one of the two is in an instance: write SERVICE:PATH"),
        }
    }
}

/// How a file is called; `.` where only what is in it is meant. Errors: it is not there.
fn name_of(path: &Path) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    std::fs::metadata(path).with_context(cannot)?;
    if path.as_os_str().as_encoded_bytes().ends_with(b"/.") || path == Path::new(".") {
        return Ok(".".to_owned());
    }
    let whole = path.canonicalize().with_context(cannot)?;
    // By the name that it was given, where it has one: what a link is called, not where it leads.
    let name = path.file_name().or(whole.file_name());
    Ok(name.map_or_else(|| ".".to_owned(), |name| name.to_string_lossy().into_owned()))
}

async fn begin(session: &mut Session, copy: &Request) -> anyhow::Result<()> {
    match session.ask(copy).await? {
        Reply::Ready => Ok(()),
        _ => Err(SessionError::Unexpected.into()),
    }
}

/// What the member sends next; `None`: it is done.
async fn receive(from: &mut FramesIn<'_, Stream>) -> anyhow::Result<Option<Vec<u8>>> {
    loop {
        let silent = |_| SessionError::Lost("nothing was heard of it".to_owned());
        let frame = timeout(IDLE_TIMEOUT, from.receive_bytes())
            .await
            .map_err(silent)?
            .map_err(SessionError::from)?;
        match ExecFrame::decode(&frame) {
            Some(ExecFrame::Stdout(bytes)) if bytes.is_empty() => {}
            Some(ExecFrame::Stdout(bytes)) => return Ok(Some(bytes)),
            Some(ExecFrame::Exit(0)) => return Ok(None),
            Some(ExecFrame::Failed(reason)) => {
                return Err(SessionError::Refused(ApiError::new(
                    ErrorCode::FailedPrecondition,
                    reason,
                ))
                .into());
            }
            _ => return Err(SessionError::Unexpected.into()),
        }
    }
}

/// Says now and then that we are here.
async fn alive(to: &mut FramesOut<'_, Stream>) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(KEEPALIVE_INTERVAL).await;
        if to.send_bytes(ExecFrame::Stdin(Vec::new()).encode()).await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn out(session: &mut Session, target: PathBuf, contents: bool) -> anyhow::Result<()> {
    let (pieces, waiting) = mpsc::channel(PIECES);
    let unpacking = spawn_blocking(move || unpack(Pieces::new(waiting), &target, contents));
    let (mut to, mut from) = session.split();
    let receiving = async {
        while let Some(bytes) = receive(&mut from).await? {
            if pieces.send(Ok(bytes)).await.is_err() {
                break; // The files cannot be written: the unpacking says why.
            }
        }
        anyhow::Ok(())
    };
    let received = tokio::select! {
        received = receiving => received,
        never = alive(&mut to) => match never {},
    };
    if received.is_err() {
        // It must not take what there is for all.
        let _ = pieces.send(Err(io::Error::other("the archive broke off"))).await;
    }
    drop(pieces);
    let unpacked = unpacking.await?;
    received?;
    for left_out in unpacked? {
        note(&format!("left out: {left_out}"));
    }
    Ok(())
}

async fn into(session: &mut Session, source: PathBuf) -> anyhow::Result<()> {
    let (mut to, mut from) = session.split();
    let root = receive(&mut from).await?.ok_or(SessionError::Unexpected)?;
    let root = String::from_utf8(root).map_err(|_| SessionError::Unexpected)?;
    let (pieces, mut waiting) = mpsc::channel::<Vec<u8>>(PIECES);
    let packing = spawn_blocking(move || pack(&source, &root, pieces));
    let sending = async {
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
        // An archive that broke off has no end: who takes it must not believe that it is whole.
        packing.await??;
        to.send_bytes(ExecFrame::StdinEnd.encode()).await.map_err(SessionError::from)?;
        match alive(&mut to).await {}
    };
    tokio::select! {
        // What the member says counts, also when it takes no more.
        biased;
        done = receive(&mut from) => match done? {
            None => Ok(()),
            Some(_) => Err(SessionError::Unexpected.into()),
        },
        failed = sending => {
            let failed: anyhow::Result<()> = failed;
            failed
        }
    }
}

/// Writes a file or a directory as an archive with this root.
fn pack(source: &Path, root: &str, pieces: mpsc::Sender<Vec<u8>>) -> anyhow::Result<()> {
    let cannot = || format!("cannot read {}", source.display());
    let to = io::BufWriter::with_capacity(MAX_EXEC_CHUNK, Sending(pieces));
    let mut archive = tar::Builder::new(to);
    archive.follow_symlinks(false);
    if std::fs::metadata(source).with_context(cannot)?.is_dir() {
        archive.append_dir_all(root, source).with_context(cannot)?;
    } else {
        let mut file = std::fs::File::open(source).with_context(cannot)?;
        archive.append_file(root, &mut file).with_context(cannot)?;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

/// Pieces that go to the network.
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

/// Pieces that come from the network.
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
    fn a_place_is_in_an_instance_or_here() {
        let there: Place = "shop/web.2:/a:b".parse().expect("a place");
        assert_eq!(there, Place::There("shop/web.2".parse().expect("one"), "/a:b".to_owned()));
        for here in ["./web:/a", "/web:/a", "web", "../x"] {
            assert_eq!(here.parse(), Ok(Place::Here(here.into())), "{here}");
        }
        for bad in ["", "web:a", "web.0:/a", ":/a"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
