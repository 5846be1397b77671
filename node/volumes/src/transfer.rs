//! Copying a snapshot from another node over a stream.
//!
//! The receiver is rsync's client, the sender its server. Before rsync's own protocol, on the stream:
//!
//! - receiver: the version (one byte, 1), the number of letters (one byte), the letters of [`Capabilities`]
//! - sender: zero, then rsync; or one, the length of a text (2 bytes, big endian), the text: why there is nothing
//!
//! The sender makes the arguments of its rsync itself.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use vc_protocol::volume::SnapshotId;

use crate::capabilities::Capabilities;
use crate::child::{Command, Hold};
use crate::error::{Context as _, Error};
use crate::layout;
use crate::listing::{self, Listing};
use crate::manifest::Manifest;
use crate::rsync::{option, options, slash};
use crate::tree;
use crate::volume::{Volume, lock};

/// Version of what is sent before rsync's protocol.
const VERSION: u8 = 1;
const GO: u8 = 0;
const REFUSED: u8 = 1;
/// The longest text of a refusal that is read.
const MAX_REASON: usize = 1024;
/// After this time without a byte rsync gives up.
const TIMEOUT: &str = "--timeout=120";
/// Bytes that are copied at once.
const CHUNK: usize = 128 * 1024;

impl Volume {
    /// Pulls a snapshot from another node that calls [`Volume::send`] at the other end of the stream, and commits it. `progress` is
    /// called with the number of bytes that have arrived, now and then; with the size in the manifest it is for display.
    ///
    /// What a transfer that broke off had copied is not copied again.
    ///
    /// # Errors
    /// [`Error::Fenced`] and [`Error::NotNewer`] before anything is read; [`Error::Digest`] if what arrived is not the snapshot,
    /// [`Error::Refused`], [`Error::Stream`], and what else may go wrong. There is no new snapshot then.
    pub async fn receive<S>(
        &self,
        manifest: &Manifest,
        stream: S,
        progress: impl FnMut(u64) + Send,
    ) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let hold = self.lock().await;
        let result = self.pull(manifest, stream, progress, &hold).await;
        match &result {
            Ok(()) => {}
            // Room is needed more than what was copied, and what is wrong does not help.
            Err(Error::NoSpace { .. } | Error::Digest { .. }) => {
                self.blocking(hold, Self::clear_staging).await?;
            }
            Err(_) => self.blocking(hold, Self::keep_partial).await?,
        }
        result
    }

    async fn pull<S>(
        &self,
        manifest: &Manifest,
        mut stream: S,
        progress: impl FnMut(u64) + Send,
        hold: &Hold,
    ) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let id = manifest.id;
        self.check_fence(&self.state().await?, id.epoch)?;
        let newest = self
            .blocking(Arc::clone(hold), |this| {
                this.keep_partial()?;
                tree::remove(&this.layout().hot())?;
                tree::create(&layout::data(&this.layout().incoming()))?;
                this.newest()
            })
            .await?;
        if let Some(newest) = newest.as_ref().map(|it| it.id).filter(|newest| *newest >= id) {
            return Err(Error::NotNewer { volume: self.key().to_string(), id, newest });
        }
        self.expect_bytes(manifest.bytes);

        let incoming = layout::data(&self.layout().incoming());
        let partial = layout::data(&self.layout().partial());
        let known = newest.iter().map(|it| self.layout().data(it.id));
        let known: Vec<_> = known.chain(partial.exists().then_some(partial)).collect();
        // Copies instead of links, if links led to another tree last time.
        let distrust = self.0.distrust.load(Ordering::Relaxed);
        let mut arguments = options();
        for dir in &known {
            arguments.push(option(if distrust { "--copy-dest=" } else { "--link-dest=" }, dir));
        }
        arguments.extend([TIMEOUT.into(), "--partial".into(), "peer:.".into(), slash(&incoming)]);
        let mut write = vec![incoming.clone()];
        write.extend(known);
        let dir = self.dir().to_owned();
        let command = Command {
            program: "rsync",
            arguments,
            read: Vec::new(),
            write,
            dir,
            nice: true,
            connect: true,
        };
        let mut child = self.spawn(command, Stdio::null(), Stdio::null(), Arc::clone(hold)).await?;
        let wait = "wait for rsync in";
        let connection = child.connection().await.context(wait, self.dir())?;
        let Some(connection) = connection else {
            let finished = child.finish().await.context(wait, self.dir())?;
            self.check("rsync", &incoming, &finished, &[])?;
            return Err(self.refused("rsync ended before it had copied anything"));
        };
        self.ask(&mut stream, &connection.capabilities).await?;
        let from_rsync = socket(connection.from_rsync).context(wait, self.dir())?;
        let to_rsync = socket(connection.to_rsync).context(wait, self.dir())?;
        let joining = join(stream, from_rsync, to_rsync, progress);
        let (joined, finished) = tokio::join!(joining, child.finish());
        let finished = finished.context(wait, self.dir())?;
        // What rsync says names the cause better, except where it only says that the stream broke.
        if let (Err(source), Some(12 | 30)) = (joined, finished.status.code()) {
            return Err(Error::Stream { volume: self.key().to_string(), source });
        }
        self.check("rsync", &incoming, &finished, &[])?;

        let manifest = manifest.clone();
        self.blocking(Arc::clone(hold), move |this| {
            let data = layout::data(&this.layout().incoming());
            let found = listing::read(&data)?;
            let Listing { files, bytes, digest } = &found;
            if (*files, *bytes, digest) != (manifest.files, manifest.bytes, &manifest.digest) {
                this.0.distrust.store(true, Ordering::Relaxed);
                let (files, expected_files) = (*files, manifest.files);
                let volume = this.key().to_string();
                return Err(Error::Digest { volume, id, files, expected_files });
            }
            tree::sync(&data)?;
            this.commit(&manifest, |state| {
                // The lease was granted anew since any lower epoch.
                state.fence = state.fence.max(id.epoch);
                Ok(())
            })?;
            this.0.distrust.store(false, Ordering::Relaxed);
            this.clear_staging()
        })
        .await
    }

    /// Asks the other end to send.
    async fn ask<S>(&self, stream: &mut S, capabilities: &Capabilities) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let broken = |source| Error::Stream { volume: self.key().to_string(), source };
        let letters = capabilities.as_str().as_bytes();
        // It has at most 64.
        let mut request = vec![VERSION, u8::try_from(letters.len()).unwrap_or(0)];
        request.extend_from_slice(letters);
        stream.write_all(&request).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        match stream.read_u8().await.map_err(broken)? {
            GO => Ok(()),
            REFUSED => {
                let length = stream.read_u16().await.map_err(broken)?;
                let mut reason = Vec::new();
                let length = usize::from(length).min(MAX_REASON) as u64;
                stream.take(length).read_to_end(&mut reason).await.map_err(broken)?;
                let reason = String::from_utf8_lossy(&reason);
                Err(self.refused(&reason.chars().filter(|it| !it.is_control()).collect::<String>()))
            }
            other => Err(self.refused(&format!("it answers {other}, of a later version"))),
        }
    }

    fn refused(&self, reason: &str) -> Error {
        Error::Refused { volume: self.key().to_string(), reason: reason.to_owned() }
    }

    /// Serves a snapshot to [`Volume::receive`] at the other end of a stream. The snapshot is not pruned meanwhile. It runs beside
    /// all other operations, several times if need be.
    ///
    /// # Errors
    /// [`Error::Missing`], which the other end is told, [`Error::Stream`], and what else may go wrong.
    pub async fn send<S>(&self, id: SnapshotId, mut stream: S) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let broken = |source| Error::Stream { volume: self.key().to_string(), source };
        let (version, length) =
            (stream.read_u8().await.map_err(broken)?, stream.read_u8().await.map_err(broken)?);
        let mut letters = vec![0; length.into()];
        stream.read_exact(&mut letters).await.map_err(broken)?;
        let capabilities = Capabilities::parse(&letters).filter(|_| version == VERSION);
        let ready = match capabilities {
            Some(capabilities) => self.start_sender(id, &capabilities).await,
            None => Err(self.refused("it asks in the way of another version")),
        };
        let (child, ours) = match ready {
            Ok(ready) => ready,
            Err(error) => {
                let mut reason = error.to_string().into_bytes();
                reason.truncate(MAX_REASON);
                let mut answer = vec![REFUSED];
                answer.extend_from_slice(&u16::try_from(reason.len()).unwrap_or(0).to_be_bytes());
                answer.extend_from_slice(&reason);
                stream.write_all(&answer).await.map_err(broken)?;
                stream.shutdown().await.map_err(broken)?;
                return Err(error);
            }
        };
        stream.write_all(&[GO]).await.map_err(broken)?;
        let (from_rsync, to_rsync) = ours.into_split();
        let (joined, finished) =
            tokio::join!(join(stream, from_rsync, to_rsync, |_| {}), child.finish());
        let finished = finished.context("wait for rsync in", self.dir())?;
        joined.map_err(broken)?;
        self.check("rsync", &self.layout().snapshot(id), &finished, &[])
    }

    async fn start_sender(
        &self,
        id: SnapshotId,
        capabilities: &Capabilities,
    ) -> Result<(crate::child::Child, UnixStream), Error> {
        let sending = self.sending(id)?;
        let data = self.layout().data(id);
        let short = format!("-lHogDtpAXrSe{}", capabilities.as_str());
        let arguments = ["--server", "--sender", &short, "--numeric-ids", TIMEOUT, ".", "."];
        let command = Command {
            program: "rsync",
            arguments: arguments.map(Into::into).to_vec(),
            read: vec![data.clone()],
            write: Vec::new(),
            dir: data,
            nice: true,
            connect: false,
        };
        let start = "start rsync in";
        let (ours, theirs) = StdStream::pair().context(start, self.dir())?;
        let output = theirs.try_clone().context(start, self.dir())?;
        let (stdin, stdout) = (OwnedFd::from(theirs), OwnedFd::from(output));
        let child = self.spawn(command, stdin.into(), stdout.into(), sending).await?;
        let ours = socket(ours.into()).context(start, self.dir())?;
        Ok((child, ours))
    }

    /// Keeps a snapshot from being pruned until the result is dropped.
    pub(crate) fn sending(&self, id: SnapshotId) -> Result<Hold, Error> {
        Ok(Arc::new(Sending::begin(self, id)?))
    }

    /// Keeps what an operation that was killed has received, for the next one: never as a snapshot. Blocks.
    pub(crate) fn keep_partial(&self) -> Result<(), Error> {
        let (incoming, partial) = (self.layout().incoming(), self.layout().partial());
        if incoming.exists() {
            if partial.exists() {
                self.discard(&partial)?;
            }
            std::fs::rename(&incoming, &partial).context("rename", &incoming)?;
        }
        tree::remove(&self.layout().garbage())
    }
}

