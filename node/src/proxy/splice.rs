//! Splicing: copies bytes between two connections in both directions.
//!
//! An idle connection holds no buffer: bytes are read into a buffer that all connections of a thread share, and written
//! at once. Only bytes that the other connection does not accept are kept, at most one buffer for each direction, and
//! nothing is read meanwhile: that is the backpressure on the sender. Each direction is closed on its own, as in TCP
//! (half-close).

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until};
use tokio_util::compat::Compat;
use vc_protocol::route::MAX_RECORD;

use super::record::{self, HEADER, RecordDecoder};
use super::restart::Restart;
use super::traffic::ServiceTraffic;
use crate::bandwidth::Bandwidth;
use crate::handover::Connection;

/// Size of the buffer that all connections of a thread share, in bytes: the largest record with its header.
const SCRATCH: usize = HEADER + MAX_RECORD;
/// Bytes that one direction copies before it yields to other tasks (cooperative scheduling).
const COOP_BUDGET: usize = 1024 * 1024;
/// How long a connection that no longer accepts bytes may read what was written to it before it is reset.
const LINGER: Duration = Duration::from_secs(2);

thread_local! {
    static SCRATCH_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Calls `f` with the thread's shared buffer. Must not be nested.
pub(super) fn with_scratch<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH_BUFFER.with_borrow_mut(|buffer| f(buffer))
}

/// Splices two TCP connections until both directions are closed, and counts the bytes. A reset of one resets the other. Returns the connection when
/// `detach` completes before: another process is to go on with it.
pub(super) async fn tcp(
    client: TcpStream,
    instance: TcpStream,
    detach: impl Future<Output = ()>,
    traffic: Arc<ServiceTraffic>,
) -> Option<Connection> {
    let (to, from) = (HalfCopy::new(Framing::None), HalfCopy::new(Framing::None));
    let mut copy = CopyBidirectional::new(client, instance, to, from);
    copy.traffic = Some(traffic);
    copy.run(detach).await
}

/// Splices a connection that another process has detached, until both directions are closed.
///
/// # Errors
/// The sockets cannot be used.
pub async fn resume(connection: Connection) -> io::Result<()> {
    let Connection { client, instance, to_instance, to_client } = connection;
    let client = TcpStream::from_std(client.into())?;
    let instance = TcpStream::from_std(instance.into())?;
    let to = HalfCopy { rest: to_instance, ..HalfCopy::new(Framing::None) };
    let from = HalfCopy { rest: to_client, ..HalfCopy::new(Framing::None) };
    CopyBidirectional::new(client, instance, to, from).run(std::future::pending()).await;
    Ok(())
}

impl CopyBidirectional<TcpStream> {
    async fn run(mut self, detach: impl Future<Output = ()>) -> Option<Connection> {
        let mut detach = std::pin::pin!(detach);
        let mut detached = false;
        let run = |cx: &mut Context<'_>| {
            // The other process reads again whether a direction has ended, but not that one is broken.
            let is_whole = self.to.stage != Stage::Broken && self.from.stage != Stage::Broken;
            if is_whole && detach.as_mut().poll(cx).is_ready() {
                detached = true;
                return Poll::Ready(Ok(()));
            }
            self.poll(cx)
        };
        let result = std::future::poll_fn(run).await;
        let Self { tcp, other, to, from, .. } = self;
        if result.is_err() {
            tokio::join!(linger_and_reset(tcp, &to, &from), linger_and_reset(other, &from, &to));
            return None;
        }
        if !detached {
            return None;
        }
        // Errors: the descriptor is invalid.
        let (client, instance) = (tcp.into_std().ok()?.into(), other.into_std().ok()?.into());
        let (to_instance, to_client) = (to.into_rest(), from.into_rest());
        Some(Connection { client, instance, to_instance, to_client })
    }
}

/// A direction of a splice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the TCP connection to the other one.
    To,
    /// From the other connection to the TCP connection.
    From,
}

/// Splices a TCP connection and the records of a stream until both directions are closed. A reset of one resets the
/// other, and both are reset when `down` completes: the stream's node is down. `answers` is the direction to the client; it
/// is ended when the connection is idle while the node restarts. `bandwidth` is told what goes into the stream, and `traffic`, at the
/// node that the client is connected to, what goes in both directions.
pub(super) async fn records(
    tcp: TcpStream,
    stream: Compat<Stream>,
    answers: Direction,
    down: impl Future<Output = ()>,
    restart: &Restart,
    bandwidth: &Bandwidth,
    traffic: Option<Arc<ServiceTraffic>>,
) {
    let mut down = std::pin::pin!(down);
    let mut draining = std::pin::pin!(restart.draining());
    let mut is_draining = false;
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    let to = HalfCopy::new(Framing::Encode);
    let from = HalfCopy::new(Framing::Decode(RecordDecoder::default()));
    let mut copy = CopyBidirectional::new(tcp, stream, to, from);
    copy.traffic = traffic;
    let run = |cx: &mut Context<'_>| {
        if down.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let copied = copy.poll(cx);
        let sent = std::mem::take(&mut copy.to_other);
        if sent > 0 {
            bandwidth.sent_by_services(sent, Instant::now());
        }
        is_draining = is_draining || draining.as_mut().poll(cx).is_ready();
        if copied.is_ready() || !is_draining {
            return copied;
        }
        let Some(since) = copy.idle_since(answers) else { return copied };
        let due = since + restart.idle_limit();
        if due <= Instant::now() {
            copy.end(answers);
            return copy.poll(cx);
        }
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(due.into())));
        timer.as_mut().reset(due.into());
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        copied
    };
    match std::future::poll_fn(run).await {
        // Empty records have ended both directions; whether this close arrives does not matter.
        Ok(()) => {
            let close = |cx: &mut Context<'_>| {
                let _ = Pin::new(&mut copy.other).poll_shutdown(cx);
                Poll::Ready(())
            };
            std::future::poll_fn(close).await;
        }
        // Dropping an open stream resets it.
        Err(_) => {
            let CopyBidirectional { tcp, other, to, from, .. } = copy;
            drop(other);
            linger_and_reset(tcp, &to, &from).await;
        }
    }
}

