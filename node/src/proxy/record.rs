//! Records: the framing of [`vc_protocol::route`], 2 bytes of length in big endian and that many bytes of content.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use libp2p::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::Compat;
use vc_protocol::route::MAX_RECORD;

/// Length of a record's header in bytes.
pub(super) const HEADER: usize = 2;

/// Returns the header of a record. Lengths over [`MAX_RECORD`] are the caller's mistake and are capped.
pub(super) fn header(length: usize) -> [u8; HEADER] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// Tracks the position in a sequence of records, whose bytes may arrive in any pieces.
#[derive(Debug, Default)]
pub(super) struct RecordDecoder {
    first_header_byte: Option<u8>,
    remaining: usize,
}

impl RecordDecoder {
    /// Returns how many bytes of the current record's content are still to come; 0: a header comes next.
    pub(super) fn remaining(&self) -> usize {
        self.remaining
    }

    /// Returns whether the next byte is the first of a record.
    pub(super) fn is_between_records(&self) -> bool {
        self.remaining == 0 && self.first_header_byte.is_none()
    }

    /// Takes a byte of a header. Returns the length of the record when the header is complete.
    pub(super) fn header_byte(&mut self, byte: u8) -> Option<usize> {
        match self.first_header_byte.take() {
            None => {
                self.first_header_byte = Some(byte);
                None
            }
            Some(first) => {
                self.remaining = usize::from(u16::from_be_bytes([first, byte]));
                Some(self.remaining)
            }
        }
    }

    /// Counts bytes of content, at most [`Self::remaining`].
    pub(super) fn consume(&mut self, bytes: usize) {
        self.remaining = self.remaining.saturating_sub(bytes);
    }
}

/// Reads and writes the records of a stream. As [`AsyncRead`] and [`AsyncWrite`] it carries a TCP connection, which an
/// empty record ends in one direction; [`poll_record`](Self::poll_record) and [`queue`](Self::queue) see single records.
pub(crate) struct RecordStream<S = Compat<Stream>> {
    stream: S,
    decoder: RecordDecoder,
    read_ended: bool,
    write_ended: bool,
    /// The record that is being read by [`Self::poll_record`].
    record: Vec<u8>,
    /// Encoded records, of which the first `written` bytes are written.
    unsent: Vec<u8>,
    written: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> RecordStream<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            decoder: RecordDecoder::default(),
            read_ended: false,
            write_ended: false,
            record: Vec::new(),
            unsent: Vec::new(),
            written: 0,
        }
    }

    /// Returns the size of the buffer of queued records, which is freed when all of them are written.
    pub(super) fn buffered(&self) -> usize {
        self.unsent.len()
    }

    /// Queues one record of at most [`MAX_RECORD`] bytes for [`Self::poll_unsent`].
    pub(super) fn queue(&mut self, content: &[u8]) {
        self.unsent.extend(header(content.len()));
        self.unsent.extend(content);
    }

    /// Writes and flushes queued records. Errors: the stream is closed.
    pub(super) fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_written(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Writes queued records, without a flush. Errors: the stream is closed.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.unsent.len() {
            let rest = &self.unsent[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        (self.unsent, self.written) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Reads the next record. Dropping the future that polls loses nothing. Errors: the stream ended.
    pub(super) fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        if self.decoder.remaining() == 0 {
            let length = ready!(self.poll_header(cx))?;
            self.record = Vec::with_capacity(length);
        }
        while self.decoder.remaining() > 0 {
            let mut part = [0; 4096];
            let mut buffer = ReadBuf::new(&mut part);
            ready!(self.poll_content(cx, &mut buffer))?;
            self.record.extend(buffer.filled());
        }
        Poll::Ready(Ok(std::mem::take(&mut self.record)))
    }

    /// Reads a header and returns the length of its record. Errors: the stream ended.
    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let &[byte] = buffer.filled() else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            if let Some(length) = self.decoder.header_byte(byte) {
                return Poll::Ready(Ok(length));
            }
        }
    }

    /// Reads content of the current record. Errors: the stream ended within it.
    fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = self.decoder.remaining().min(buf.remaining());
        if room == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        if read == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.decoder.consume(read);
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for RecordStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.read_ended && this.decoder.remaining() == 0 {
            this.read_ended = ready!(this.poll_header(cx))? == 0;
        }
        if this.read_ended { Poll::Ready(Ok(())) } else { this.poll_content(cx, buf) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for RecordStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // An empty record would end the direction.
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let this = self.get_mut();
        ready!(this.poll_written(cx))?;
        let length = buf.len().min(MAX_RECORD);
        this.queue(&buf[..length]);
        if let Poll::Ready(written) = this.poll_written(cx) {
            written?;
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_unsent(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.write_ended {
            this.queue(&[]);
            this.write_ended = true;
        }
        this.poll_unsent(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    /// Records what is written to it, and its flushes as `None`.
    #[derive(Default)]
    struct Recorder(Vec<Option<Vec<u8>>>);

    impl AsyncRead for Recorder {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Recorder {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(Some(bytes.to_vec()));
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.push(None);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_record_is_one_write_and_flushed_on_request() {
        let mut records = RecordStream::new(Recorder::default());
        records.write_all(b"head").await.unwrap();
        records.write_all(b"body").await.unwrap();
        let written = [Some(b"\0\x04head".to_vec()), Some(b"\0\x04body".to_vec())];
        assert_eq!(records.stream.0, written, "before the flush");
        records.flush().await.unwrap();
        assert_eq!(records.stream.0[2..], [None]);
    }

    #[test]
    fn headers_are_decoded_byte_by_byte() {
        let mut decoder = RecordDecoder::default();
        let [high, low] = header(MAX_RECORD);
        assert_eq!(decoder.header_byte(high), None);
        assert_eq!(decoder.header_byte(low), Some(MAX_RECORD));
        decoder.consume(MAX_RECORD - 1);
        assert_eq!(decoder.remaining(), 1);
        decoder.consume(1);
        assert_eq!(decoder.header_byte(0), None);
        assert_eq!(decoder.header_byte(0), Some(0), "an empty record");
    }
}
