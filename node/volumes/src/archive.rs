//! Archives of snapshots: `tar`, compressed with zstd.
//!
//! GNU tar writes and reads them, in the format of POSIX with its extensions for times in nanoseconds, extended attributes, ACLs and
//! holes. Sockets are left out. Archives that are not compressed are read, too.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout};
use vc_protocol::Millis;
use vc_protocol::lease::Epoch;
use vc_protocol::volume::SnapshotId;
use zstd::stream::raw::{Decoder, Encoder, InBuffer, Operation, OutBuffer};

use crate::child::{Command, Finished, Hold};
use crate::create::first;
use crate::error::{Context as _, Error};
use crate::layout;
use crate::manifest::Manifest;
use crate::tree;
use crate::volume::Volume;

/// zstd's own default.
const LEVEL: i32 = 3;
/// Bytes that are read at once.
const CHUNK: usize = 128 * 1024;
/// After so many bytes a chunk is decompressed further in another step.
const MAX_OUTPUT: usize = 1 << 20;
/// While an archive is read, the disk is looked at after so many bytes, and has to have room for as many more.
const ROOM_STEP: u64 = 16 << 20;
/// How an archive begins that zstd has compressed, and one that gzip has.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// An archive ends with at least one block of zeros; without it, it was cut off between two files.
const LAST_BLOCK: u64 = 512;
/// Everything of a file.
const OPTIONS: [&str; 5] =
    ["--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--numeric-owner"];

impl Volume {
    /// Writes a snapshot as an archive.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Stream`] if it could not be written, and what else may go wrong.
    pub async fn export<W>(&self, id: SnapshotId, mut writer: W) -> Result<(), Error>
    where
        W: AsyncWrite + Unpin + Send,
    {
        let data = self.layout().data(id);
        let arguments = ["--sort=name", "."].map(OsString::from).to_vec();
        self.pack(id, data, arguments, async |mut stdout| {
            let mut stream = Zstd::new(Encoder::new(LEVEL)?);
            loop {
                let mut chunk = vec![0; CHUNK];
                let length = stdout.read(&mut chunk).await?;
                chunk.truncate(length);
                stream.feed(chunk);
                while stream.has_more() {
                    let output;
                    (stream, output) = stream.run().await?;
                    writer.write_all(&output).await?;
                }
                if length == 0 {
                    return writer.shutdown().await;
                }
            }
        })
        .await
    }

    /// Writes a file or directory of a snapshot as an archive that is not compressed, whose root has its name. `path` is relative to
    /// the snapshot; links in it are followed as far as they stay inside.
    ///
    /// # Errors
    /// As [`Volume::export`]; [`Error::NoPath`].
    pub async fn export_path<W>(
        &self,
        id: SnapshotId,
        path: &str,
        mut writer: W,
    ) -> Result<(), Error>
    where
        W: AsyncWrite + Unpin + Send,
    {
        let (data, wanted) = (self.layout().data(id), path.to_owned());
        let found =
            self.blocking(Arc::new(()), move |_| Ok(find(&data, Path::new(&wanted)))).await?;
        let (directory, name) = found.map_err(|source| Error::NoPath {
            volume: self.key().to_string(),
            path: path.to_owned(),
            source,
        })?;
        // A name that begins with a dash is no option.
        let arguments = vec!["--sort=name".into(), "--".into(), name];
        self.pack(id, directory, arguments, async |mut stdout| {
            tokio::io::copy(&mut stdout, &mut writer).await?;
            writer.shutdown().await
        })
        .await
    }

    /// Runs tar in a directory of a snapshot, and has `write` read its output to the end.
    async fn pack(
        &self,
        id: SnapshotId,
        dir: PathBuf,
        what: Vec<OsString>,
        write: impl AsyncFnOnce(ChildStdout) -> io::Result<()>,
    ) -> Result<(), Error> {
        let sending = self.sending(id)?;
        let mut arguments: Vec<_> = OPTIONS.iter().map(Into::into).collect();
        let format = ["--format=posix", "--pax-option=delete=atime,delete=ctime"];
        arguments.extend(format.map(Into::into));
        arguments.extend(["--create", "--file=-"].map(Into::into));
        arguments.extend(what);
        let command = Command {
            program: "tar",
            arguments,
            read: vec![self.layout().data(id)],
            write: Vec::new(),
            dir,
            nice: true,
            connect: false,
        };
        let mut child = self.spawn(command, Stdio::null(), Stdio::piped(), sending).await?;
        let stdout = child.stdout();
        let writing = async {
            match stdout {
                Some(stdout) => write(stdout).await,
                None => Ok(()),
            }
        };
        let (finished, written) = tokio::join!(child.finish(), writing);
        self.ended("tar", finished, written)
    }

