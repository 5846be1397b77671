//! Bytes between two ends of a connection, both ways.
//!
//! A connection that has nothing to say costs no buffer: bytes are read into a buffer that all connections of a thread
//! share, and written at once. Only what the other end does not take is kept, at most one buffer a direction, and
//! nothing is read meanwhile: so the pressure reaches the sender. Each direction ends by itself, as TCP's do.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::compat::Compat;
use vc_protocol::route::MAX_RECORD;

/// The buffer that all connections of a thread share, in bytes: the largest record with its length.
const SCRATCH: usize = HEADER + MAX_RECORD;
/// The length before a record, in bytes.
const HEADER: usize = 2;
/// After so many bytes in a row a connection lets others go on.
const COOP_BUDGET: usize = 1024 * 1024;
/// A connection whose other end takes no more may read so long what it was told last.
const LINGER: Duration = Duration::from_secs(2);

thread_local! {
    static SCRATCH_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Lends the shared buffer. Not to be asked for again inside.
pub(super) fn with_scratch<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH_BUFFER.with_borrow_mut(|buffer| use_it(buffer))
}

/// Copies between two TCP connections until both directions are over. When one is cut, so is the other.
pub(super) async fn tcp(client: TcpStream, instance: TcpStream) {
    let mut splice = CopyBidirectional {
        tcp: client,
        other: instance,
        to: HalfCopy::plain(),
        from: HalfCopy::plain(),
    };
    if std::future::poll_fn(|cx| splice.poll(cx)).await.is_err() {
        let CopyBidirectional { tcp, other, to, from } = splice;
        let (client, instance) = (end(tcp, &to, &from), end(other, &from, &to));
        tokio::join!(client, instance);
    }
}

/// Copies between a TCP connection and the records of a stream until both directions are over. When one end is cut, so
/// is the other; and both are when `lost` comes true: the node at the other end of the stream is gone.
pub(super) async fn records(
    tcp: TcpStream,
    stream: Compat<Stream>,
    lost: impl Future<Output = ()>,
) {
    let mut lost = std::pin::pin!(lost);
    let (to, from) = (
        HalfCopy { encodes: true, ..HalfCopy::plain() },
        HalfCopy { decodes: true, ..HalfCopy::plain() },
    );
    let mut splice = CopyBidirectional { tcp, other: stream, to, from };
    let run = |cx: &mut Context<'_>| match lost.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        Poll::Pending => splice.poll(cx),
    };
    match std::future::poll_fn(run).await {
        // Both sides know that it is over; whether this close arrives does not matter.
        Ok(()) => {
            let close = |cx: &mut Context<'_>| {
                let _ = Pin::new(&mut splice.other).poll_shutdown(cx);
                Poll::Ready(())
            };
            std::future::poll_fn(close).await;
        }
        // A stream that is dropped while it is open is reset.
        Err(_) => {
            let CopyBidirectional { tcp, other, to, from } = splice;
            drop(other);
            end(tcp, &to, &from).await;
        }
    }
}

/// Ends a connection that did not end in order. An end that was told that nothing more comes, and whose own words
/// nobody wants, has a moment to read what it was told: a reset may overtake that.
fn end(
    tcp: TcpStream,
    said: &HalfCopy,
    told: &HalfCopy,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let lingers = said.stage == Stage::Broken && told.stage == Stage::Over;
    Box::pin(async move {
        let mut tcp = tcp;
        if lingers {
            let mut nobody = tokio::io::sink();
            let read = tokio::io::copy(&mut tcp, &mut nobody);
            if let Ok(Ok(_)) = tokio::time::timeout(LINGER, read).await {
                return;
            }
        }
        reset(tcp);
    })
}

/// Resets a connection, so that its end is not taken for the end of what was said.
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
}

