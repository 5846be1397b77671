//! What processes wrote.
//!
//! They write to plain files, so no line has a time, and how the two outputs interleaved is not known: what is there is
//! given output by output; what comes while following, as it comes.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use futures::StreamExt as _;
use rustix::fs::{SeekFrom, inotify};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use vc_protocol::{Millis, Slot};

use super::procfs::awaitable;
use super::{Children, state};
use crate::lines::Lines;
use crate::text::{LAST_LINES, on_one_line};
use crate::{LogLine, LogLines, LogQuery, LogStream, RuntimeError};

/// The file of the standard output, in the instance's directory.
pub(super) const STDOUT: &str = "stdout";
/// The file of the standard error.
pub(super) const STDERR: &str = "stderr";

/// How many lines may wait for the reader.
const LINES: usize = 256;
/// How much is read at a time.
const CHUNK: usize = 64 * 1024;
/// A file's time may be so many milliseconds behind the clock: the kernel takes it from its last tick.
const COARSE: Millis = 20;

impl Children {
    pub(super) async fn logs(
        &self,
        slot: &Slot,
        query: LogQuery,
    ) -> Result<LogLines, RuntimeError> {
        let failed = |source| RuntimeError::Read { slot: slot.clone(), source };
        let (wanted, digest) = (slot.clone(), query.digest.clone());
        let found = self.blocking(move |this| {
            let states = state::scan(&this.dir).into_iter().filter(|state| {
                let id = state.id();
                id.slot == wanted && digest.as_ref().is_none_or(|digest| *digest == id.digest)
            });
            let running = this.running();
            states
                .max_by_key(|state| (running.contains_key(&state.id()), state.started))
                .map(|state| state.id())
        });
        let id = found.await.flatten().ok_or_else(|| RuntimeError::NoInstance(slot.clone()))?;
        let home = self.home(&id);
        // Before the first read, so that nothing is missed.
        let growth = if query.follow { Some(growth(&home).map_err(failed)?) } else { None };
        let ended = self.running().get(&id).map(|run| run.ended.clone());
        let opened = self.blocking(move |_| {
            let open = |name, stream| Output::open(&home.join(name), stream, &query);
            Ok([open(STDOUT, LogStream::Stdout)?, open(STDERR, LogStream::Stderr)?])
        });
        let cancelled = || io::Error::other("the node is ending");
        let outputs = opened.await.unwrap_or_else(|| Err(cancelled())).map_err(failed)?;
        let (to, lines) = mpsc::channel(LINES);
        tokio::spawn(async move {
            if let Err(error) = pump(outputs, growth, ended, &to).await {
                tracing::debug!(instance = %id, %error, "the logs of a process broke off");
            }
        });
        Ok(ReceiverStream::new(lines).boxed())
    }
}

/// The last lines that a process wrote since it started, on one line: what it complained of, else what it said.
pub(super) fn last_words(home: &Path, started: Millis) -> String {
    let of = |name| {
        let file =
            File::open(home.join(name)).ok().filter(|file| written(file) + COARSE >= started)?;
        let from = beginning(&file, Some(LAST_LINES)).ok()?;
        let end = file.metadata().ok()?.len();
        let length = end.saturating_sub(from).min(CHUNK as u64);
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        file.read_exact_at(&mut bytes, end - length).ok()?;
        let words = on_one_line(String::from_utf8_lossy(&bytes).lines());
        Some(words).filter(|words| !words.is_empty())
    };
    of(STDERR).or_else(|| of(STDOUT)).unwrap_or_default()
}

/// Tells when one of the files grows.
fn growth(home: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    for name in [STDOUT, STDERR] {
        inotify::add_watch(&fd, home.join(name), inotify::WatchFlags::MODIFY)?;
    }
    awaitable(fd)
}

/// Sends what is there, then what comes, until the process has ended or nobody listens.
async fn pump(
    mut outputs: [Output; 2],
    growth: Option<AsyncFd<OwnedFd>>,
    mut ended: Option<watch::Receiver<bool>>,
    to: &mpsc::Sender<LogLine>,
) -> io::Result<()> {
    loop {
        // Looked up before the read: what was written before the end is read then.
        let over = ended.as_ref().is_none_or(|ended| *ended.borrow());
        for output in &mut outputs {
            if !output.drain(to).await? {
                return Ok(());
            }
        }
        let (Some(growth), Some(ended), false) = (&growth, &mut ended, over) else { break };
        tokio::select! {
            () = to.closed() => return Ok(()),
            // Its end, or that of the runtime.
            end = ended.wait_for(|ended| *ended) => {
                if end.is_err() {
                    break;
                }
            }
            ready = growth.readable() => {
                let mut ready = ready?;
                let mut events = [0; 4096];
                while rustix::io::read(growth, &mut events).is_ok_and(|read| read > 0) {}
                ready.clear_ready();
            }
        }
    }
    for output in &mut outputs {
        output.finish(to).await;
    }
    Ok(())
}

