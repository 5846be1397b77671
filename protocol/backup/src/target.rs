//! What backups are written to.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use tokio::sync::{mpsc, oneshot};
use vc_s3::{Bucket, S3Error, Upload, part_size};

use crate::error::BackupError;
use crate::take::TakeError;

/// How the name of a file begins that is being written.
pub const PART_PREFIX: &str = ".vc-backup-";
/// Bytes that are written to the file at once.
const BUFFER: usize = 1 << 20;

/// Receives a backup, on a thread that may block. It is visible when it is published, and not before.
pub trait Target: Write + Send + 'static {
    /// Returns how messages name it.
    fn name(&self) -> String;

    /// Learns how many bytes will follow, about, before the first of them.
    fn expect(&mut self, _bytes: u64) {}

    /// Explains why a write failed.
    fn failed(&self, source: io::Error) -> BackupError;

    /// Makes it visible. Returns its size.
    ///
    /// # Errors
    /// It cannot be written, or there is one of that name. It is as if nothing had been written then.
    fn publish(self) -> Result<u64, TakeError>;

    /// Removes what was written.
    fn discard(self);
}

/// A file with mode 0600. While it is being written, it is one of another name in the same directory.
#[derive(Debug)]
pub struct FileTarget {
    part: BufWriter<NamedTempFile>,
    path: PathBuf,
    /// Whether the file may exist, and is replaced.
    replace: bool,
}

impl FileTarget {
    /// Begins a file. `part_prefix` is how its name begins while it is being written.
    ///
    /// # Errors
    /// There is one that is not to be replaced, or it cannot be made.
    pub fn new(path: &Path, replace: bool, part_prefix: &str) -> Result<Self, TakeError> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if !replace || !metadata.is_file() => {
                return Err(TakeError::Exists(path.to_owned()));
            }
            _ => {}
        }
        let part = tempfile::Builder::new().prefix(part_prefix).tempfile_in(directory_of(path));
        let failed = |source| BackupError::Write { path: path.to_owned(), source };
        let part = BufWriter::with_capacity(BUFFER, part.map_err(failed)?);
        Ok(Self { part, path: path.to_owned(), replace })
    }
}

impl Write for FileTarget {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.part.flush()
    }
}

impl Target for FileTarget {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn failed(&self, source: io::Error) -> BackupError {
        BackupError::Write { path: self.path.clone(), source }
    }

    fn publish(self) -> Result<u64, TakeError> {
        let Self { part, path, replace } = self;
        let failed = |source| BackupError::Write { path: path.clone(), source };
        let part = part.into_inner().map_err(|error| failed(error.into_error()))?;
        part.as_file().sync_all().map_err(failed)?;
        let size = part.as_file().metadata().map_err(failed)?.len();
        let placed = if replace { part.persist(&path) } else { part.persist_noclobber(&path) };
        placed.map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => TakeError::Exists(path.clone()),
            _ => failed(error.error).into(),
        })?;
        File::open(directory_of(&path)).and_then(|it| it.sync_all()).map_err(failed)?;
        Ok(size)
    }

    fn discard(self) {}
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Pieces on their way to the server, beside the parts that an upload has in memory.
const PIECES: usize = 4;

/// An object, which is sent to the server while it is written. A thread sends it: all of it is hashed for the signatures, and a node has
/// one thread for everything else.
#[derive(Debug)]
pub struct S3Target {
    bucket: Bucket,
    name: String,
    /// The file for what aborts it after this process was killed.
    note: PathBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    Sending(Sending),
    /// It has failed, and the error was returned.
    Ended,
}

/// The thread that sends an object.
#[derive(Debug)]
struct Sending {
    pieces: mpsc::Sender<Piece>,
    result: oneshot::Receiver<Result<u64, S3Error>>,
}

/// What the thread is to do.
enum Piece {
    Bytes(Vec<u8>),
    Finish,
}

impl S3Target {
    /// Begins an object. `note` is a file that one backup at a time uses, as [`Upload::new`] has it.
    pub fn new(bucket: Bucket, name: &str, note: &Path) -> Self {
        let (name, note) = (name.to_owned(), note.to_owned());
        Self { bucket, name, note, state: State::Waiting }
    }

    /// Begins to send, unless that was begun. The object has about so many bytes.
    fn begin(&mut self, estimate: u64) -> io::Result<()> {
        if let State::Waiting = self.state {
            let upload =
                Upload::new(self.bucket.clone(), &self.name, part_size(estimate), &self.note);
            let (pieces, pending) = mpsc::channel(PIECES);
            let (done, result) = oneshot::channel();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = std::thread::Builder::new().name("s3-upload".to_owned());
            thread.spawn(move || runtime.block_on(send(upload, pending, done)))?;
            self.state = State::Sending(Sending { pieces, result });
        }
        Ok(())
    }

    fn pass(&mut self, piece: Piece) -> io::Result<()> {
        self.begin(0)?;
        let State::Sending(sending) = std::mem::replace(&mut self.state, State::Ended) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        if sending.pieces.blocking_send(piece).is_ok() {
            self.state = State::Sending(sending);
            return Ok(());
        }
        match sending.result.blocking_recv() {
            Ok(Err(error)) => Err(io::Error::other(error)),
            Ok(Ok(_)) | Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Sends pieces until the object is finished. Without that, nothing of it stays.
async fn send(
    mut upload: Upload,
    mut pending: mpsc::Receiver<Piece>,
    done: oneshot::Sender<Result<u64, S3Error>>,
) {
    let result = loop {
        match pending.recv().await {
            Some(Piece::Bytes(bytes)) => {
                if let Err(error) = upload.write(&bytes).await {
                    upload.abort().await;
                    break Err(error);
                }
            }
            Some(Piece::Finish) => break upload.finish().await,
            None => {
                upload.abort().await;
                return;
            }
        }
    };
    // Of a backup that nothing waits for any more, the next list tells.
    let _ = done.send(result);
}

impl Write for S3Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pass(Piece::Bytes(bytes.to_vec())).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Target for S3Target {
    fn name(&self) -> String {
        self.bucket.address().join(&self.name).to_string()
    }

    fn expect(&mut self, bytes: u64) {
        // Where that fails, the first write says so.
        let _ = self.begin(bytes);
    }

    fn failed(&self, source: io::Error) -> BackupError {
        match source.downcast::<S3Error>() {
            Ok(error) => error.into(),
            Err(source) => BackupError::Write { path: self.name().into(), source },
        }
    }

    fn publish(mut self) -> Result<u64, TakeError> {
        let finished = self.pass(Piece::Finish);
        let result = match std::mem::replace(&mut self.state, State::Ended) {
            State::Sending(sending) => sending.result.blocking_recv().ok(),
            State::Waiting | State::Ended => None,
        };
        match (finished, result) {
            (Ok(()), Some(result)) => Ok(result.map_err(BackupError::from)?),
            (Ok(()), None) => Err(self.failed(io::ErrorKind::BrokenPipe.into()).into()),
            (Err(error), _) => Err(self.failed(error).into()),
        }
    }

    fn discard(self) {
        if let State::Sending(Sending { pieces, result }) = self.state {
            drop(pieces);
            // Until the parts are removed.
            let _ = result.blocking_recv();
        }
    }
}
