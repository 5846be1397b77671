//! A transport whose connections of unauthenticated peers are limited, from the accepted socket until they authenticate.
//!
//! Behaviours are asked about a connection when its handshake starts, but cannot end one in its handshake; the transport can.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt as _, poll_fn};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, StreamMuxerExt as _};
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::{Multiaddr, PeerId, Transport};
use vc_webrtc::Source;

use super::addresses;
use super::connection_gater::ConnectionGater;
use super::connection_limiter::{ConnectionLimiter, ConnectionPermit, TransportKind};

/// Streams that an unauthenticated peer may open on a connection. Below the number that the swarm negotiates at a time, so that
/// all are read and none fills its flow-control window.
const MAX_UNAUTHENTICATED_STREAMS: usize = 64;

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
            let muxer = LimitedMuxer { inner, permit, gater, peer, streams: 0 };
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
    gater: ConnectionGater,
    peer: PeerId,
    /// Streams that the peer has opened while it was unauthenticated.
    streams: usize,
}

impl StreamMuxer for LimitedMuxer {
    type Substream = <StreamMuxerBox as StreamMuxer>::Substream;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        let stream = std::task::ready!(self.inner.poll_inbound_unpin(cx))?;
        self.streams = if self.gater.is_authenticated(&self.peer) { 0 } else { self.streams + 1 };
        if self.streams > MAX_UNAUTHENTICATED_STREAMS {
            let _ = self.inner.poll_close_unpin(cx);
            return Poll::Ready(Err(io::Error::other("too many streams before authentication")));
        }
        Poll::Ready(Ok(stream))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        self.inner.poll_outbound_unpin(cx)
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