/// One of the two files, and how far it was read.
struct Output {
    file: Arc<File>,
    stream: LogStream,
    at: u64,
    lines: Lines,
}

impl Output {
    fn open(path: &Path, stream: LogStream, query: &LogQuery) -> io::Result<Self> {
        let file = File::open(path)?;
        let at = if query.since.is_some_and(|since| written(&file) < since) {
            file.metadata()?.len()
        } else {
            beginning(&file, query.tail)?
        };
        Ok(Self { file: Arc::new(file), stream, at, lines: Lines::default() })
    }

    /// Sends all whole lines up to the end; false: nobody takes them.
    async fn drain(&mut self, to: &mpsc::Sender<LogLine>) -> io::Result<bool> {
        loop {
            let (file, at) = (Arc::clone(&self.file), self.at);
            let read = spawn_blocking(move || read(&file, at)).await.map_err(io::Error::other)?;
            let Some((from, bytes)) = read? else { return Ok(true) };
            if from != at {
                self.lines.forget();
            }
            self.at = from + bytes.len() as u64;
            let (mut ready, stream) = (Vec::new(), self.stream);
            self.lines.push(&bytes, None, |time, line| ready.push(LogLine { time, stream, line }));
            for line in ready {
                if to.send(line).await.is_err() {
                    return Ok(false);
                }
            }
        }
    }

    async fn finish(&mut self, to: &mpsc::Sender<LogLine>) {
        let (mut ready, stream) = (Vec::new(), self.stream);
        mem::take(&mut self.lines).finish(|time, line| ready.push(LogLine { time, stream, line }));
        for line in ready {
            let _ = to.send(line).await; // Nobody takes it: nobody misses it.
        }
    }
}

/// When a file was last written.
fn written(file: &File) -> Millis {
    let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
    let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

/// The bytes at or after an offset, and where they are: further on, where a trim has made a hole; at the beginning, where
/// it truncated the file. `None`: at the end.
fn read(file: &File, at: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let len = file.metadata()?.len();
    let mut at = if at > len { 0 } else { at };
    if at == len {
        return Ok(None);
    }
    let data = first_data(file, at)?;
    if data > at {
        match after_newline(file, data, len)? {
            Some(line) => at = line,
            None => return Ok(None),
        }
    }
    let mut bytes = vec![0; CHUNK];
    let count = file.read_at(&mut bytes, at)?;
    bytes.truncate(count);
    Ok((count > 0).then_some((at, bytes)))
}

/// The first offset at or after one that is not in a hole.
fn first_data(file: &File, at: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(data),
        Err(rustix::io::Errno::NXIO) => Ok(file.metadata()?.len()),
        Err(rustix::io::Errno::INVAL) => Ok(at), // A filesystem without holes.
        Err(error) => Err(error.into()),
    }
}

/// The beginning of the first whole line after an offset.
fn after_newline(file: &File, mut at: u64, len: u64) -> io::Result<Option<u64>> {
    let mut bytes = vec![0; CHUNK];
    while at < len {
        let count = file.read_at(&mut bytes, at)?;
        if count == 0 {
            break;
        }
        if let Some(found) = bytes[..count].iter().position(|&b| b == b'\n') {
            return Ok(Some(at + found as u64 + 1));
        }
        at += count as u64;
    }
    Ok(None)
}

/// Where the last `tail` lines begin, or all that is kept.
fn beginning(file: &File, tail: Option<u32>) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let first = first_data(file, 0)?;
    let Some(tail) = tail else { return Ok(0) };
    if tail == 0 {
        return Ok(len);
    }
    let mut bytes = vec![0; CHUNK];
    let (mut end, mut found) = (len, 0_u32);
    while end > first {
        let start = end.saturating_sub(CHUNK as u64).max(first);
        let block = &mut bytes[..usize::try_from(end - start).unwrap_or(CHUNK)];
        file.read_exact_at(block, start)?;
        for (offset, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let line = start + offset as u64 + 1;
            // The newline at the very end begins no line.
            if line == len {
                continue;
            }
            found += 1;
            if found == tail {
                return Ok(line);
            }
        }
        end = start;
    }
    Ok(0)
}
