//! Yamux whose streams end when the connection is closed locally.
//!
//! When libp2p's yamux is asked to close a connection, readers of its streams are not woken and wait for ever; when it is
//! dropped, they are. So closing drops it. Unsent data is lost, which a local close accepts.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use futures::io::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::yamux;

/// Upgrades a connection to carry streams.
#[derive(Clone)]
pub(crate) struct Config(yamux::Config);

impl Config {
    pub(crate) fn with_max_streams(max: usize) -> Self {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(max);
        Self(config)
    }
}

impl UpgradeInfo for Config {
    type Info = <yamux::Config as UpgradeInfo>::Info;
    type InfoIter = <yamux::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Config {
    type Output = Muxer<C>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, io: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_inbound(io, info).map_ok(|muxer| Muxer(Some(muxer))).boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Config {
    type Output = Muxer<C>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, io: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_outbound(io, info).map_ok(|muxer| Muxer(Some(muxer))).boxed()
    }
}

/// The streams of a connection; `None` once it is closed.
pub(crate) struct Muxer<C>(Option<yamux::Muxer<C>>);

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> Muxer<C> {
    fn open<T>(&mut self, poll: impl FnOnce(Pin<&mut yamux::Muxer<C>>) -> Poll<T>) -> Poll<T> {
        self.0.as_mut().map_or(Poll::Pending, |muxer| poll(Pin::new(muxer)))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> StreamMuxer for Muxer<C> {
    type Substream = yamux::Stream;
    type Error = yamux::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        self.open(|muxer| muxer.poll_inbound(cx))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        self.open(|muxer| muxer.poll_outbound(cx))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        self.open(|muxer| muxer.poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::io::AsyncReadExt as _;
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    #[tokio::test]
    async fn reads_end_when_the_connection_is_closed_locally() {
        let (here, there) = tokio::io::duplex(1 << 16);
        let config = Config::with_max_streams(8);
        let info = config.protocol_info().next().expect("a protocol");
        let mut here = config.clone().upgrade_outbound(here.compat(), info).await.expect("yamux");
        let _there = config.upgrade_inbound(there.compat(), info).await.expect("yamux");
        let open = std::future::poll_fn(|cx| Pin::new(&mut here).poll_outbound(cx));
        let mut stream = open.await.expect("a stream");
        let read = tokio::spawn(async move { stream.read(&mut [0; 8]).await });
        tokio::task::yield_now().await;
        std::future::poll_fn(|cx| Pin::new(&mut here).poll_close(cx)).await.expect("closed");
        let read = tokio::time::timeout(Duration::from_secs(20), read).await.expect("an end");
        assert!(!matches!(read.expect("no panic"), Ok(1..)), "nothing was said");
    }
}
