//! Counts what goes over a stream, and sends no faster than this node may.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use super::metrics::Traffic;
use crate::bandwidth::Bandwidth;

/// Bytes that are sent at once where the bandwidth is limited, so that streams take turns.
const TURN: usize = 16 * 1024;

/// A stream to another node for a volume. Its bytes are counted, and what is sent waits for the bandwidth.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    traffic: Traffic,
    bandwidth: Bandwidth,
    /// Bytes that are reserved and not sent yet.
    reserved: usize,
    /// Until they may be.
    wait: Option<Pin<Box<Sleep>>>,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, traffic: Traffic, bandwidth: Bandwidth) -> Self {
        Self { stream, traffic, bandwidth, reserved: 0, wait: None }
    }

    /// Waits until bytes may be sent, and returns how many.
    fn poll_grant(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        if !self.bandwidth.is_limited() {
            return Poll::Ready(wanted);
        }
        if self.reserved == 0 {
            self.reserved = wanted.min(TURN);
            let at = self.bandwidth.reserve_for_volumes(self.reserved, Instant::now());
            self.wait = at.map(|at| Box::pin(sleep_until(at.into())));
        }
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
        Poll::Ready(wanted.min(self.reserved))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.traffic.received.inc_by((buf.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = ready!(self.poll_grant(cx, buf.len()));
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..most]))?;
        self.reserved = self.reserved.saturating_sub(written);
        self.traffic.sent.inc_by(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn every_byte_arrives_and_is_counted_with_and_without_a_bound() {
        for bandwidth in [Bandwidth::default(), Bandwidth::new(Some(64 << 20), Instant::now())] {
            let traffic = Traffic::default();
            let (near, mut far) = duplex(64 * 1024);
            let mut stream = Metered::new(near, traffic.clone(), bandwidth);
            let bytes: Vec<u8> = (0..5_000_003_u32).map(|it| it.to_le_bytes()[0]).collect();
            let write = async {
                stream.write_all(&bytes).await.expect("written");
                stream.shutdown().await.expect("closed");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.expect("an answer");
                answer
            };
            let read = async {
                let mut received = Vec::new();
                far.read_to_end(&mut received).await.expect("read");
                far.write_all(b"all").await.expect("written");
                drop(far);
                received
            };
            let (answer, received) = tokio::join!(write, read);
            assert_eq!(answer, "all");
            assert!(received == bytes, "{} bytes", received.len());
            assert_eq!((traffic.sent.get(), traffic.received.get()), (5_000_003, 3));
        }
    }
}
