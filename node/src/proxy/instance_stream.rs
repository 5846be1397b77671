//! TCP connections to instances for parts of the node that read and write them, such as HTTP; [`splice`](super::splice)
//! forwards the others.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use vc_engine::routes::Endpoint;
use vc_protocol::ServiceKey;

use super::connections::Connection;
use super::load_balancer::Scope;
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
    /// Connects to a TCP port of an instance of a service; `None`: no instance accepts, or this node is at
    /// [`MAX_CONNECTIONS`](super::MAX_CONNECTIONS).
    pub(crate) async fn open(&self, service: &ServiceKey, port: u16) -> Option<InstanceConnection> {
        let among_all = Arc::clone(&self.inner.permits).try_acquire_owned().ok()?;
        let Route { endpoint, upstream, connection, permit } =
            self.connect::<TcpUpstream>(service, port, Scope::Cluster).await?;
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
