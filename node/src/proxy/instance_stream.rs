//! A connection to an instance as a stream of bytes, for parts of the node that talk to instances themselves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Sink, StreamExt as _, ready};
use libp2p::Stream;
use libp2p::bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::compat::Compat;
use vc_engine::routes::Endpoint;
use vc_protocol::ServiceKey;
use vc_protocol::route::MAX_RECORD;

use super::connect::{Route, Upstream};
use super::connections::Connection;
use super::{Router, Scope};

/// A connection to an instance.
pub(crate) struct InstanceConnection {
    /// Which instance.
    pub(crate) endpoint: Endpoint,
    /// Its bytes.
    pub(crate) stream: InstanceStream,
    /// Its places among connections and streams, to be held until it is over.
    pub(crate) _permits: ConnectionPermits,
}

/// Places among connections and streams.
pub(crate) type ConnectionPermits =
    (OwnedSemaphorePermit, Option<Connection>, Option<OwnedSemaphorePermit>);

impl Router {
    /// Connects to a TCP port of an instance of a service; `None`: none takes the connection, or there are too many.
    pub(crate) async fn open(&self, service: &ServiceKey, port: u16) -> Option<InstanceConnection> {
        let among_all = Arc::clone(&self.inner.places).try_acquire_owned().ok()?;
        let Route { endpoint, upstream, connection, place } =
            self.connect(service, port, Scope::Cluster).await?;
        let stream = match upstream {
            Upstream::Tcp(stream) => InstanceStream::Tcp(stream),
            Upstream::Stream(stream) => {
                InstanceStream::RecordStream(Box::new(RecordStream::new(stream)))
            }
            // Nobody asked for that.
            Upstream::Udp(_) => return None,
        };
        Some(InstanceConnection { endpoint, stream, _permits: (among_all, connection, place) })
    }

    /// Comes when the cluster holds the node of an endpoint for down.
    pub(crate) fn node_down(&self, endpoint: &Endpoint) -> impl Future<Output = ()> + use<> {
        let (mut table, node) = (self.table(), endpoint.node);
        async move {
            if table.wait_for(|routes| routes.down.contains(&node)).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Bytes to and from an instance.
pub(crate) enum InstanceStream {
    /// Here.
    Tcp(TcpStream),
    /// On another node.
    RecordStream(Box<RecordStream>),
}

/// The records of a stream, see [`vc_protocol::route`], as the bytes that they carry.
pub(crate) struct RecordStream {
    framed: Framed<Compat<Stream>, LengthDelimitedCodec>,
    /// Received and not read yet.
    rest: Bytes,
    ended: bool,
    closed: bool,
}

impl RecordStream {
    fn new(stream: Compat<Stream>) -> Self {
        let codec = LengthDelimitedCodec::builder()
            .length_field_length(2)
            .max_frame_length(MAX_RECORD)
            .new_codec();
        let framed = Framed::new(stream, codec);
        Self { framed, rest: Bytes::new(), ended: false, closed: false }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() && !self.ended {
            match ready!(self.framed.poll_next_unpin(cx)) {
                Some(Ok(record)) if record.is_empty() => self.ended = true,
                Some(Ok(record)) => self.rest = record.freeze(),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(buf.remaining()));
        buf.put_slice(&piece);
        Poll::Ready(Ok(()))
    }

    fn sink(&mut self) -> Pin<&mut impl Sink<Bytes, Error = io::Error>> {
        Pin::new(&mut self.framed)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // An empty record would end it.
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.sink().poll_ready(cx))?;
        let length = buf.len().min(MAX_RECORD);
        self.sink().start_send(Bytes::copy_from_slice(&buf[..length]))?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sink().poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            ready!(self.sink().poll_ready(cx))?;
            self.sink().start_send(Bytes::new())?;
            self.closed = true;
        }
        self.poll_flush(cx)
    }
}

impl AsyncRead for InstanceStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::RecordStream(records) => records.poll_read(cx, buf),
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
            Self::RecordStream(records) => records.poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::RecordStream(records) => records.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::RecordStream(records) => records.poll_shutdown(cx),
        }
    }
}
