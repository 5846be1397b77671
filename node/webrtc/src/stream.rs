//! A stream of a connection: the half that the application holds, and the pipe to the task that drives the connection.
//!
//! A pipe buffers a bounded number of bytes in each direction. Outbound bytes are framed at once; the task hands frames to SCTP as
//! the congestion window allows. Inbound bytes that do not fit stay in SCTP's receive window, so a slow reader slows the peer down
//! (backpressure) instead of growing this node's memory. That window is shared by the connection: a stream that is never read eventually blocks
//! the others, so an application that multiplexes over several streams must read all of them. Browsers use one long-lived stream.

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

/// Bytes that an application can write ahead of SCTP, per stream.
const SEND_BUFFER: usize = 256 * 1024;

/// Bytes that the task reads from SCTP ahead of the application, per stream.
pub(crate) const RECEIVE_BUFFER: usize = 256 * 1024;

/// A bidirectional stream: one WebRTC data channel.
///
/// Closing it finishes the write direction; the read direction stays open. Dropping it unclosed resets it, unless the peer has
/// finished its write direction: then this one is finished as well.
#[derive(Debug)]
pub struct Stream(Arc<Pipe>);

/// The buffers shared by a [`Stream`] and the task of its connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    id: u16,
    readiness: Arc<Readiness>,
    state: Mutex<PipeState>,
}

/// The streams of a connection that need service by its task, each listed at most once.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    streams: Mutex<Vec<u16>>,
    wake: Notify,
}

#[derive(Debug)]
struct PipeState {
    /// Frames to send, all but the last one full.
    frames: VecDeque<OutboundFrame>,
    frames_bytes: usize,
    /// Maximum bytes of data in a frame.
    frame_size: usize,
    writer: Option<Waker>,
    write: Write,

    /// Copied out of the frame, so that the bytes counted are the bytes held: a slice would keep the whole frame alive.
    received: BytesMut,
    /// The task left data in SCTP because this buffer was full.
    read_blocked: bool,
    reader: Option<Waker>,
    read: Read,

    dropped: bool,
    /// Whether the stream is listed in [`Readiness`].
    listed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    Open,
    /// The application closed: a FIN follows the queued frames.
    Closed,
    /// The peer stopped reading, or the stream was reset.
    Failed(io::ErrorKind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Open,
    /// The peer finished writing.
    Finished,
    Failed(io::ErrorKind),
}

/// A frame under construction: space for the header, then data.
#[derive(Debug)]
struct OutboundFrame(BytesMut);

/// How far the application's half of a stream is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocalHalf {
    /// Closed and all frames taken: a FIN is due.
    pub fin_due: bool,
    /// The application dropped the stream.
    pub dropped: bool,
    /// Closed, with frames still queued.
    pub draining: bool,
}

impl OutboundFrame {
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
        let unused = message::write_header(&mut space, self.len());
        self.0[..HEADER].copy_from_slice(&space);
        self.0.advance(unused);
        self.0.freeze()
    }
}

impl Readiness {
    /// Waits until a stream needs service.
    pub(crate) async fn notified(&self) {
        self.wake.notified().await;
    }

    /// Returns the streams listed since the last call and clears the list.
    pub(crate) fn take(&self) -> Vec<u16> {
        std::mem::take(&mut lock(&self.streams))
    }

    fn push(&self, id: u16) {
        lock(&self.streams).push(id);
        self.wake.notify_one();
    }
}

/// Locks, ignoring poisoning: no invariant spans several fields.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Creates a stream for the application and its pipe for the task. `frame_size`: maximum bytes of data in a frame.
pub(crate) fn stream(
    id: u16,
    readiness: &Arc<Readiness>,
    frame_size: usize,
) -> (Stream, Arc<Pipe>) {
    let state = PipeState {
        frames: VecDeque::new(),
        frames_bytes: 0,
        frame_size,
        writer: None,
        write: Write::Open,
        received: BytesMut::new(),
        read_blocked: false,
        reader: None,
        read: Read::Open,
        dropped: false,
        listed: false,
    };
    let pipe = Arc::new(Pipe { id, readiness: readiness.clone(), state: Mutex::new(state) });
    (Stream(pipe.clone()), pipe)
}

