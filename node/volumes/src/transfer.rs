//! Copying a snapshot from another node over a stream.
//!
//! The receiver is rsync's client, the sender its server. Before rsync's own protocol, on the stream, with numbers in big endian:
//!
//! - receiver: the version (one byte, 1), and its newest snapshot: epoch and number (8 bytes each), zeros if it has none
//! - sender: 0 if it sends everything; 2 if it sends what has changed since that snapshot, with two lists of paths, the changed and the
//!   removed ones, each with its length (4 bytes); or 1, the length of a text (2 bytes), the text: why there is nothing
//! - receiver: the number of letters (one byte), the letters of [`Capabilities`]
//! - sender: 0, or 1 as above; then rsync
//!
//! The sender makes the arguments and the list of its rsync itself.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use vc_protocol::volume::SnapshotId;

use crate::capabilities::Capabilities;
use crate::changes::{Changes, Remove};
use crate::child::{Command, Hold};
use crate::error::{Context as _, Error};
use crate::layout;
use crate::listing::{self, Listing};
use crate::manifest::Manifest;
use crate::rsync::{option, options, slash};
use crate::snapshot::{MAX_LIST, write_lists};
use crate::tree;
use crate::volume::{Volume, lock, read_manifest};

/// Version of what is sent before rsync's protocol.
const VERSION: u8 = 1;
const GO: u8 = 0;
const REFUSED: u8 = 1;
const CHANGED: u8 = 2;
/// The most snapshots between that of the receiver and that which is sent.
const MAX_STEPS: usize = 32;
/// The longest text of a refusal that is read.
const MAX_REASON: usize = 1024;
/// After this time without a byte rsync gives up.
const TIMEOUT: &str = "--timeout=120";
/// Bytes that are copied at once.
const CHUNK: usize = 128 * 1024;
/// Numbers the files with lists of what is sent.
static NUMBER: AtomicU64 = AtomicU64::new(0);

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
        self.require("rsync").await?;
        let held = self.blocking(Arc::clone(hold), |this| this.newest()).await?;
        let newest = held.as_ref().map(|it| it.id);
        if let Some(newest) = newest.filter(|newest| *newest >= id) {
            return Err(Error::NotNewer { volume: self.key().to_string(), id, newest });
        }
        // In a snapshot, and in the working directory. What a transfer that broke off had copied is there already.
        let (all, before) = (manifest.room(), held.map_or(0, |it| it.room()));
        self.blocking(Arc::clone(hold), move |this| {
            let partial = layout::data(&this.layout().partial());
            let there = before.saturating_mul(2).saturating_add(tree::allocated_below(&partial)?);
            this.require_room(all.saturating_mul(2).saturating_sub(there))
        })
        .await?;

        // Copies instead of links, if links led to another tree last time.
        let distrust = self.0.distrust.load(Ordering::Relaxed);
        let changes = self.ask(&mut stream, newest.filter(|_| !distrust)).await?;
        let base = newest.filter(|_| changes.is_some());
        self.blocking(Arc::clone(hold), move |this| match (base, changes) {
            (Some(base), Some(changes)) => {
                this.prepare_staging()?;
                this.stage_links(base)?;
                changes.remove_from(&layout::data(&this.layout().incoming()), Remove::All)?;
                write_lists(&this.layout().incoming(), &changes)
            }
            _ => {
                this.keep_partial()?;
                tree::remove(&this.layout().garbage())?;
                tree::create(&layout::data(&this.layout().incoming()))
            }
        })
        .await?;

        let incoming = layout::data(&self.layout().incoming());
        let mut arguments = options();
        let mut write = vec![incoming.clone()];
        if base.is_some() {
            // The sender has the list.
            arguments.extend(["--from0".into(), "--files-from=:list".into()]);
        }
        // What is equal there is not copied, and of what is similar the differences are.
        let partial = layout::data(&self.layout().partial());
        let known = newest.map(|newest| self.layout().data(newest));
        for dir in known.into_iter().chain(partial.exists().then_some(partial)) {
            arguments.push(option(if distrust { "--copy-dest=" } else { "--link-dest=" }, &dir));
            write.push(dir);
        }
        arguments.extend([TIMEOUT.into(), "--partial".into(), "peer:.".into(), slash(&incoming)]);
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
        self.start(&mut stream, &connection.capabilities).await?;
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
            let Listing { files, bytes, digest, .. } = &found;
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
        .await?;
        self.prepare_standby(id, Arc::clone(hold));
        Ok(())
    }

    /// Says what is here. Returns what has changed since, if the sender knows that.
    async fn ask<S>(
        &self,
        stream: &mut S,
        newest: Option<SnapshotId>,
    ) -> Result<Option<Changes>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let broken = |source| Error::Stream { volume: self.key().to_string(), source };
        let newest = newest.unwrap_or(SnapshotId { epoch: 0, number: 0 });
        let mut request = vec![VERSION];
        request.extend_from_slice(&newest.epoch.to_be_bytes());
        request.extend_from_slice(&newest.number.to_be_bytes());
        stream.write_all(&request).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        if self.answer(stream).await? == GO {
            return Ok(None);
        }
        let changed = read_list(stream).await.map_err(broken)?;
        let removed = read_list(stream).await.map_err(broken)?;
        let changes = Changes::parse(&changed, &removed);
        changes.map(Some).ok_or_else(|| self.refused("it sends a malformed list of changes"))
    }

    /// Has the other end start its rsync.
    async fn start<S>(&self, stream: &mut S, capabilities: &Capabilities) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let broken = |source| Error::Stream { volume: self.key().to_string(), source };
        let letters = capabilities.as_str().as_bytes();
        // At most 64 of them.
        let mut request = vec![u8::try_from(letters.len()).unwrap_or(0)];
        request.extend_from_slice(letters);
        stream.write_all(&request).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        match self.answer(stream).await? {
            GO => Ok(()),
            other => Err(self.refused(&format!("it answers {other}, of a later version"))),
        }
    }

    /// Reads whether the sender goes on.
    async fn answer<S>(&self, stream: &mut S) -> Result<u8, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let broken = |source| Error::Stream { volume: self.key().to_string(), source };
        match stream.read_u8().await.map_err(broken)? {
            answer @ (GO | CHANGED) => Ok(answer),
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
        let version = stream.read_u8().await.map_err(broken)?;
        let epoch = stream.read_u64().await.map_err(broken)?;
        let number = stream.read_u64().await.map_err(broken)?;
        if version != VERSION {
            return self
                .refuse(stream, self.refused("it asks in the way of another version"))
                .await;
        }
        let sending = match Sending::begin(self, id) {
            Ok(sending) => Arc::new(sending),
            Err(error) => return self.refuse(stream, error).await,
        };
        let base = SnapshotId { epoch, number };
        let changes = self
            .blocking(Arc::clone(&sending) as Hold, move |this| Ok(this.changes_since(base, id)))
            .await?;
        let (mut answer, mut list) = (vec![GO], None);
        if let Some(changes) = changes {
            let dir = self.layout().sending();
            let path = dir.join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
            *lock(&sending.list) = Some(path.clone());
            answer = vec![CHANGED];
            for list in &changes.lists() {
                // At most `MAX_LIST`.
                answer.extend_from_slice(&u32::try_from(list.len()).unwrap_or(0).to_be_bytes());
                answer.extend_from_slice(list);
            }
            list = Some(path.clone());
            self.blocking(Arc::clone(&sending) as Hold, move |_| {
                tree::create(&dir)?;
                std::fs::write(&path, changes.files_from()).context("write", &path)
            })
            .await?;
        }
        stream.write_all(&answer).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;

        let length = stream.read_u8().await.map_err(broken)?;
        let mut letters = vec![0; length.into()];
        stream.read_exact(&mut letters).await.map_err(broken)?;
        let started = match Capabilities::parse(&letters) {
            Some(capabilities) => self.start_sender(id, &capabilities, list, sending).await,
            None => Err(self.refused("its rsync has unknown capabilities")),
        };
        let (child, ours) = match started {
            Ok(started) => started,
            Err(error) => return self.refuse(stream, error).await,
        };
        stream.write_all(&[GO]).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        let (from_rsync, to_rsync) = ours.into_split();
        let (joined, finished) =
            tokio::join!(join(stream, from_rsync, to_rsync, |_| {}), child.finish());
        let finished = finished.context("wait for rsync in", self.dir())?;
        joined.map_err(broken)?;
        self.check("rsync", &self.layout().snapshot(id), &finished, &[])
    }

    /// Tells the other end why there is nothing.
    async fn refuse<S>(&self, mut stream: S, error: Error) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let mut reason = error.to_string().into_bytes();
        reason.truncate(MAX_REASON);
        let mut answer = vec![REFUSED];
        answer.extend_from_slice(&u16::try_from(reason.len()).unwrap_or(0).to_be_bytes());
        answer.extend_from_slice(&reason);
        // It may have gone; the error is the same.
        if stream.write_all(&answer).await.is_ok() {
            let _ = stream.shutdown().await;
        }
        Err(error)
    }

    /// Returns what has changed between two snapshots, if it is known. Blocks.
    fn changes_since(&self, base: SnapshotId, id: SnapshotId) -> Option<Changes> {
        let (mut all, mut at, mut bytes) = (Changes::default(), id, 0);
        for _ in 0..MAX_STEPS {
            let snapshot = self.layout().snapshot(at);
            let [changed, removed] = layout::lists(&snapshot);
            let lists = (std::fs::read(changed).ok()?, std::fs::read(removed).ok()?);
            bytes += lists.0.len() + lists.1.len();
            if bytes > MAX_LIST {
                return None;
            }
            all.extend(Changes::parse(&lists.0, &lists.1)?);
            at = read_manifest(&snapshot).ok()??.parent?;
            if at == base {
                // What was changed first may have been removed later.
                all.settle(&self.layout().data(id));
                return Some(all);
            }
        }
        None
    }

    async fn start_sender(
        &self,
        id: SnapshotId,
        capabilities: &Capabilities,
        list: Option<PathBuf>,
        sending: Hold,
    ) -> Result<(crate::child::Child, UnixStream), Error> {
        let data = self.layout().data(id);
        // As rsync's client has it: relative names with a list, recursion without.
        let short = if list.is_some() { "-lHogDtpAXRSe" } else { "-lHogDtpAXrSe" };
        let short = format!("{short}{}", capabilities.as_str());
        let arguments = ["--server", "--sender", &short, "--numeric-ids", TIMEOUT];
        let mut arguments: Vec<OsString> = arguments.map(Into::into).to_vec();
        if let Some(list) = &list {
            arguments.extend(["--from0".into(), option("--files-from=", list)]);
        }
        arguments.extend([".".into(), ".".into()]);
        let command = Command {
            program: "rsync",
            arguments,
            read: [data.clone()].into_iter().chain(list).collect(),
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
        Ok(())
    }
}

