//! Counts what goes over a stream, and sends no faster than this node may.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

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
            let at = self.bandwidth.reserve_for_volumes(self.reserved);
            self.wait = at.map(|at| Box::pin(sleep_until(at)));
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
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    /// The rate of the tests, in bytes per second.
    const RATE: u64 = 1 << 20;

    /// Writes to a stream for some seconds of the paused clock, to a reader that takes everything.
    async fn send(bandwidth: Bandwidth, traffic: Traffic, seconds: u64) {
        let (near, mut far) = duplex(64 * 1024);
        let mut stream = Metered::new(near, traffic, bandwidth);
        let write = async {
            loop {
                stream.write_all(&[7; 100_000]).await.expect("written");
            }
        };
        let read = async {
            let mut buffer = vec![0; 64 * 1024];
            while far.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
        };
        let both = async { tokio::join!(write, read) };
        let _: Result<((), ()), _> = timeout(Duration::from_secs(seconds), both).await;
    }

    fn percent(traffic: &Traffic, seconds: u64) -> u64 {
        traffic.sent.get() * 100 / (RATE * seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn all_streams_together_stay_within_the_bandwidth_and_share_it() {
        let bandwidth = Bandwidth::new(Some(RATE));
        let streams: [Traffic; 3] = Default::default();
        let sending = streams.iter().map(|it| send(bandwidth.clone(), it.clone(), 10));
        futures::future::join_all(sending).await;
        let total: u64 = streams.iter().map(|it| it.sent.get()).sum();
        // With what may be sent at the beginning: a turn of each, and a burst.
        assert!((RATE * 10 * 99 / 100..=RATE * 10 * 101 / 100).contains(&total), "{total}");
        for share in streams.iter().map(|it| percent(it, 10)) {
            assert!((28..=38).contains(&share), "{share} %");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn volumes_use_what_services_leave_and_always_a_tenth() {
        for (services, left) in [(0, 100), (60, 40), (300, 10)] {
            let (bandwidth, traffic) = (Bandwidth::new(Some(RATE)), Traffic::default());
            let begun = Instant::now();
            let serving = async {
                while begun.elapsed() < Duration::from_secs(20) {
                    let bytes = RATE * services / 100 / 100;
                    bandwidth.sent_by_services(usize::try_from(bytes).expect("fits"));
                    sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::join!(serving, send(bandwidth.clone(), traffic.clone(), 20));
            let share = percent(&traffic, 20);
            assert!(share.abs_diff(left) <= 2, "{services} %: {share} % instead of {left} %");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn services_that_have_sent_much_hold_volumes_up_no_longer_than_a_second() {
        let (bandwidth, traffic) = (Bandwidth::new(Some(RATE)), Traffic::default());
        bandwidth.sent_by_services(usize::MAX >> 16);
        send(bandwidth, traffic.clone(), 11).await;
        assert!(percent(&traffic, 10) >= 98, "{} %", percent(&traffic, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_bound_nothing_waits() {
        let (begun, traffic) = (Instant::now(), Traffic::default());
        let (near, mut far) = duplex(64 * 1024);
        let mut stream = Metered::new(near, traffic.clone(), Bandwidth::default());
        let write = async {
            stream.write_all(&vec![7; 10 << 20]).await.expect("written");
            drop(stream);
        };
        let mut received = Vec::new();
        let (_, length) = tokio::join!(write, far.read_to_end(&mut received));
        assert_eq!(length.expect("read") as u64, traffic.sent.get());
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
