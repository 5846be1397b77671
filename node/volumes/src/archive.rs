//! Archives of snapshots: `tar`, compressed with zstd.
//!
//! GNU tar writes and reads them, in the format of POSIX with its extensions for times in nanoseconds, extended attributes, ACLs and
//! holes. Sockets are left out.

use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use vc_protocol::Millis;
use vc_protocol::lease::Epoch;
use vc_protocol::volume::SnapshotId;
use zstd::stream::raw::{Decoder, Encoder, InBuffer, Operation, OutBuffer};

use crate::child::{Command, Finished, Hold};
use crate::error::{Context as _, Error};
use crate::layout;
use crate::listing;
use crate::manifest::Manifest;
use crate::tree;
use crate::volume::Volume;

/// zstd's own default.
const LEVEL: i32 = 3;
/// Bytes that are read at once.
const CHUNK: usize = 128 * 1024;
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
        let sending = self.sending(id)?;
        let data = self.layout().data(id);
        let mut arguments: Vec<_> = OPTIONS.iter().map(Into::into).collect();
        let format = ["--format=posix", "--pax-option=delete=atime,delete=ctime"];
        arguments.extend(format.map(Into::into));
        arguments.extend(["--sort=name", "--create", "--file=-", "."].map(Into::into));
        let command = Command {
            program: "tar",
            arguments,
            read: vec![data.clone()],
            write: Vec::new(),
            dir: data,
            nice: true,
            connect: false,
        };
        let mut child = self.spawn(command, Stdio::null(), Stdio::piped(), sending).await?;
        let stdout = child.stdout();
        let compressing = async {
            let Some(mut stdout) = stdout else { return Ok(()) };
            let mut stream = Zstd::new(Encoder::new(LEVEL)?);
            loop {
                let mut chunk = vec![0; CHUNK];
                let length = stdout.read(&mut chunk).await?;
                chunk.truncate(length);
                let last = length == 0;
                let (next, output) = stream.run(chunk, last).await?;
                stream = next;
                writer.write_all(&output).await?;
                if last {
                    return writer.shutdown().await;
                }
            }
        };
        let (finished, compressed) = tokio::join!(child.finish(), compressing);
        self.ended(finished, compressed)
    }

    /// Reads an archive as the first snapshot of a volume that has none. Nothing outside the snapshot is written, whatever the
    /// archive says.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Fenced`], [`Error::Stream`] if it could not be read, and what else may go wrong.
    pub async fn import<R>(
        &self,
        mut reader: R,
        epoch: Epoch,
        now: Millis,
    ) -> Result<Manifest, Error>
    where
        R: AsyncRead + Unpin + Send,
    {
        let hold = self.lock().await;
        self.check_fence(&self.state().await?, epoch)?;
        if !self.blocking(Arc::clone(&hold), |this| this.ids()).await?.is_empty() {
            return Err(Error::Exists { volume: self.key().to_string() });
        }
        let read = self.unpack(&mut reader, &hold).await;
        let committed = match read {
            Ok(()) => {
                self.blocking(Arc::clone(&hold), move |this| {
                    let data = layout::data(&this.layout().incoming());
                    tree::sync(&data)?;
                    let id = SnapshotId { epoch, number: 1 };
                    let manifest = Manifest::new(id, None, Vec::new(), now, listing::read(&data)?);
                    this.commit(&manifest, |_| Ok(()))?;
                    Ok(manifest)
                })
                .await
            }
            Err(error) => Err(error),
        };
        self.blocking(hold, Self::clear_staging).await?;
        committed
    }

    async fn unpack<R>(&self, reader: &mut R, hold: &Hold) -> Result<(), Error>
    where
        R: AsyncRead + Unpin + Send,
    {
        self.blocking(Arc::clone(hold), |this| {
            this.prepare_staging()?;
            tree::create(&layout::data(&this.layout().incoming()))
        })
        .await?;
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
        let mut child =
            self.spawn(command, Stdio::piped(), Stdio::null(), Arc::clone(hold)).await?;
        let stdin = child.stdin();
        let decompressing = async {
            let Some(mut stdin) = stdin else { return Ok(()) };
            let mut stream = Zstd::new(Decoder::new()?);
            loop {
                let mut chunk = vec![0; CHUNK];
                let length = reader.read(&mut chunk).await?;
                chunk.truncate(length);
                let last = length == 0;
                let (next, output) = stream.run(chunk, last).await?;
                stream = next;
                if stdin.write_all(&output).await.is_err() || last {
                    // It says itself why it has ended.
                    return Ok(());
                }
            }
        };
        let (finished, decompressed) = tokio::join!(child.finish(), decompressing);
        if let Ok(finished) = &finished {
            // Before what the reader says: that the disk is full, for example.
            let broken = decompressed.is_err();
            if !broken {
                self.check("tar", &data, finished, &[])?;
            }
        }
        self.ended(finished, decompressed)
    }

    fn ended(
        &self,
        finished: std::io::Result<Finished>,
        streamed: std::io::Result<()>,
    ) -> Result<(), Error> {
        streamed.map_err(|source| Error::Stream { volume: self.key().to_string(), source })?;
        let finished = finished.context("wait for tar in", self.dir())?;
        self.check("tar", self.dir(), &finished, &[])
    }
}

/// A compressor or decompressor that runs beside the async tasks.
struct Zstd<O> {
    operation: O,
    /// Whether a frame has ended with the last byte.
    finished: bool,
}

impl<O: Operation + Send + 'static> Zstd<O> {
    fn new(operation: O) -> Self {
        Self { operation, finished: false }
    }

    /// Processes a chunk, the last one if `last`. Returns what comes out.
    async fn run(mut self, chunk: Vec<u8>, last: bool) -> std::io::Result<(Self, Vec<u8>)> {
        let task = tokio::task::spawn_blocking(move || {
            let mut output = Vec::new();
            let mut buffer = vec![0; CHUNK];
            let mut input = InBuffer::around(&chunk);
            while input.pos() < chunk.len() {
                let mut out = OutBuffer::around(&mut buffer[..]);
                self.finished = self.operation.run(&mut input, &mut out)? == 0;
                output.extend_from_slice(out.as_slice());
            }
            if last {
                loop {
                    let mut out = OutBuffer::around(&mut buffer[..]);
                    let left = self.operation.finish(&mut out, self.finished)?;
                    output.extend_from_slice(out.as_slice());
                    if left == 0 {
                        break;
                    }
                }
            }
            Ok((self, output))
        });
        task.await.map_err(std::io::Error::other)?
    }
}
