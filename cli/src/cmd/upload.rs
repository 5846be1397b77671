//! Uploads the directories with which volumes of a project begin.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use futures::stream;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::bytes::Bytes;
use vc_client::{SendStreamError, Session, SessionError, expect_reply};
use vc_compose::Upload;
use vc_protocol::control::{Reply, Request};
use vc_protocol::spec::Deployment;
use vc_protocol::volume::Origin;
use vc_protocol::{ApiError, ErrorCode, NodeId, VolumeKey};

use crate::app::App;
use crate::error::{Error, Result, Stop, SystemError};
use crate::render;

/// Bytes that are read and sent at once.
const CHUNK: usize = 128 * 1024;
/// The most chunks between the files and the network.
const CHUNKS: usize = 8;

/// A directory cannot be uploaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("'{pattern}' in x-vc.ignore is not a pattern: {source}")]
    Pattern { pattern: String, source: ignore::Error },
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        Self::new(ErrorCode::InvalidArgument, error.to_string())
    }
}

/// A directory to upload.
pub(super) struct Pending<'a> {
    upload: &'a Upload,
    entries: Vec<Entry>,
    bytes: u64,
}

/// A file, directory or link below the directory.
struct Entry {
    /// Relative to it.
    path: PathBuf,
    metadata: Metadata,
}

impl std::fmt::Display for Pending<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files = self.entries.iter().filter(|it| !it.metadata.is_dir()).count();
        let (path, volume) = (&self.upload.path, &self.upload.volume);
        write!(f, "upload {path} to {volume}: {files} files, {}", render::bytes(self.bytes))
    }
}

/// Returns the directories that have files and whose volumes the cluster does not have.
pub(super) async fn pending<'a>(
    session: &mut Session,
    uploads: &'a [Upload],
) -> Result<Vec<Pending<'a>>> {
    let mut found = Vec::new();
    for upload in uploads {
        let entries = list(Path::new(&upload.path), &upload.ignore)?;
        if !entries.is_empty() {
            let bytes = entries.iter().filter(|it| it.metadata.is_file());
            let bytes = bytes.map(|it| it.metadata.len()).sum();
            found.push(Pending { upload, entries, bytes });
        }
    }
    if !found.is_empty() {
        let rows = expect_reply!(session.ask(&Request::Volumes).await?, Volumes)?;
        let held: BTreeSet<VolumeKey> = rows.into_iter().map(|row| row.volume).collect();
        found.retain(|it| !held.contains(&it.upload.volume));
    }
    Ok(found)
}

/// Uploads a directory, and says in the specs which node has it.
pub(super) async fn send(
    app: &App,
    session: &mut Session,
    pending: Pending<'_>,
    deployments: &mut [Deployment],
) -> Result {
    let volume = &pending.upload.volume;
    let sent = tokio::select! {
        sent = transfer(app, session, &pending) => sent,
        result = tokio::signal::ctrl_c() => {
            result.map_err(SystemError::doing("wait for signals"))?;
            Err(Stop::Interrupted.into())
        }
    };
    let at =
        sent.map_err(|error| error.context(&format!("cannot upload {}", pending.upload.path)))?;
    let of_project = deployments.iter_mut().filter(|it| it.service.project == volume.project);
    for Deployment { spec, .. } in of_project {
        let volume = spec.volumes.get_mut(&volume.volume);
        if let Some(Origin::Uploaded { node, .. }) = volume.and_then(|it| it.origin.as_mut()) {
            *node = Some(at);
        }
    }
    Ok(())
}

async fn transfer(app: &App, session: &mut Session, pending: &Pending<'_>) -> Result<NodeId> {
    let Upload { volume, path, .. } = pending.upload;
    session.send(&Request::UploadVolume { volume: volume.clone() }).await?;
    match session.receive_result().await? {
        Reply::Ready => {}
        _ => return Err(SessionError::Unexpected.into()),
    }
    let bar = app.out.transfer_bar(path, Some(pending.bytes));
    let (chunks, waiting) = mpsc::channel(CHUNKS);
    let root = PathBuf::from(path);
    let entries: Vec<Entry> = pending.entries.iter().map(Entry::again).collect();
    let packing = spawn_blocking(move || {
        if let Err(error) = pack(&root, &entries, chunks.clone()) {
            // The node discards an archive that does not end.
            let _ = chunks.blocking_send(Err(error));
        }
    });
    let mut pieces = Box::pin(stream::unfold(waiting, async |mut waiting| {
        let piece = waiting.recv().await?;
        Some((piece, waiting))
    }));
    let reply = session.send_stream(&mut pieces, |bytes| bar.inc(bytes)).await;
    bar.finish_and_clear();
    drop(pieces);
    packing.await.map_err(|error| SystemError::doing("finish the upload")(error.into()))?;
    let reply = reply.map_err(|error| match error {
        SendStreamError::Source(error) => Error::from(ApiError::from(error)),
        SendStreamError::Session(error) => Error::from(error),
    })?;
    Ok(expect_reply!(reply, Uploaded)?)
}

impl Entry {
    fn again(&self) -> Self {
        Self { path: self.path.clone(), metadata: self.metadata.clone() }
    }
}