impl Pipe {
    fn state(&self) -> MutexGuard<'_, PipeState> {
        lock(&self.state)
    }

    /// Lists this stream for service.
    fn mark_ready(&self, state: &mut PipeState) {
        if !std::mem::replace(&mut state.listed, true) {
            self.readiness.push(self.id);
        }
    }

    /// Called by the task before it services the stream, so that a write during the service lists the stream again.
    pub(crate) fn clear_ready(&self) {
        self.state().listed = false;
    }

    /// Returns how far the application's half is closed.
    pub(crate) fn local_half(&self) -> LocalHalf {
        let state = self.state();
        let closed = state.write == Write::Closed;
        LocalHalf {
            fin_due: closed && state.frames.is_empty(),
            dropped: state.dropped,
            draining: closed && !state.frames.is_empty(),
        }
    }

    /// Takes the next frame to send.
    pub(crate) fn next_frame(&self) -> Option<Bytes> {
        let mut state = self.state();
        let frame = state.frames.pop_front()?;
        state.frames_bytes -= frame.len();
        if (state.frames_bytes <= SEND_BUFFER / 2 || state.frames.is_empty())
            && let Some(writer) = state.writer.take()
        {
            writer.wake();
        }
        Some(frame.seal())
    }

    /// Returns whether the read buffer has capacity. If not, the stream is listed when the application has read half of it.
    pub(crate) fn has_capacity(&self) -> bool {
        let mut state = self.state();
        state.read_blocked = state.received.len() >= RECEIVE_BUFFER && !state.dropped;
        !state.read_blocked
    }

    /// Buffers data from the peer.
    pub(crate) fn push_data(&self, data: &[u8]) {
        let mut state = self.state();
        if state.read == Read::Open && !state.dropped && !data.is_empty() {
            state.received.extend_from_slice(data);
            wake(&mut state.reader);
        }
    }

    /// Ends the read direction after the buffered data: the peer sent FIN.
    pub(crate) fn finish_read(&self) {
        let mut state = self.state();
        if state.read == Read::Open {
            state.read = Read::Finished;
            wake(&mut state.reader);
        }
    }

    /// Fails writes with `BrokenPipe`: the peer sent STOP_SENDING.
    pub(crate) fn stop_write(&self) {
        self.state().fail_write(io::ErrorKind::BrokenPipe);
    }

    /// Fails both directions with `why`. Discards unread data unless the peer had finished.
    pub(crate) fn reset(&self, why: io::ErrorKind) {
        let mut state = self.state();
        state.fail_write(why);
        if state.read == Read::Open {
            state.read = Read::Failed(why);
            state.received = BytesMut::new();
            wake(&mut state.reader);
        }
    }
}

impl PipeState {
    fn fail_write(&mut self, why: io::ErrorKind) {
        if self.write == Write::Open || (self.write == Write::Closed && !self.frames.is_empty()) {
            self.write = Write::Failed(why);
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

/// Stores the waker of the polling task.
fn register(waker: &mut Option<Waker>, cx: &Context<'_>) {
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
        let mut state = self.0.state();
        let read = state.received.len().min(buffer.len());
        state.received.copy_to_slice(&mut buffer[..read]);
        if state.received.is_empty() {
            state.received = BytesMut::new();
        }
        if state.read_blocked && state.received.len() <= RECEIVE_BUFFER / 2 {
            state.read_blocked = false;
            self.0.mark_ready(&mut state);
        }
        if read > 0 || buffer.is_empty() {
            return Poll::Ready(Ok(read));
        }
        match state.read {
            Read::Open => {
                register(&mut state.reader, cx);
                Poll::Pending
            }
            Read::Finished => Poll::Ready(Ok(0)),
            Read::Failed(why) => Poll::Ready(Err(why.into())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.state();
        match state.write {
            Write::Open => {}
            Write::Closed => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Write::Failed(why) => return Poll::Ready(Err(why.into())),
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let capacity = SEND_BUFFER.saturating_sub(state.frames_bytes);
        if capacity == 0 {
            register(&mut state.writer, cx);
            return Poll::Pending;
        }
        data = &data[..data.len().min(capacity)];
        let written = data.len();
        let size = state.frame_size;
        while !data.is_empty() {
            if state.frames.back().is_none_or(|frame| frame.len() >= size) {
                state.frames.push_back(OutboundFrame::new(size.min(data.len().max(1024))));
            }
            if let Some(frame) = state.frames.back_mut() {
                let (now, later) = data.split_at(data.len().min(size - frame.len()));
                frame.0.extend_from_slice(now);
                data = later;
            }
        }
        state.frames_bytes += written;
        self.0.mark_ready(&mut state);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state();
        if let Write::Failed(why) = state.write {
            return Poll::Ready(Err(why.into()));
        }
        if state.frames.is_empty() {
            return Poll::Ready(Ok(()));
        }
        register(&mut state.writer, cx);
        Poll::Pending
    }

    /// Completes when SCTP has taken all written data and the FIN. The task keeps the channel until the peer acknowledges them.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state();
        match state.write {
            Write::Failed(why) => return Poll::Ready(Err(why.into())),
            Write::Open => {
                state.write = Write::Closed;
                self.0.mark_ready(&mut state);
            }
            Write::Closed => {}
        }
        if state.frames.is_empty() {
            return Poll::Ready(Ok(()));
        }
        register(&mut state.writer, cx);
        Poll::Pending
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.dropped = true;
        state.received = BytesMut::new();
        if state.write == Write::Open && state.read == Read::Finished {
            state.write = Write::Closed;
        } else if state.write == Write::Open {
            state.frames.clear();
            state.frames_bytes = 0;
        }
        self.0.mark_ready(&mut state);
    }
}

#[cfg(test)]
mod tests;