/// Resets a connection whose copy failed. When only the direction out of it is broken, it first gets up to [`LINGER`]
/// to read what was written to it, since a reset may overtake those bytes.
fn linger_and_reset(
    tcp: TcpStream,
    out_of: &HalfCopy,
    into: &HalfCopy,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let lingers = out_of.stage == Stage::Broken && into.stage == Stage::Closed;
    Box::pin(async move {
        let mut tcp = tcp;
        if lingers {
            let mut discard = tokio::io::sink();
            let read = tokio::io::copy(&mut tcp, &mut discard);
            if let Ok(Ok(_)) = tokio::time::timeout(LINGER, read).await {
                return;
            }
        }
        reset(tcp);
    })
}

/// Closes a connection with a reset, which the other end cannot mistake for the end of the data.
pub(super) fn reset(tcp: TcpStream) {
    let _ = tcp.set_zero_linger();
}

struct CopyBidirectional<S> {
    tcp: TcpStream,
    other: S,
    /// From `tcp` to `other`.
    to: HalfCopy,
    /// From `other` to `tcp`.
    from: HalfCopy,
    /// The direction in which bytes were copied last; `None`: in neither yet.
    last: Option<Direction>,
    /// When that was.
    last_at: Instant,
    /// Bytes that were read for `other`.
    to_other: usize,
    /// Counts the bytes, where `tcp` is the client.
    traffic: Option<Arc<ServiceTraffic>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> CopyBidirectional<S> {
    fn new(tcp: TcpStream, other: S, to: HalfCopy, from: HalfCopy) -> Self {
        let last_at = Instant::now();
        Self { tcp, other, to, from, last: None, last_at, to_other: 0, traffic: None }
    }

    /// Returns since when nothing is outstanding: both directions are open, and the last bytes went to the client, in the
    /// direction `answers`.
    fn idle_since(&self, answers: Direction) -> Option<Instant> {
        let idle = self.to.is_idle() && self.from.is_idle();
        (idle && self.last == Some(answers)).then_some(self.last_at)
    }

    /// Ends a direction as if its source had ended.
    fn end(&mut self, direction: Direction) {
        match direction {
            Direction::To => self.to.end(),
            Direction::From => self.from.end(),
        }
    }

    /// Copies in both directions. Errors: a connection was reset, or both directions ended and one of them broke.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_scratch(|scratch| {
            let copied = self.to.poll(cx, &mut self.tcp, &mut self.other, scratch)?;
            self.to_other += copied;
            if copied > 0 {
                (self.last, self.last_at) = (Some(Direction::To), Instant::now());
            }
            let answered = self.from.poll(cx, &mut self.other, &mut self.tcp, scratch)?;
            if answered > 0 {
                (self.last, self.last_at) = (Some(Direction::From), Instant::now());
            }
            if let Some(traffic) = self.traffic.as_ref().filter(|_| copied + answered > 0) {
                traffic.copied(copied, answered);
            }
            match (self.to.stage, self.from.stage) {
                (Stage::Closed, Stage::Closed) => Poll::Ready(Ok(())),
                (Stage::Closed | Stage::Broken, Stage::Closed | Stage::Broken) => {
                    Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
                }
                _ => {
                    self.from.detect_reset(cx, &mut self.other)?;
                    Poll::Pending
                }
            }
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Bytes are copied.
    Copying,
    /// The last byte was read; the destination is not closed yet.
    Closing,
    /// The destination is closed.
    Closed,
    /// The destination stopped accepting bytes before the end. The other direction goes on: a server that refuses a
    /// long upload answers, and closes.
    Broken,
}

/// How bytes change on their way.
enum Framing {
    /// Not at all.
    None,
    /// Bytes become records.
    Encode,
    /// Records become bytes.
    Decode(RecordDecoder),
}

/// One direction of a splice.
struct HalfCopy {
    framing: Framing,
    /// Bytes that were read but not all written, in the source's framing.
    rest: Vec<u8>,
    /// How many bytes of `rest` are written.
    written: usize,
    unflushed: bool,
    stage: Stage,
}

impl HalfCopy {
    fn new(framing: Framing) -> Self {
        Self { framing, rest: Vec::new(), written: 0, unflushed: false, stage: Stage::Copying }
    }