/// Returns what is below a directory, without what the patterns name; nothing if it does not exist. Directories come before
/// what they have. Sockets are left out.
fn list(root: &Path, patterns: &[String]) -> std::result::Result<Vec<Entry>, UploadError> {
    let ignored = matcher(root, patterns)?;
    let read = |path: &Path, source| UploadError::Read { path: path.to_owned(), source };
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let path = root.join(&directory);
        let entries = match std::fs::read_dir(&path) {
            Err(error)
                if directory.as_os_str().is_empty() && error.kind() == io::ErrorKind::NotFound =>
            {
                return Ok(Vec::new());
            }
            entries => entries.map_err(|error| read(&path, error))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(|error| read(&path, error))?.file_name());
        }
        names.sort();
        for name in names {
            let path = directory.join(name);
            let metadata = std::fs::symlink_metadata(root.join(&path))
                .map_err(|error| read(&root.join(&path), error))?;
            let kind = metadata.file_type();
            if ignored.matched(&path, kind.is_dir()).is_ignore() {
                continue;
            }
            if kind.is_dir() {
                directories.push(path.clone());
            }
            if kind.is_dir() || kind.is_file() || kind.is_symlink() {
                found.push(Entry { path, metadata });
            }
        }
    }
    Ok(found)
}

fn matcher(root: &Path, patterns: &[String]) -> std::result::Result<Gitignore, UploadError> {
    let mut builder = GitignoreBuilder::new(root);
    for pattern in patterns {
        let added = builder.add_line(None, pattern);
        added.map_err(|source| UploadError::Pattern { pattern: pattern.clone(), source })?;
    }
    let all = patterns.join(", ");
    builder.build().map_err(|source| UploadError::Pattern { pattern: all, source })
}

/// Writes the entries as an archive.
fn pack(
    root: &Path,
    entries: &[Entry],
    chunks: mpsc::Sender<std::result::Result<Bytes, UploadError>>,
) -> std::result::Result<(), UploadError> {
    let to = io::BufWriter::with_capacity(CHUNK, Chunks(chunks));
    let mut archive = tar::Builder::new(to);
    for Entry { path, metadata } in entries {
        let whole = root.join(path);
        append(&mut archive, &whole, path, metadata)
            .map_err(|source| UploadError::Read { path: whole, source })?;
    }
    let written = archive.into_inner().and_then(|mut to| to.flush());
    written.map_err(|source| UploadError::Read { path: root.to_owned(), source })
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    whole: &Path,
    path: &Path,
    metadata: &Metadata,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_metadata(metadata);
    if metadata.is_symlink() {
        header.set_size(0);
        return archive.append_link(&mut header, path, std::fs::read_link(whole)?);
    }
    if metadata.is_dir() {
        header.set_size(0);
        return archive.append_data(&mut header, path, io::empty());
    }
    // A file may grow or shrink meanwhile: the archive has as many bytes of it as the header says.
    let size = metadata.len();
    header.set_size(size);
    let content = File::open(whole)?.chain(io::repeat(0)).take(size);
    archive.append_data(&mut header, path, content)
}

/// Sends what is written in chunks.
struct Chunks(mpsc::Sender<std::result::Result<Bytes, UploadError>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_directory_is_packed_without_what_is_ignored() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        for path in ["src/deep", "node_modules/x"] {
            std::fs::create_dir_all(root.join(path)).expect("made");
        }
        for path in ["src/main.rs", "src/deep/a.log", "keep.log", "node_modules/x/y"] {
            std::fs::write(root.join(path), path).expect("written");
        }
        let mode = std::fs::Permissions::from_mode(0o751);
        std::fs::set_permissions(root.join("src/main.rs"), mode).expect("set");
        symlink("/etc/passwd", root.join("link")).expect("linked");
        let _socket = std::os::unix::net::UnixListener::bind(root.join("sock")).expect("bound");

        let patterns = ["node_modules", "*.log", "!keep.log"].map(str::to_owned);
        let entries = list(root, &patterns).expect("listed");
        let (chunks, mut waiting) = mpsc::channel(100);
        pack(root, &entries, chunks).expect("packed");
        let mut archive = Vec::new();
        while let Ok(piece) = waiting.try_recv() {
            archive.extend_from_slice(&piece.expect("packed"));
        }
        let mut found = Vec::new();
        for entry in tar::Archive::new(&archive[..]).entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let mut content = String::new();
            entry.read_to_string(&mut content).expect("text");
            let path = entry.path().expect("a path").display().to_string();
            found.push((path, entry.header().mode().expect("a mode") & 0o777, content));
        }
        let names: Vec<&str> = found.iter().map(|(path, ..)| path.as_str()).collect();
        assert_eq!(names, ["keep.log", "link", "src", "src/deep", "src/main.rs"]);
        assert_eq!((found[4].1, found[4].2.as_str()), (0o751, "src/main.rs"));
        assert!(list(&root.join("none"), &[]).expect("nothing").is_empty());
        assert!(list(root, &["[z-a]".to_owned()]).is_err());
    }
}
