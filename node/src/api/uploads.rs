//! Uploads of the directories with which volumes begin.
//!
//! The archive is unpacked where the instances of this node will find the volume, which no node has yet. Beside it a mark says that
//! what is there is from an upload, so that one that was interrupted, or never deployed, is replaced by the next.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, Command};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use vc_crdt::View;
use vc_protocol::control::Reply;
use vc_protocol::{ApiError, ErrorCode, VolumeKey};
use vc_runtime::docker::VolumePlace;
use vc_runtime::{Runtime, RuntimeError};

use super::ControlService;
use crate::frames::{Duplex, FrameError, Frames};

/// One at a time: two of one volume would mix, and the disk is what limits them.
static UPLOADS: Semaphore = Semaphore::const_new(1);
/// How long a client may send nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long tar may take to finish, once it has the whole archive.
const FINISH_TIMEOUT: Duration = Duration::from_secs(120);
/// The most bytes of what tar says that are read.
const MAX_SAID: u64 = 4096;
/// Beside the directory of Docker's volume, which it removes with the volume.
const MARK: &str = "vc-upload";

/// A directory was not uploaded. The volume has no data that counts.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error("the volume {0} exists: an upload would replace what its services wrote")]
    Exists(VolumeKey),
    #[error("another directory is uploaded through this node")]
    Busy,
    #[error("this node runs processes, which have no volumes")]
    NoDocker,
    #[error("Docker has data of a former volume {volume} on this node, at {}", directory.display())]
    Occupied { volume: VolumeKey, directory: PathBuf },
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("cannot run tar: {0}")]
    NoTar(io::Error),
    #[error("cannot write the files: {0}")]
    Files(io::Error),
    #[error("tar cannot unpack the archive: {0}")]
    Tar(String),
    #[error(transparent)]
    Stream(#[from] FrameError),
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        let (code, hint) = match &error {
            UploadError::Exists(_) => {
                (ErrorCode::AlreadyExists, "copy files into a running service with 'vc cp'")
            }
            UploadError::Busy => {
                (ErrorCode::Unavailable, "try again later, or use another node with --peer")
            }
            UploadError::NoDocker => {
                (ErrorCode::FailedPrecondition, "use a node that runs Docker with --peer")
            }
            UploadError::Occupied { .. } => (
                ErrorCode::FailedPrecondition,
                "remove it with 'docker volume rm' there, or use another node with --peer",
            ),
            UploadError::NoTar(_) => (ErrorCode::FailedPrecondition, "install tar on the node"),
            _ => (ErrorCode::Internal, "see the log of the node"),
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

impl ControlService {
    /// Receives the directory with which a volume begins.
    ///
    /// # Errors
    /// The stream is closed, or the upload was refused: what the client still sends is no request.
    pub(super) async fn upload_volume(
        &self,
        volume: &VolumeKey,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<Result<Reply, ApiError>, FrameError> {
        match self.receive_volume(volume, frames).await {
            Ok(()) => Ok(Ok(Reply::Uploaded(self.cluster.membership().node))),
            Err(UploadError::Stream(error)) => Err(error),
            Err(error) => {
                tracing::warn!(%volume, %error, "a directory was not uploaded");
                frames.send(&Reply::Error(error.into())).await?;
                Err(FrameError::Closed)
            }
        }
    }

    async fn receive_volume(
        &self,
        volume: &VolumeKey,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), UploadError> {
        let _permit = UPLOADS.try_acquire().map_err(|_| UploadError::Busy)?;
        let Runtime::Docker(docker) = &self.runtime else { return Err(UploadError::NoDocker) };
        check_new(&self.cluster.latest().view, volume)?;
        let directory = docker.volume_directory(volume, &VolumePlace::Volume).await?;
        prepare(&directory).await.map_err(UploadError::Files)?.then_some(()).ok_or_else(|| {
            UploadError::Occupied { volume: volume.clone(), directory: directory.clone() }
        })?;
        frames.send(&Reply::Ready).await?;
        let unpacked = unpack(&directory, frames).await;
        if unpacked.is_err()
            && let Err(error) = clear(&directory).await
        {
            tracing::warn!(%volume, %error, "what was uploaded of a directory is not removed");
        }
        unpacked?;
        // An instance may have started meanwhile, from another deployment.
        check_new(&self.cluster.latest().view, volume)
    }
}

/// Errors: a node has data of the volume.
fn check_new(view: &View, volume: &VolumeKey) -> Result<(), UploadError> {
    match view.nodes.values().any(|state| state.volumes.contains_key(volume)) {
        true => Err(UploadError::Exists(volume.clone())),
        false => Ok(()),
    }
}

/// Empties the directory if what it has is from an upload, and marks it. Returns `false` if it has something else.
async fn prepare(directory: &Path) -> io::Result<bool> {
    let mark = directory.parent().unwrap_or(directory).join(MARK);
    if tokio::fs::read_dir(directory).await?.next_entry().await?.is_some() {
        if !tokio::fs::try_exists(&mark).await? {
            return Ok(false);
        }
        clear(directory).await?;
    }
    tokio::fs::write(&mark, b"").await?;
    Ok(true)
}

/// Removes what is in a directory.
async fn clear(directory: &Path) -> io::Result<()> {
    let mut entries = tokio::fs::read_dir(directory).await?;
    while let Some(entry) = entries.next_entry().await? {
        match entry.file_type().await?.is_dir() {
            true => tokio::fs::remove_dir_all(entry.path()).await?,
            false => tokio::fs::remove_file(entry.path()).await?,
        }
    }
    Ok(())
}

/// Unpacks the archive that follows in frames, the last of them empty. GNU tar leaves `..` and links that lead out alone.
async fn unpack(directory: &Path, frames: &mut Frames<impl Duplex>) -> Result<(), UploadError> {
    let mut command = Command::new("tar");
    command.args(["--extract", "--file=-", "--numeric-owner", "--same-permissions", "--directory"]);
    command.arg(directory).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(UploadError::NoTar)?;
    let (Some(mut to), Some(stderr)) = (child.stdin.take(), child.stderr.take()) else {
        return Err(UploadError::NoTar(io::ErrorKind::BrokenPipe.into()));
    };
    // Read all along: it would wait when the pipe is full.
    let saying = tokio::spawn(said(stderr));
    loop {
        let received = timeout(IDLE_TIMEOUT, frames.receive_bytes()).await;
        let bytes = received.unwrap_or(Err(FrameError::Closed))?;
        if bytes.is_empty() {
            break;
        }
        if to.write_all(&bytes).await.is_err() {
            // It has ended, and says why.
            break;
        }
    }
    drop(to);
    let ended = timeout(FINISH_TIMEOUT, child.wait()).await;
    let ended = ended.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let status = ended.map_err(UploadError::Files)?;
    if status.success() {
        return Ok(());
    }
    let said = saying.await.ok().filter(|said| !said.is_empty());
    Err(UploadError::Tar(said.unwrap_or_else(|| status.to_string())))
}

/// Returns the beginning of what tar says, in one line.
async fn said(mut stderr: ChildStderr) -> String {
    let mut said = Vec::new();
    let _ = (&mut stderr).take(MAX_SAID).read_to_end(&mut said).await;
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&said).trim().replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o640);
            // As another program could write it.
            header.as_gnu_mut().expect("GNU").name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, content.as_bytes()).expect("appended");
        }
        builder.into_inner().expect("finished")
    }

    async fn unpacked(directory: &Path, archive: &[u8]) -> Result<(), UploadError> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let mut client = Frames::new(theirs.compat(), 1 << 20);
        let mut node = Frames::new(ours.compat(), 1 << 20);
        let send = async {
            for part in archive.chunks(1000) {
                client.send_bytes(part.to_vec()).await.expect("sent");
            }
            client.send_bytes(Vec::new()).await.expect("sent");
        };
        let (result, ()) = tokio::join!(unpack(directory, &mut node), send);
        result
    }

    #[tokio::test]
    async fn an_archive_is_unpacked_and_nothing_outside_is_written() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = parent.path().join("_data");
        std::fs::create_dir(&directory).expect("made");
        assert!(prepare(&directory).await.expect("empty"));
        unpacked(&directory, &archive(&[("a/b.txt", "hello"), ("c", "")])).await.expect("unpacked");
        assert_eq!(std::fs::read_to_string(directory.join("a/b.txt")).expect("there"), "hello");
        let refused = unpacked(&directory, &archive(&[("../out", "x")])).await;
        assert!(matches!(refused, Err(UploadError::Tar(_))), "{refused:?}");
        assert!(!parent.path().join("out").exists());
        // What an upload left is replaced, what something else left is not.
        assert!(prepare(&directory).await.expect("marked"));
        assert_eq!(std::fs::read_dir(&directory).expect("read").count(), 0);
        std::fs::remove_file(parent.path().join(MARK)).expect("removed");
        std::fs::write(directory.join("precious"), "").expect("written");
        assert!(!prepare(&directory).await.expect("looked"));
        assert!(directory.join("precious").exists());
    }
}
