//! Between tasks that wait and threads that block: bytes through a bounded channel, and a file that still grows.

use std::fs::File;
use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// Pieces that may wait in a channel; each is at most [`PIECE`] long, or as long as the other side sends them.
pub(super) const PIECES: usize = 16;
/// How much is gathered before it is sent.
const PIECE: usize = 256 * 1024;

/// Bytes, or why no more come. Without a word the sender was lost: that is an error too, so the end is an empty piece.
pub(super) type Piece = io::Result<Bytes>;

/// Reads what a task sends.
pub(super) struct PipeReader {
    pieces: mpsc::Receiver<Piece>,
    rest: Bytes,
    ended: bool,
}

impl PipeReader {
    pub(super) fn new(pieces: mpsc::Receiver<Piece>) -> Self {
        Self { pieces, rest: Bytes::new(), ended: false }
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() && !self.ended {
            self.rest = self.pieces.blocking_recv().ok_or(io::ErrorKind::ConnectionAborted)??;
            self.ended = self.rest.is_empty();
        }
        let most = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..most]);
        Ok(most)
    }
}

/// Writes what a task takes.
pub(super) struct PipeWriter {
    pieces: mpsc::Sender<Piece>,
    gathered: BytesMut,
}

impl PipeWriter {
    pub(super) fn new(pieces: mpsc::Sender<Piece>) -> Self {
        Self { pieces, gathered: BytesMut::with_capacity(PIECE) }
    }

    fn send(&self, piece: Piece) -> io::Result<()> {
        self.pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Says that nothing more comes, for this reason.
    pub(super) fn fail(self, error: io::Error) {
        // Who has gone does not ask why.
        let _ = self.send(Err(error));
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.gathered, BytesMut::with_capacity(PIECE));
        self.send(Ok(full.freeze()))
    }
}

/// How far a file has grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Growth {
    /// So many bytes are there.
    pub(super) length: u64,
    /// No more come, and they are right.
    pub(super) whole: bool,
}

/// Reads a file while it grows; ends when it is whole and right. Errors: it will never be.
pub(super) struct Growing {
    pub(super) file: File,
    pub(super) at: u64,
    pub(super) growth: watch::Receiver<Growth>,
    pub(super) runtime: Handle,
}

impl Read for Growing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Growth { length, whole } = *self.growth.borrow_and_update();
            if self.at < length {
                let there = usize::try_from(length - self.at).unwrap_or(usize::MAX);
                let most = buffer.len().min(there);
                let read = self.file.read(&mut buffer[..most])?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.at += read as u64;
                return Ok(read);
            }
            if whole {
                return Ok(0);
            }
            let changed = self.runtime.block_on(self.growth.changed());
            changed.map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        }
    }
}
