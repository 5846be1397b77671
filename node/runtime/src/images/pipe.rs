//! Bridges between async tasks and blocking threads: bytes through a bounded channel, whose bound is the
//! backpressure on the writer, and a file that still grows.

use std::fs::File;
use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// How many chunks wait in a channel; each is at most [`CHUNK`] bytes, or as long as the other side sends them.
pub(super) const CHANNEL_CHUNKS: usize = 16;
/// How many bytes a [`PipeWriter`] gathers before it sends them.
const CHUNK: usize = 256 * 1024;

/// Bytes, or why no more come. An empty chunk is the end; a closed channel without it is an error, since its sender may
/// have failed.
pub(super) type Chunk = io::Result<Bytes>;

/// Reads the chunks that an async task sends.
pub(super) struct PipeReader {
    chunks: mpsc::Receiver<Chunk>,
    rest: Bytes,
    ended: bool,
}

impl PipeReader {
    pub(super) fn new(chunks: mpsc::Receiver<Chunk>) -> Self {
        Self { chunks, rest: Bytes::new(), ended: false }
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() && !self.ended {
            self.rest = self.chunks.blocking_recv().ok_or(io::ErrorKind::ConnectionAborted)??;
            self.ended = self.rest.is_empty();
        }
        let most = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..most]);
        Ok(most)
    }
}

/// Sends what is written to an async task, in chunks.
pub(super) struct PipeWriter {
    chunks: mpsc::Sender<Chunk>,
    gathered: BytesMut,
}

impl PipeWriter {
    pub(super) fn new(chunks: mpsc::Sender<Chunk>) -> Self {
        Self { chunks, gathered: BytesMut::with_capacity(CHUNK) }
    }

    fn send(&self, chunk: Chunk) -> io::Result<()> {
        self.chunks.blocking_send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Ends the stream with an error.
    pub(super) fn fail(self, error: io::Error) {
        let _ = self.send(Err(error)); // The receiver has gone.
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.gathered, BytesMut::with_capacity(CHUNK));
        self.send(Ok(full.freeze()))
    }
}

/// The state of a file that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PartialFile {
    /// How many bytes of it can be read.
    pub(super) length: u64,
    /// Whether it is complete and matches its digest.
    pub(super) complete: bool,
}

/// Reads a file while it is written, to its end once it is complete. An error when the writer stops before that.
pub(super) struct GrowingFile {
    pub(super) file: File,
    pub(super) offset: u64,
    pub(super) state: watch::Receiver<PartialFile>,
    pub(super) runtime: Handle,
}

impl Read for GrowingFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let PartialFile { length, complete } = *self.state.borrow_and_update();
            if self.offset < length {
                let available = usize::try_from(length - self.offset).unwrap_or(usize::MAX);
                let most = buffer.len().min(available);
                let read = self.file.read(&mut buffer[..most])?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.offset += read as u64;
                return Ok(read);
            }
            if complete {
                return Ok(0);
            }
            let changed = self.runtime.block_on(self.state.changed());
            changed.map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        }
    }
}
