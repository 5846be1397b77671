//! A transport whose connections of unauthenticated peers are limited, from the accepted socket until they authenticate.
//!
//! Behaviours are asked about a connection when its handshake starts, but cannot end one in its handshake; the transport can.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt as _, poll_fn};
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{
    StreamMuxer, StreamMuxerBox, StreamMuxerEvent, StreamMuxerExt as _, SubstreamBox,
};
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::{Multiaddr, PeerId, Transport};
use vc_webrtc::Source;

use super::addresses;
use super::connection_gater::ConnectionGater;
use super::connection_limiter::{ConnectionLimiter, ConnectionPermit, TransportKind};

/// Streams that an unauthenticated peer may have open at once on a connection. Below the number that the swarm negotiates at a time, so that
/// all are read and none fills its flow-control window.
const MAX_UNAUTHENTICATED_STREAMS: usize = 64;

/// Bytes that a peer may send on the streams of a connection before it authenticates: dozens of handshakes with the largest frames.
const MAX_UNAUTHENTICATED_BYTES: usize = 1024 * 1024;

type Connection = (PeerId, StreamMuxerBox);

/// Limits the incoming connections of a transport.
pub(super) struct LimitedTransport {
    inner: Boxed<Connection>,
    kind: TransportKind,
    gater: ConnectionGater,
    limiter: ConnectionLimiter,
}

impl LimitedTransport {
    pub(super) fn new(
        inner: Boxed<Connection>,
        kind: TransportKind,
        gater: ConnectionGater,
        limiter: ConnectionLimiter,
    ) -> Self {
        Self { inner, kind, gater, limiter }
    }

    fn limit(
        &self,
        upgrade: <Boxed<Connection> as Transport>::ListenerUpgrade,
        ip: IpAddr,
    ) -> <Self as Transport>::ListenerUpgrade {
        let mut permit = self.limiter.acquire(self.kind, Source::of(ip));
        let gater = self.gater.clone();
        async move {
            let (peer, inner) = tokio::select! {
                result = upgrade => result?,
                displaced = poll_fn(|cx| permit.poll_displaced(cx)) => return Err(io::Error::other(displaced)),
            };
            if gater.is_member(&peer) {
                return Ok((peer, inner));
            }
            permit.establish(peer).map_err(io::Error::other)?;
            let peer_streams = PeerStreams { gater, peer, received: AtomicUsize::new(0) };
            let muxer = LimitedMuxer { inner, permit, streams: Arc::new(peer_streams) };
            Ok((peer, StreamMuxerBox::new(muxer)))
        }
        .boxed()
    }
}

impl Transport for LimitedTransport {
    type Output = Connection;
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, io::Result<Connection>>;
    type Dial = <Boxed<Connection> as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        self.inner.dial(address, options)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(cx).map(|event| {
            let ip = match &event {
                TransportEvent::Incoming { send_back_addr, .. } => addresses::ip(send_back_addr),
                _ => None,
            };
            let ip = ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            event.map_upgrade(|upgrade| self.limit(upgrade, ip))
        })
    }
}

/// A connection of a peer that was no member when the connection was established.
struct LimitedMuxer {
    inner: StreamMuxerBox,
    permit: ConnectionPermit,
    /// Counts open streams by its references: each stream that the peer has opened holds one.
    streams: Arc<PeerStreams>,
}

/// The streams that a peer has opened on a connection.
struct PeerStreams {
    gater: ConnectionGater,
    peer: PeerId,
    /// Bytes that were read of them.
    received: AtomicUsize,
}

impl PeerStreams {
    /// Errors: the peer has too many streams open and has not authenticated.
    fn check_open(self: &Arc<Self>) -> io::Result<()> {
        // The first reference is that of the connection.
        let is_full = Arc::strong_count(self) > MAX_UNAUTHENTICATED_STREAMS + 1;
        match is_full && !self.gater.is_authenticated(&self.peer) {
            true => Err(io::Error::other("too many streams before authentication")),
            false => Ok(()),
        }
    }

    /// Counts bytes. Errors: the peer has sent too many and has not authenticated.
    fn receive(&self, bytes: usize) -> io::Result<()> {
        let received = self.received.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if received > MAX_UNAUTHENTICATED_BYTES / 2 && self.gater.is_authenticated(&self.peer) {
            // A session may end and another one begin on this connection: there has to be room for its handshake.
            self.received.store(0, Ordering::Relaxed);
        } else if received > MAX_UNAUTHENTICATED_BYTES {
            return Err(io::Error::other("too many bytes before authentication"));
        }
        Ok(())
    }
}

/// A stream that counts as open until it is dropped, and whose bytes count.
struct CountedStream {
    inner: SubstreamBox,
    /// `None` for a stream that this node has opened.
    streams: Option<Arc<PeerStreams>>,
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, bytes))?;
        if let Some(streams) = &self.streams {
            streams.receive(read)?;
        }
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

impl StreamMuxer for LimitedMuxer {
    type Substream = CountedStream;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        let inner = std::task::ready!(self.inner.poll_inbound_unpin(cx))?;
        let inner = CountedStream { inner, streams: Some(Arc::clone(&self.streams)) };
        if let Err(error) = self.streams.check_open().and_then(|()| self.streams.receive(0)) {
            let _ = self.inner.poll_close_unpin(cx);
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(inner))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        self.inner.poll_outbound_unpin(cx).map_ok(|inner| CountedStream { inner, streams: None })
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_close_unpin(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        if let Poll::Ready(displaced) = self.permit.poll_displaced(cx) {
            // Streams in use would keep a QUIC connection open if it were only dropped.
            let _ = self.inner.poll_close_unpin(cx);
            return Poll::Ready(Err(io::Error::other(displaced)));
        }
        self.inner.poll_unpin(cx)
    }
}