/// A snapshot that is being sent.
struct Sending {
    volume: Volume,
    id: SnapshotId,
}

impl Sending {
    fn begin(volume: &Volume, id: SnapshotId) -> Result<Self, Error> {
        let mut sending = lock(&volume.0.sending);
        if !volume.layout().data(id).is_dir() {
            return Err(volume.missing(format!("snapshot {id}")));
        }
        *sending.entry(id).or_default() += 1;
        Ok(Self { volume: volume.clone(), id })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut sending = lock(&self.volume.0.sending);
        if let Some(count) = sending.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                sending.remove(&self.id);
            }
        }
    }
}

fn socket(descriptor: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = StdStream::from(descriptor);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Copies between a stream and rsync until rsync's output ends. `progress` gets the number of bytes that came from the stream.
async fn join<S>(
    stream: S,
    from_rsync: impl AsyncRead + Unpin + Send,
    mut to_rsync: impl AsyncWrite + Unpin + Send,
    mut progress: impl FnMut(u64) + Send,
) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let incoming = async {
        let (mut buffer, mut total) = (vec![0; CHUNK], 0_u64);
        loop {
            let length = reader.read(&mut buffer).await?;
            if length == 0 {
                break;
            }
            total += length as u64;
            progress(total);
            if to_rsync.write_all(&buffer[..length]).await.is_err() {
                // It has ended, and says why itself.
                break;
            }
        }
        let _ = to_rsync.shutdown().await;
        // The end is that of its output.
        std::future::pending::<std::io::Result<()>>().await
    };
    let outgoing = async {
        let mut from_rsync = BufReader::with_capacity(CHUNK, from_rsync);
        tokio::io::copy_buf(&mut from_rsync, &mut writer).await?;
        writer.shutdown().await
    };
    tokio::select! {
        result = incoming => result,
        result = outgoing => result,
    }
}
