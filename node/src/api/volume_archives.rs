//! Archives of volumes, to and from clients.

use std::io;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use libp2p::bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::JoinError;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{ReaderStream, StreamReader};
use vc_protocol::audit::AuditAction;
use vc_protocol::control::Reply;
use vc_protocol::exec::MAX_EXEC_CHUNK;
use vc_protocol::volume::SnapshotId;
use vc_protocol::{ApiError, VolumeKey};

use super::ControlService;
use super::new_volumes::{FIRST_EPOCH, Mounted};
use super::service::keep_alive;
use super::volume_error::VolumeError;
use crate::auth::User;
use crate::clock;
use crate::exec;
use crate::frames::{Duplex, FrameError, Frames};

/// Archives that are made or read at a time.
pub(super) const MAX_ARCHIVES: usize = 8;
static ARCHIVES: Semaphore = Semaphore::const_new(MAX_ARCHIVES);
/// How long a client may send nothing of an archive: what makes it may take its time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Chunks of an archive between the client and the disk.
const MAX_PENDING_CHUNKS: usize = 4;
/// The longest path in a volume, as the kernel has it.
pub(super) const MAX_PATH: usize = 4096;
/// Bytes of an archive between tar and the client.
const BUFFER: usize = 256 * 1024;

pub(super) fn permit() -> Result<SemaphorePermit<'static>, VolumeError> {
    ARCHIVES.try_acquire().map_err(|_| VolumeError::TooMany)
}

impl ControlService {
    /// Sends a snapshot of this node, or one file or directory of it.
    ///
    /// # Errors
    /// The stream is closed; always so after the archive has begun.
    pub(super) async fn export_volume(
        &self,
        user: &User,
        key: VolumeKey,
        snapshot: SnapshotId,
        path: Option<String>,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let begun = async {
            if path.as_ref().is_some_and(|path| path.len() > MAX_PATH) {
                return Err(VolumeError::LongPath);
            }
            let volume = self.store()?.volume(&key);
            let permit = permit()?;
            let read = volume.clone();
            let all = tokio::task::spawn_blocking(move || read.snapshots()).await;
            let all = all.map_err(|_| VolumeError::Stopping)??;
            match all.iter().any(|it| it.id == snapshot) {
                true => Ok((volume, permit)),
                false => Err(VolumeError::NoSnapshot { volume: key.clone(), snapshot }),
            }
        };
        let (volume, _permit) = match begun.await {
            Ok(begun) => begun,
            Err(error) => return frames.send(&Reply::Error(error.into())).await,
        };
        let what = path.as_ref().map(|path| format!("{path} of ")).unwrap_or_default();
        let text = format!("downloaded {what}snapshot {snapshot} of volume {key}");
        self.audit.record(AuditAction::VolumeExported, user, None, text);
        let (reader, writer) = tokio::io::duplex(BUFFER);
        // It ends by itself when the reader is dropped.
        let exporting = tokio::spawn(async move {
            match path {
                Some(path) => volume.export_path(snapshot, &path, writer).await,
                None => volume.export(snapshot, writer).await,
            }
        });
        let bytes = ReaderStream::with_capacity(reader, MAX_EXEC_CHUNK);
        // The end of the bytes says nothing: only the result says that they are all.
        let result = stream::once(exporting).filter_map(async |result| match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(ApiError::from(VolumeError::from(error)))),
            Err(_) => Some(Err(VolumeError::Stopping.into())),
        });
        let bytes = bytes.map(|it| it.map_err(|error| VolumeError::Archive(error).into()));
        exec::send_archive(Box::pin(bytes.chain(result)), frames).await
    }

    /// Receives the archive with which a volume begins that no node has yet.
    ///
    /// # Errors
    /// The stream is closed, or the archive was refused before its end: what the client still sends is no request.
    pub(super) async fn import_volume(
        &self,
        user: &User,
        key: VolumeKey,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<Result<Reply, ApiError>, FrameError> {
        let begun = async {
            let permit = permit()?;
            self.check_new(&key, Mounted::No)?;
            let store = self.store()?;
            Ok::<_, VolumeError>((permit, store))
        };
        let (permit, store) = match begun.await {
            Ok(begun) => begun,
            Err(error) => return Ok(Err(error.into())),
        };
        frames.send(&Reply::Ready).await?;
        let (service, user, volume) = (self.clone(), user.clone(), store.volume(&key));
        let importing = async move |reader: Chunks| {
            let _permit = permit;
            let imported = volume.import(reader, FIRST_EPOCH, clock::now()).await;
            let manifest = imported.map_err(unreadable)?;
            let from = "an archive".to_owned();
            service.announce(&user, &store, key, from, &manifest, Mounted::No).await
        };
        match receive(frames, IDLE_TIMEOUT, importing).await? {
            Received::Whole(reply) => Ok(reply),
            Received::Part(error) => {
                frames.send(&Reply::Error(error)).await?;
                Err(FrameError::Closed)
            }
        }
    }
}

/// Returns why an archive was refused.
pub(super) fn unreadable(error: vc_volumes::Error) -> ApiError {
    match error {
        vc_volumes::Error::Stream { source, .. } => VolumeError::Archive(source).into(),
        error => VolumeError::from(error).into(),
    }
}

