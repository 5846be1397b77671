//! TCP connections to instances for parts of the node that read and write them, such as HTTP; [`splice`](super::splice)
//! forwards the others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use vc_engine::routes::Endpoint;
use vc_protocol::ServiceKey;
use vc_protocol::spec::Port;

use super::connections::Connection;
use super::load_balancer::Scope;
use super::proxy_protocol::header;
use super::record::RecordStream;
use super::router::{Route, Router};
use super::upstream::TcpUpstream;

/// A connection to an instance.
pub(crate) struct InstanceConnection {
    /// The instance and its node.
    pub(crate) endpoint: Endpoint,
    /// The bytes to and from the instance.
    pub(crate) stream: InstanceStream,
    /// The permits that the connection counts against; to be held until it is closed.
    pub(crate) _permits: ConnectionPermits,
}

/// Permits of the node's connection limit, the instance's connection count and the limit of streams to its node.
pub(crate) type ConnectionPermits =
    (OwnedSemaphorePermit, Connection, Option<OwnedSemaphorePermit>);

impl Router {
    /// Connects a `client` to the TCP port of an instance of a service that a published port leads to; `None`: no instance
    /// accepts, or this node is at [`MAX_CONNECTIONS`](super::MAX_CONNECTIONS).
    pub(crate) async fn open(
        &self,
        service: &ServiceKey,
        port: &Port,
        client: Option<IpAddr>,
    ) -> Option<InstanceConnection> {
        let among_all = Arc::clone(&self.inner.permits).try_acquire_owned().ok()?;
        let Route { endpoint, mut upstream, connection, permit } =
            self.connect::<TcpUpstream>(service, port.target, Scope::Cluster).await?;
        if let Some(version) = port.proxy_protocol {
            let client = client.map(|ip| SocketAddr::new(ip, 0));
            let any = |it: SocketAddr| match it.ip().to_canonical() {
                IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.published)),
                IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.published)),
            };
            let header = header(version, client, client.map(any)).ok()?;
            upstream.send_first(&header).await.ok()?;
        }
        let stream = match upstream {
            TcpUpstream::Local(stream) => InstanceStream::Tcp(stream),
            TcpUpstream::Remote(stream) => {
                InstanceStream::Records(Box::new(RecordStream::new(stream)))
            }
        };
        Some(InstanceConnection { endpoint, stream, _permits: (among_all, connection, permit) })
    }
}

/// The bytes to and from an instance.
pub(crate) enum InstanceStream {
    /// The instance runs on this node.
    Tcp(TcpStream),
    /// The instance runs on another node.
    Records(Box<RecordStream>),
}

impl AsyncRead for InstanceStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Records(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for InstanceStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Records(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Records(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Records(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
