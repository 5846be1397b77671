//! Reading the logs of processes.
//!
//! Processes write to plain files, so lines have no time, and the order between the two outputs is unknown: what exists
//! is read file by file, and what follows in the order in which it is written.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt as _;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use vc_protocol::Slot;
use vc_protocol::control::{LogStream, LostLines};

use super::children::Children;
use super::output::{CHUNK, STDERR, STDOUT, first_data, modified, tail_offset};
use super::procfs::async_fd;
use super::state;
use crate::error::RuntimeError;
use crate::log::{LineSplitter, LogLine, LogLines, LogQuery};

/// How many lines are queued for the reader.
const MAX_QUEUED_LINES: usize = 256;

impl Children {
    pub(super) async fn logs(
        &self,
        slot: &Slot,
        query: LogQuery,
    ) -> Result<LogLines, RuntimeError> {
        let failed = |source| RuntimeError::ReadLogs { slot: slot.clone(), source };
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
        let directory = self.directory(&id);
        // Watched before the first read, so that nothing is missed.
        let changes =
            if query.follow { Some(watch_files(&directory).map_err(failed)?) } else { None };
        let ended = self.running().get(&id).map(|run| run.ended.clone());
        let opened = self.blocking(move |_| {
            let open = |name, stream| OutputReader::open(&directory.join(name), stream, &query);
            Ok([open(STDOUT, LogStream::Stdout)?, open(STDERR, LogStream::Stderr)?])
        });
        let cancelled = || io::Error::other("the node is stopping");
        let outputs = opened.await.unwrap_or_else(|| Err(cancelled())).map_err(failed)?;
        let (to, lines) = mpsc::channel(MAX_QUEUED_LINES);
        tokio::spawn(async move {
            if let Err(error) = send_lines(outputs, changes, ended, &to).await {
                tracing::debug!(instance = %id, %error, "reading the logs of a process failed");
            }
        });
        Ok(ReceiverStream::new(lines).boxed())
    }
}

/// Watches both files for modifications (`inotify(7)`).
fn watch_files(directory: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    for name in [STDOUT, STDERR] {
        inotify::add_watch(&fd, directory.join(name), inotify::WatchFlags::MODIFY)?;
    }
    async_fd(fd)
}

/// Sends the existing lines, then new ones, until the process exits or the reader is gone.
async fn send_lines(
    mut outputs: [OutputReader; 2],
    changes: Option<AsyncFd<OwnedFd>>,
    mut ended: Option<watch::Receiver<bool>>,
    to: &mpsc::Sender<LogLine>,
) -> io::Result<()> {
    loop {
        // Checked before reading, so that everything written before the exit is read.
        let over = ended.as_ref().is_none_or(|ended| *ended.borrow());
        for output in &mut outputs {
            if !output.drain(to).await? {
                return Ok(());
            }
        }
        let (Some(changes), Some(ended), false) = (&changes, &mut ended, over) else { break };
        tokio::select! {
            () = to.closed() => return Ok(()),
            // The process has exited, or the runtime was dropped.
            end = ended.wait_for(|ended| *ended) => {
                if end.is_err() {
                    break;
                }
            }
            ready = changes.readable() => {
                let mut ready = ready?;
                let mut events = [0; 4096];
                while rustix::io::read(changes, &mut events).is_ok_and(|read| read > 0) {}
                ready.clear_ready();
            }
        }
    }
    for output in &mut outputs {
        output.finish(to).await;
    }
    Ok(())
}

/// Reads one of the two files.
struct OutputReader {
    file: Arc<File>,
    stream: LogStream,
    offset: u64,
    lines: LineSplitter,
    /// What rotation has removed before it was read, until the next line.
    lost: Option<LostLines>,
}

impl OutputReader {
    fn open(path: &Path, stream: LogStream, query: &LogQuery) -> io::Result<Self> {
        let file = File::open(path)?;
        let offset = if query.since.is_some_and(|since| modified(&file) < since) {
            file.metadata()?.len()
        } else {
            tail_offset(&file, query.tail)?
        };
        let (file, lines) = (Arc::new(file), LineSplitter::default());
        Ok(Self { file, stream, offset, lines, lost: None })
    }

    /// Sends all complete lines up to the end of the file; false when the reader is gone.
    async fn drain(&mut self, to: &mpsc::Sender<LogLine>) -> io::Result<bool> {
        loop {
            let (file, at) = (Arc::clone(&self.file), self.offset);
            let read = spawn_blocking(move || read(&file, at)).await.map_err(io::Error::other)?;
            let Some((from, bytes)) = read? else { return Ok(true) };
            if from != at {
                let rest = self.lines.reset();
                // From the start of the file nothing was read before, and what is gone was never asked for.
                if at > 0 {
                    let bytes = rest + from.saturating_sub(at);
                    self.lost.get_or_insert_default().add(LostLines { lines: 0, bytes });
                }
            }
            self.offset = from + bytes.len() as u64;
            let (mut ready, stream) = (Vec::new(), self.stream);
            self.lines.push(&bytes, None, |time, line| {
                let lost = self.lost.take();
                ready.push(LogLine { lost, ..LogLine::new(time, stream, line) });
            });
            for line in ready {
                if to.send(line).await.is_err() {
                    return Ok(false);
                }
            }
        }
    }

    async fn finish(&mut self, to: &mpsc::Sender<LogLine>) {
        let (mut ready, stream) = (Vec::new(), self.stream);
        mem::take(&mut self.lines)
            .finish(|time, line| ready.push(LogLine::new(time, stream, line)));
        for line in ready {
            let _ = to.send(line).await; // the reader is gone
        }
    }
}

/// Reads bytes at or after an offset, and returns their offset: a later one after a hole that rotation has made, and
/// the start where it truncated the file. `None` at the end.
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

/// Returns the offset of the first complete line after an offset.
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
