//! A stream of a connection: the end that the application holds, and the pipe to the task that drives the connection.
//!
//! A pipe holds a bounded number of bytes each way. Towards the peer it is filled with ready messages, which the task hands to
//! SCTP as the peer takes them; towards the application it is filled by the task, which leaves what does not fit in SCTP's
//! receive window, so that a reader that does not read stops the peer instead of filling this node's memory. (That window is
//! one for the whole connection: a stream that is never read ends up stopping the others, so whoever multiplexes over several
//! streams has to read them all. Our client has one long-lived stream.)

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes, BytesMut};
use futures::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use crate::message::{self, HEADER};

/// How much an application may write before the peer takes it, in bytes (beside what SCTP holds).
const SEND_BUFFER: usize = 256 * 1024;

/// How much is read ahead of the application, in bytes.
pub(crate) const RECEIVE_BUFFER: usize = 256 * 1024;

/// A bidirectional stream: one data channel.
///
/// Closing it tells the peer that nothing more comes; the other direction goes on. Dropping it unclosed resets it, unless the
/// peer has closed its direction: then this one is closed as well.
#[derive(Debug)]
pub struct Stream(Arc<Pipe>);

/// What lies between a [`Stream`] and the task of its connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    id: u16,
    attention: Arc<Attention>,
    ends: Mutex<Ends>,
}

/// Which streams of a connection want something of its task. Each of them is in the list at most once.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    streams: Mutex<Vec<u16>>,
    wake: Notify,
}

#[derive(Debug)]
struct Ends {
    /// Messages for the peer, all but the last one full.
    frames: VecDeque<Frame>,
    frames_bytes: usize,
    /// How long the data of a message is at most.
    frame_size: usize,
    writer: Option<Waker>,
    write: Write,

    /// Copied, so that the bytes counted are the bytes held: a slice would keep the whole message.
    received: BytesMut,
    /// The task has left something unread because there was no room.
    starved: bool,
    reader: Option<Waker>,
    read: Read,

    dropped: bool,
    /// Whether the stream is on the list of those that want something.
    listed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    Open,
    /// The application closed: a FIN comes behind the frames.
    Closed,
    /// The peer reads no more, or the stream is no more.
    Broken(io::ErrorKind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Open,
    /// The peer sent its last byte.
    Finished,
    Broken(io::ErrorKind),
}

/// A message under construction: room for the header, then data.
#[derive(Debug)]
struct Frame(BytesMut);

/// What a stream's application wants the peer to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// Nothing more will be written: all frames were taken, so a FIN is due.
    pub finished: bool,
    /// The application's end is gone.
    pub dropped: bool,
    /// Frames wait, with an end to come behind them.
    pub pending: bool,
}

impl Frame {
    fn new(size: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(HEADER + size);
        bytes.resize(HEADER, 0);
        Self(bytes)
    }

    fn len(&self) -> usize {
        self.0.len() - HEADER
    }

    fn seal(mut self) -> Bytes {
        let mut space = [0; HEADER];
        let unused = message::header(&mut space, self.len());
        self.0[..HEADER].copy_from_slice(&space);
        self.0.advance(unused);
        self.0.freeze()
    }
}

impl Attention {
    /// Waits until a stream wants something.
    pub(crate) async fn wanted(&self) {
        self.wake.notified().await;
    }

    /// The streams that wanted something since the last call.
    pub(crate) fn take(&self, into: &mut Vec<u16>) {
        into.append(&mut lock(&self.streams));
    }

    fn list(&self, id: u16) {
        lock(&self.streams).push(id);
        self.wake.notify_one();
    }
}

/// A panic while such a lock is held can leave nothing half done that would matter: the fields are independent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream for the application, and its pipe for the task. `frame_size`: how long the data of a message is at most.
pub(crate) fn stream(
    id: u16,
    attention: &Arc<Attention>,
    frame_size: usize,
) -> (Stream, Arc<Pipe>) {
    let ends = Ends {
        frames: VecDeque::new(),
        frames_bytes: 0,
        frame_size,
        writer: None,
        write: Write::Open,
        received: BytesMut::new(),
        starved: false,
        reader: None,
        read: Read::Open,
        dropped: false,
        listed: false,
    };
    let pipe = Arc::new(Pipe { id, attention: attention.clone(), ends: Mutex::new(ends) });
    (Stream(pipe.clone()), pipe)
}