    /// Reads an archive, compressed with zstd or not at all, as the first snapshot of a volume that has none. Nothing outside the
    /// snapshot is written, whatever the archive says.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Fenced`], [`Error::Stream`] if it could not be read, and what else may go wrong. The volume has
    /// nothing then.
    pub async fn import<R>(
        &self,
        mut reader: R,
        epoch: Epoch,
        now: Millis,
    ) -> Result<Manifest, Error>
    where
        R: AsyncRead + Unpin + Send,
    {
        let hold = self.begin_first(epoch).await?;
        let read = self.unpack(&mut reader, &hold).await;
        self.end_first(read, first(epoch, now), now, hold).await
    }

    async fn unpack<R>(&self, reader: &mut R, hold: &Hold) -> Result<(), Error>
    where
        R: AsyncRead + Unpin + Send,
    {
        let data = layout::data(&self.layout().incoming());
        let mut arguments: Vec<_> = OPTIONS.iter().map(Into::into).collect();
        let extract = ["--same-owner", "--same-permissions", "--extract", "--file=-"];
        arguments.extend(extract.map(Into::into));
        let command = Command {
            program: "tar",
            arguments,
            read: Vec::new(),
            write: vec![data.clone()],
            dir: data.clone(),
            nice: true,
            connect: false,
        };
        self.feed(command, reader, &data, hold).await
    }

    /// Runs what reads an archive and writes to the disk of `to`, and gives it the archive, decompressed.
    pub(crate) async fn feed<R>(
        &self,
        command: Command,
        reader: &mut R,
        to: &Path,
        hold: &Hold,
    ) -> Result<(), Error>
    where
        R: AsyncRead + Unpin + Send,
    {
        let program = command.program;
        let mut child =
            self.spawn(command, Stdio::piped(), Stdio::null(), Arc::clone(hold)).await?;
        let stdin = child.stdin();
        let decompressing = async {
            match stdin {
                Some(stdin) => decompress(reader, stdin, to).await,
                None => Ok(()),
            }
        };
        let (finished, decompressed) = tokio::join!(child.finish(), decompressing);
        self.ended(program, finished, decompressed)
    }

    fn ended(
        &self,
        program: &'static str,
        finished: io::Result<Finished>,
        streamed: io::Result<()>,
    ) -> Result<(), Error> {
        streamed.map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull => {
                self.expect_bytes(ROOM_STEP);
                self.no_space(self.dir())
            }
            _ => Error::Stream { volume: self.key().to_string(), source },
        })?;
        let finished = finished.context("wait for a process in", self.dir())?;
        self.check(program, self.dir(), &finished, &[])
    }
}

/// Passes an archive on, decompressed if zstd has compressed it.
async fn decompress<R>(reader: &mut R, mut to: ChildStdin, disk: &Path) -> io::Result<()>
where
    R: AsyncRead + Unpin + Send,
{
    let mut chunk = vec![0; ZSTD_MAGIC.len()];
    reader.read_exact(&mut chunk).await?;
    if chunk.starts_with(&GZIP_MAGIC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, ArchiveError::Gzip));
    }
    let mut stream = match chunk.starts_with(&ZSTD_MAGIC) {
        true => Some(Zstd::new(Decoder::new()?)),
        false => None,
    };
    let (mut zeros, mut unchecked) = (0, ROOM_STEP);
    loop {
        let last = chunk.is_empty();
        if let Some(decoder) = &mut stream {
            decoder.feed(std::mem::take(&mut chunk));
        }
        loop {
            let output = match stream.take() {
                Some(decoder) => {
                    let (next, output) = decoder.run().await?;
                    stream = Some(next);
                    output
                }
                None => std::mem::take(&mut chunk),
            };
            zeros = trailing_zeros(zeros, &output);
            unchecked += output.len() as u64;
            if unchecked >= ROOM_STEP {
                unchecked = 0;
                if tree::spare_bytes(disk) < ROOM_STEP {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            if to.write_all(&output).await.is_err() {
                // It says itself why it has ended.
                return Ok(());
            }
            if !stream.as_ref().is_some_and(Zstd::has_more) {
                break;
            }
        }
        if last {
            return match zeros < LAST_BLOCK {
                true => Err(io::Error::new(io::ErrorKind::UnexpectedEof, ArchiveError::CutOff)),
                false => Ok(()),
            };
        }
        chunk = vec![0; CHUNK];
        let length = reader.read(&mut chunk).await?;
        chunk.truncate(length);
    }
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
enum ArchiveError {
    #[error("the archive is compressed with gzip: decompress it first, with gunzip")]
    Gzip,
    #[error("the archive ends too early")]
    CutOff,
}

/// Returns with how many zeros a stream ends that ended with `before` of them.
fn trailing_zeros(before: u64, bytes: &[u8]) -> u64 {
    let count = bytes.iter().rev().take_while(|it| **it == 0).count();
    let before = if count == bytes.len() { before } else { 0 };
    before.saturating_add(count as u64)
}

/// Returns the directory and the name of what a path means in a tree. Errors: it is not there, or leads outside.
fn find(tree: &Path, path: &Path) -> io::Result<(PathBuf, OsString)> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(Ok(part)),
        Component::RootDir | Component::CurDir => None,
        _ => Some(Err(io::Error::from(io::ErrorKind::InvalidInput))),
    });
    let inner: PathBuf = parts.collect::<io::Result<_>>()?;
    let tree = tree.canonicalize()?;
    let Some(name) = inner.file_name() else {
        // Everything, under a name as any other directory.
        let (parent, name) = (tree.parent(), tree.file_name());
        let (Some(parent), Some(name)) = (parent, name) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        return Ok((parent.to_owned(), name.to_owned()));
    };
    let directory = tree.join(inner.parent().unwrap_or(Path::new(""))).canonicalize()?;
    if !directory.starts_with(&tree) {
        return Err(io::ErrorKind::NotFound.into());
    }
    std::fs::symlink_metadata(directory.join(name))?;
    Ok((directory, name.to_owned()))
}