/// A snapshot that is being sent.
struct Sending {
    volume: Volume,
    id: SnapshotId,
    /// A file of its own.
    list: Mutex<Option<PathBuf>>,
}

impl Sending {
    fn begin(volume: &Volume, id: SnapshotId) -> Result<Self, Error> {
        let mut sending = lock(&volume.0.sending);
        if !volume.layout().data(id).is_dir() {
            return Err(volume.missing(format!("snapshot {id}")));
        }
        *sending.entry(id).or_default() += 1;
        Ok(Self { volume: volume.clone(), id, list: Mutex::default() })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(list) = lock(&self.list).take() {
            let _ = std::fs::remove_file(list);
        }
        let mut sending = lock(&self.volume.0.sending);
        if let Some(count) = sending.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                sending.remove(&self.id);
            }
        }
    }
}

/// Reads a list of paths with its length.
async fn read_list(stream: &mut (impl AsyncRead + Unpin + Send)) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u32().await? as usize;
    if length > MAX_LIST {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "a list is too long"));
    }
    let mut list = Vec::new();
    stream.take(length as u64).read_to_end(&mut list).await?;
    Ok(list)
}

fn socket(descriptor: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = StdStream::from(descriptor);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Copies between a stream and rsync until rsync's output ends. `progress` gets the number of bytes that came from the stream.
async fn join<S>(
    stream: S,
    mut from_rsync: impl AsyncRead + Unpin + Send,
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
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = from_rsync.read(&mut buffer).await?;
            if length == 0 {
                return writer.shutdown().await;
            }
            writer.write_all(&buffer[..length]).await?;
            // The other end waits for it, and there may be no more for a while.
            writer.flush().await?;
        }
    };
    tokio::select! {
        result = incoming => result,
        result = outgoing => result,
    }
}