impl Pipe {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        lock(&self.ends)
    }

    /// Tells the task to look at this stream.
    fn list(&self, ends: &mut Ends) {
        if !std::mem::replace(&mut ends.listed, true) {
            self.attention.list(self.id);
        }
    }

    /// The task is about to look: from now on the next wish lists the stream again. (Afterwards would be too late for what is
    /// written while it looks.)
    pub(crate) fn unlist(&self) {
        self.ends().listed = false;
    }

    /// What the application wants now.
    pub(crate) fn wishes(&self) -> Wishes {
        let ends = self.ends();
        let closed = ends.write == Write::Closed;
        Wishes {
            finished: closed && ends.frames.is_empty(),
            dropped: ends.dropped,
            pending: closed && !ends.frames.is_empty(),
        }
    }

    /// The next message for the peer.
    pub(crate) fn next_frame(&self) -> Option<Bytes> {
        let mut ends = self.ends();
        let frame = ends.frames.pop_front()?;
        ends.frames_bytes -= frame.len();
        if (ends.frames_bytes <= SEND_BUFFER / 2 || ends.frames.is_empty())
            && let Some(writer) = ends.writer.take()
        {
            writer.wake();
        }
        Some(frame.seal())
    }

    /// Whether there is room for more of what the peer sent. If not, the stream is listed when there is.
    pub(crate) fn has_room(&self) -> bool {
        let mut ends = self.ends();
        ends.starved = ends.received.len() >= RECEIVE_BUFFER && !ends.dropped;
        !ends.starved
    }

    /// Data from the peer.
    pub(crate) fn receive(&self, data: &[u8]) {
        let mut ends = self.ends();
        if ends.read == Read::Open && !ends.dropped && !data.is_empty() {
            ends.received.extend_from_slice(data);
            wake(&mut ends.reader);
        }
    }

    /// The peer sent all that it had.
    pub(crate) fn finish_read(&self) {
        let mut ends = self.ends();
        if ends.read == Read::Open {
            ends.read = Read::Finished;
            wake(&mut ends.reader);
        }
    }

    /// The peer reads no more.
    pub(crate) fn stop_write(&self) {
        self.ends().break_write(io::ErrorKind::BrokenPipe);
    }

    /// Neither side can use the stream any more. What was received and not read is lost, unless the peer had finished.
    pub(crate) fn break_off(&self, why: io::ErrorKind) {
        let mut ends = self.ends();
        ends.break_write(why);
        if ends.read == Read::Open {
            ends.read = Read::Broken(why);
            ends.received = BytesMut::new();
            wake(&mut ends.reader);
        }
    }
}

impl Ends {
    fn break_write(&mut self, why: io::ErrorKind) {
        if self.write == Write::Open || (self.write == Write::Closed && !self.frames.is_empty()) {
            self.write = Write::Broken(why);
        }
        self.frames.clear();
        self.frames_bytes = 0;
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Keeps the waker of a task that has to wait.
fn wait(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(known) => known.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut ends = self.0.ends();
        let read = ends.received.len().min(buffer.len());
        ends.received.copy_to_slice(&mut buffer[..read]);
        if ends.received.is_empty() {
            ends.received = BytesMut::new();
        }
        if ends.starved && ends.received.len() <= RECEIVE_BUFFER / 2 {
            ends.starved = false;
            self.0.list(&mut ends);
        }
        if read > 0 || buffer.is_empty() {
            return Poll::Ready(Ok(read));
        }
        match ends.read {
            Read::Open => {
                wait(&mut ends.reader, cx);
                Poll::Pending
            }
            Read::Finished => Poll::Ready(Ok(0)),
            Read::Broken(why) => Poll::Ready(Err(why.into())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut ends = self.0.ends();
        match ends.write {
            Write::Open => {}
            Write::Closed => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Write::Broken(why) => return Poll::Ready(Err(why.into())),
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = SEND_BUFFER.saturating_sub(ends.frames_bytes);
        if room == 0 {
            wait(&mut ends.writer, cx);
            return Poll::Pending;
        }
        data = &data[..data.len().min(room)];
        let written = data.len();
        let size = ends.frame_size;
        while !data.is_empty() {
            if ends.frames.back().is_none_or(|frame| frame.len() >= size) {
                ends.frames.push_back(Frame::new(size.min(data.len().max(1024))));
            }
            if let Some(frame) = ends.frames.back_mut() {
                let (now, later) = data.split_at(data.len().min(size - frame.len()));
                frame.0.extend_from_slice(now);
                data = later;
            }
        }
        ends.frames_bytes += written;
        self.0.list(&mut ends);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ends = self.0.ends();
        if let Write::Broken(why) = ends.write {
            return Poll::Ready(Err(why.into()));
        }
        if ends.frames.is_empty() {
            return Poll::Ready(Ok(()));
        }
        wait(&mut ends.writer, cx);
        Poll::Pending
    }

    /// Ready once all that was written, and the news that it was the last, are SCTP's to deliver. The task keeps the channel
    /// until the peer has acknowledged them.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ends = self.0.ends();
        match ends.write {
            Write::Broken(why) => return Poll::Ready(Err(why.into())),
            Write::Open => {
                ends.write = Write::Closed;
                self.0.list(&mut ends);
            }
            Write::Closed => {}
        }
        if ends.frames.is_empty() {
            return Poll::Ready(Ok(()));
        }
        wait(&mut ends.writer, cx);
        Poll::Pending
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut ends = self.0.ends();
        ends.dropped = true;
        ends.received = BytesMut::new();
        if ends.write == Write::Open && ends.read == Read::Finished {
            ends.write = Write::Closed;
        } else if ends.write == Write::Open {
            ends.frames.clear();
            ends.frames_bytes = 0;
        }
        self.0.list(&mut ends);
    }
}

#[cfg(test)]
mod tests;