/// The bytes of an archive as they arrive.
pub(super) type Chunks = StreamReader<ReceiverStream<io::Result<Bytes>>, Bytes>;

/// What became of an archive.
pub(super) enum Received {
    /// The client has sent all of it.
    Whole(Result<Reply, ApiError>),
    /// It was refused before its end.
    Part(ApiError),
}

/// Receives the archive that follows in frames, the last of them empty, and has `import` read it. That goes on to its end when the
/// client is gone: what is whole counts, and a stream that ends before its end leaves nothing.
pub(super) async fn receive<F>(
    frames: &mut Frames<impl Duplex>,
    idle: Duration,
    import: impl FnOnce(Chunks) -> F,
) -> Result<Received, FrameError>
where
    F: Future<Output = Result<Reply, ApiError>> + Send + 'static,
{
    let (chunks, pending) = mpsc::channel::<io::Result<Bytes>>(MAX_PENDING_CHUNKS);
    let mut importing = tokio::spawn(import(StreamReader::new(ReceiverStream::new(pending))));
    let ended =
        |joined: Result<_, JoinError>| joined.unwrap_or_else(|_| Err(VolumeError::Stopping.into()));
    {
        let mut receiving = Box::pin(receive_chunks(frames, idle, chunks));
        tokio::select! {
            biased;
            imported = &mut importing => match ended(imported) {
                // What follows the end of the archive in its stream is of no use.
                Ok(reply) => {
                    receiving.await?;
                    return Ok(Received::Whole(Ok(reply)));
                }
                Err(error) => return Ok(Received::Part(error)),
            },
            received = &mut receiving => received?,
        }
    }
    Ok(Received::Whole(ended(keep_alive(frames, true, importing).await?)))
}

/// Passes the bytes of an archive on up to the empty frame.
async fn receive_chunks(
    frames: &mut Frames<impl Duplex>,
    idle: Duration,
    chunks: mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), FrameError> {
    loop {
        let received = timeout(idle, frames.receive_bytes()).await;
        match received.unwrap_or(Err(FrameError::Closed)) {
            Ok(bytes) if bytes.is_empty() => return Ok(()),
            // A failed send means that the archive was refused; its error arrives on its own.
            Ok(bytes) => drop(chunks.send(Ok(bytes)).await),
            Err(error) => {
                let cut = io::Error::other("the client closed the stream before its end");
                let _ = chunks.send(Err(cut)).await;
                return Err(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::compat::TokioAsyncReadCompatExt as _;
    use vc_volumes::Store;

    use super::*;

    type End = Frames<tokio_util::compat::Compat<tokio::io::DuplexStream>>;

    fn pipe() -> (End, End) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        (Frames::new(ours.compat(), 1 << 20), Frames::new(theirs.compat(), 1 << 20))
    }

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(100_000);
        header.set_mode(0o640);
        let content = vec![7; 100_000];
        builder.append_data(&mut header, "file", &content[..]).expect("appended");
        builder.into_inner().expect("finished")
    }

    /// Helpers cannot be re-executed from a test of this crate: what is tested is the stream.
    fn store(dir: &std::path::Path) -> Store {
        Store::open_with(dir, std::path::Path::new("/bin/false")).expect("opened")
    }

    #[tokio::test]
    async fn a_stream_that_ends_before_its_end_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let volume = store(dir.path()).volume(&"shop/data".parse().expect("a volume"));
        let of_import = volume.clone();
        let (told, ended) = tokio::sync::oneshot::channel();
        let import = async move |chunks: Chunks| {
            let imported = of_import.import(chunks, FIRST_EPOCH, 7).await;
            let _ = told.send(());
            imported.map(|_| Reply::Ready).map_err(unreadable)
        };
        let (mut node, mut client) = pipe();
        let send = async move {
            client.send_bytes(archive()[..1000].to_vec()).await.expect("sent");
            drop(client);
        };
        let (received, ()) = tokio::join!(receive(&mut node, IDLE_TIMEOUT, import), send);
        // Either the helper has failed first, or the stream.
        assert!(!matches!(received, Ok(Received::Whole(_))));
        ended.await.expect("it goes on to its end");
        assert!(volume.snapshots().expect("read").is_empty());
        assert!(!dir.path().join("shop/data").exists());
    }

    #[tokio::test]
    async fn the_bytes_of_an_archive_are_passed_on_up_to_the_empty_frame_and_a_broken_stream_is_told()
     {
        let (mut node, mut client) = pipe();
        let (chunks, mut pending) = mpsc::channel(100);
        client.send_bytes(b"one".to_vec()).await.expect("sent");
        client.send_bytes(Vec::new()).await.expect("sent");
        receive_chunks(&mut node, IDLE_TIMEOUT, chunks).await.expect("whole");
        assert_eq!(pending.recv().await.expect("a chunk").expect("bytes"), b"one"[..]);
        assert!(pending.recv().await.is_none());

        let (chunks, mut pending) = mpsc::channel(100);
        client.send_bytes(b"two".to_vec()).await.expect("sent");
        drop(client);
        receive_chunks(&mut node, IDLE_TIMEOUT, chunks).await.expect_err("broken");
        assert_eq!(pending.recv().await.expect("a chunk").expect("bytes"), b"two"[..]);
        pending.recv().await.expect("an error").expect_err("the end is not the end of the archive");
    }
}