/// A compressor or decompressor that runs beside the async tasks.
struct Zstd<O> {
    operation: O,
    /// Whether a frame has ended with the last byte.
    finished: bool,
    /// What it processes; empty once the stream has ended.
    chunk: Vec<u8>,
    /// How far it is.
    begin: usize,
    /// Whether there is more of what it has processed.
    pending: bool,
    ended: bool,
}

impl<O: Operation + Send + 'static> Zstd<O> {
    fn new(operation: O) -> Self {
        let (finished, pending, ended) = (false, false, false);
        Self { operation, finished, chunk: Vec::new(), begin: 0, pending, ended }
    }

    /// Sets what to process next; nothing is the end of the stream.
    fn feed(&mut self, chunk: Vec<u8>) {
        (self.chunk, self.begin) = (chunk, 0);
    }

    /// Returns whether not all is processed.
    fn has_more(&self) -> bool {
        match self.chunk.is_empty() {
            true => !self.ended,
            false => self.pending || self.begin < self.chunk.len(),
        }
    }

    /// Processes more of the chunk. Returns what comes out, which is bounded: a few bytes may be those of gigabytes.
    async fn run(mut self) -> io::Result<(Self, Vec<u8>)> {
        let task = tokio::task::spawn_blocking(move || {
            let mut output = Vec::new();
            let mut buffer = vec![0; CHUNK];
            if self.chunk.is_empty() {
                self.ended = true;
                loop {
                    let mut out = OutBuffer::around(&mut buffer[..]);
                    let left = self.operation.finish(&mut out, self.finished)?;
                    output.extend_from_slice(out.as_slice());
                    if left == 0 {
                        return Ok((self, output));
                    }
                }
            }
            let mut input = InBuffer::around(&self.chunk);
            input.set_pos(self.begin);
            loop {
                let mut out = OutBuffer::around(&mut buffer[..]);
                self.finished = self.operation.run(&mut input, &mut out)? == 0;
                self.pending = out.pos() == CHUNK && !self.finished;
                output.extend_from_slice(out.as_slice());
                let is_done = input.pos() == self.chunk.len() && !self.pending;
                if is_done || output.len() >= MAX_OUTPUT {
                    break;
                }
            }
            self.begin = input.pos();
            Ok((self, output))
        });
        task.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_few_bytes_that_are_those_of_much_more_come_out_in_pieces() {
        let all = 40 << 20;
        let bytes = zstd::encode_all(&vec![0; all][..], LEVEL).expect("compressed");
        assert!(bytes.len() < CHUNK, "{}", bytes.len());
        let mut stream = Zstd::new(Decoder::new().expect("a decoder"));
        stream.feed(bytes);
        let mut total = 0;
        let mut output;
        while stream.has_more() {
            (stream, output) = stream.run().await.expect("decompressed");
            assert!(output.len() <= MAX_OUTPUT + CHUNK);
            total += output.len();
        }
        stream.feed(Vec::new());
        (stream, output) = stream.run().await.expect("whole");
        assert_eq!((total + output.len(), stream.has_more()), (all, false));
    }
}