impl<S: AsyncRead + AsyncWrite + Unpin> CopyBidirectional<S> {
    /// Errors: one end was cut.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_scratch(|scratch| {
            self.to.poll(cx, &mut self.tcp, &mut self.other, scratch)?;
            self.from.poll(cx, &mut self.other, &mut self.tcp, scratch)?;
            match (self.to.stage, self.from.stage) {
                (Stage::Over, Stage::Over) => Poll::Ready(Ok(())),
                (Stage::Over | Stage::Broken, Stage::Over | Stage::Broken) => {
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
    /// The last byte was read.
    Ending,
    /// The other end knows that nothing more comes.
    Over,
    /// The other end takes no more, and did not wait for the end. What it says itself is still of interest: a server
    /// that refuses a long upload answers, and closes.
    Broken,
}

/// One direction.
struct HalfCopy {
    /// What was read and not written yet, as it was read.
    rest: Vec<u8>,
    /// How much of it has been written meanwhile.
    written: usize,
    /// Whether bytes become records.
    encodes: bool,
    /// Whether records become bytes.
    decodes: bool,
    /// The first byte of a length whose second has not come.
    half_length: Option<u8>,
    /// What is still to come of the present record.
    of_record: u16,
    /// Whether something was written since the last flush.
    unflushed: bool,
    stage: Stage,
}

impl HalfCopy {
    fn plain() -> Self {
        Self {
            rest: Vec::new(),
            written: 0,
            encodes: false,
            decodes: false,
            half_length: None,
            of_record: 0,
            unflushed: false,
            stage: Stage::Copying,
        }
    }

    /// Copies what can be copied now; then `stage` tells how far it is. Errors: `from` was cut.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        scratch: &mut [u8],
    ) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut copied = 0;
        loop {
            if !self.rest.is_empty() {
                let rest = std::mem::take(&mut self.rest);
                let taken = self.forward(cx, to, &rest[self.written..])?;
                if self.stage == Stage::Broken {
                    return Ok(());
                }
                self.written += taken;
                if self.written < rest.len() {
                    self.rest = rest;
                    return Ok(());
                }
                self.written = 0;
            }
            match self.stage {
                Stage::Over | Stage::Broken => return Ok(()),
                Stage::Ending => {
                    self.end(cx, to);
                    return Ok(());
                }
                Stage::Copying => {}
            }
            if copied >= COOP_BUDGET {
                cx.waker().wake_by_ref();
                return Ok(());
            }
            let head = if self.encodes { HEADER } else { 0 };
            let mut buffer = ReadBuf::new(&mut scratch[head..]);
            match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
                Poll::Pending => {
                    if self.unflushed && Pin::new(&mut *to).poll_flush(cx).is_ready() {
                        self.unflushed = false;
                    }
                    return Ok(());
                }
                Poll::Ready(result) => result?,
            }
            let read = buffer.filled().len();
            copied += read;
            if read == 0 && self.decodes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if read == 0 {
                self.stage = Stage::Ending;
            }
            let mut whole = read;
            if self.encodes {
                // An empty record says that nothing more comes.
                #[allow(clippy::cast_possible_truncation, reason = "the buffer holds one record")]
                scratch[..HEADER].copy_from_slice(&(read as u16).to_be_bytes());
                whole += HEADER;
            }
            let taken = self.forward(cx, to, &scratch[..whole])?;
            if taken < whole && self.stage != Stage::Broken {
                self.rest = scratch[taken..whole].to_vec();
                return Ok(());
            }
        }
    }

    /// Writes what `to` takes now, and says how much of `bytes` is done with. Errors: these are no records.
    fn forward<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        bytes: &[u8],
    ) -> io::Result<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let mut most = bytes.len() - at;
            if self.decodes {
                if self.of_record == 0 {
                    self.length(bytes[at])?;
                    at += 1;
                    continue;
                }
                most = most.min(usize::from(self.of_record));
            }
            match Pin::new(&mut *to).poll_write(cx, &bytes[at..at + most]) {
                Poll::Pending => break,
                Poll::Ready(Ok(written)) if written > 0 => {
                    self.unflushed = true;
                    at += written;
                    if self.decodes {
                        #[allow(clippy::cast_possible_truncation, reason = "at most `of_record`")]
                        (self.of_record -= written as u16);
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

    /// A byte of a record's length. Errors: it comes after the end.
    fn length(&mut self, byte: u8) -> io::Result<()> {
        if self.stage != Stage::Copying {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match self.half_length.take() {
            None => self.half_length = Some(byte),
            Some(first) => {
                self.of_record = u16::from_be_bytes([first, byte]);
                if self.of_record == 0 {
                    self.stage = Stage::Ending;
                }
            }
        }
        Ok(())
    }

    /// Tells `to` that nothing more comes.
    fn end<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) {
        let to = Pin::new(to);
        // The empty record has told it; the stream stays open for the other direction.
        let told = if self.encodes { to.poll_flush(cx) } else { to.poll_shutdown(cx) };
        self.stage = match told {
            Poll::Pending => return,
            Poll::Ready(Ok(())) => Stage::Over,
            Poll::Ready(Err(_)) => Stage::Broken,
        };
    }

    /// Notices that a stream was reset after its last record, which nobody reads for any more. Errors: it was.
    fn detect_reset<R: AsyncRead + Unpin>(
        &self,
        cx: &mut Context<'_>,
        from: &mut R,
    ) -> io::Result<()> {
        if !self.decodes || self.stage == Stage::Copying {
            return Ok(());
        }
        let mut byte = [0];
        match Pin::new(from).poll_read(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Pending => Ok(()),
            Poll::Ready(_) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}