    /// Returns whether the direction is open and every byte that was read is written.
    fn is_idle(&self) -> bool {
        let between_records = match &self.framing {
            Framing::Decode(decoder) => decoder.is_between_records(),
            Framing::None | Framing::Encode => true,
        };
        self.stage == Stage::Copying && self.rest.is_empty() && between_records
    }

    /// Ends the direction, which is idle, as if its source had ended.
    fn end(&mut self) {
        if matches!(self.framing, Framing::Encode) {
            self.rest = record::header(0).to_vec();
        }
        self.stage = Stage::Closing;
    }

    /// Returns the bytes that were read and are not written.
    fn into_rest(mut self) -> Vec<u8> {
        self.rest.split_off(self.written)
    }

    /// Copies as much as possible now and advances `stage`. Returns how many bytes were read. Errors: `from` was reset.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        scratch: &mut [u8],
    ) -> io::Result<usize>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut copied = 0;
        loop {
            if !self.rest.is_empty() {
                let rest = std::mem::take(&mut self.rest);
                let accepted = self.forward(cx, to, &rest[self.written..])?;
                if self.stage == Stage::Broken {
                    return Ok(copied);
                }
                self.written += accepted;
                if self.written < rest.len() {
                    self.rest = rest;
                    return Ok(copied);
                }
                self.written = 0;
            }
            match self.stage {
                Stage::Closed | Stage::Broken => return Ok(copied),
                Stage::Closing => {
                    self.close(cx, to);
                    return Ok(copied);
                }
                Stage::Copying => {}
            }
            if copied >= COOP_BUDGET {
                cx.waker().wake_by_ref();
                return Ok(copied);
            }
            let head = if matches!(self.framing, Framing::Encode) { HEADER } else { 0 };
            let mut buffer = ReadBuf::new(&mut scratch[head..]);
            match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
                Poll::Pending => {
                    if self.unflushed && Pin::new(&mut *to).poll_flush(cx).is_ready() {
                        self.unflushed = false;
                    }
                    return Ok(copied);
                }
                Poll::Ready(result) => result?,
            }
            let read = buffer.filled().len();
            copied += read;
            if read == 0 {
                // Only an empty record ends a stream of records.
                if matches!(self.framing, Framing::Decode(_)) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.stage = Stage::Closing;
            }
            // When encoding, the record of an end of file is the empty one.
            scratch[..head].copy_from_slice(&record::header(read)[..head]);
            let whole = head + read;
            let accepted = self.forward(cx, to, &scratch[..whole])?;
            if accepted < whole && self.stage != Stage::Broken {
                self.rest = scratch[accepted..whole].to_vec();
                return Ok(copied);
            }
        }
    }

    /// Writes as much of `bytes` as `to` accepts now and returns how many are done with. Errors: `bytes` continue after
    /// the empty record.
    fn forward<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        bytes: &[u8],
    ) -> io::Result<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let mut most = bytes.len() - at;
            if let Framing::Decode(decoder) = &mut self.framing {
                if decoder.remaining() == 0 {
                    if self.stage != Stage::Copying {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    if decoder.header_byte(bytes[at]) == Some(0) {
                        self.stage = Stage::Closing;
                    }
                    at += 1;
                    continue;
                }
                most = most.min(decoder.remaining());
            }
            match Pin::new(&mut *to).poll_write(cx, &bytes[at..at + most]) {
                Poll::Pending => break,
                Poll::Ready(Ok(written)) if written > 0 => {
                    self.unflushed = true;
                    at += written;
                    if let Framing::Decode(decoder) = &mut self.framing {
                        decoder.consume(written);
                    }
                }
                Poll::Ready(_) => {
                    self.stage = Stage::Broken;
                    break;
                }
            }
        }
        Ok(at)
    }

    /// Closes the destination's half of the connection.
    fn close<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) {
        let to = Pin::new(to);
        // The empty record closes this direction; the stream stays open for the other one.
        let encodes = matches!(self.framing, Framing::Encode);
        let closed = if encodes { to.poll_flush(cx) } else { to.poll_shutdown(cx) };
        self.stage = match closed {
            Poll::Pending => return,
            Poll::Ready(Ok(())) => Stage::Closed,
            Poll::Ready(Err(_)) => Stage::Broken,
        };
    }

    /// Detects that a stream was reset after its last record, when nothing else reads from it. Errors: it was.
    fn detect_reset<R: AsyncRead + Unpin>(
        &self,
        cx: &mut Context<'_>,
        from: &mut R,
    ) -> io::Result<()> {
        if !matches!(self.framing, Framing::Decode(_)) || self.stage == Stage::Copying {
            return Ok(());
        }
        let mut byte = [0];
        match Pin::new(from).poll_read(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Pending => Ok(()),
            Poll::Ready(_) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}
