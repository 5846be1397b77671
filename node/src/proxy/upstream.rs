//! Connections to instances: directly on this node, or over a libp2p stream to the node that runs the instance.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libp2p::{Stream, StreamProtocol};
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};
use vc_protocol::route::{ACCEPTED, RouteRequest};
use vc_protocol::spec::PortProtocol;
use vc_protocol::wire::{ROUTE_PROTOCOL, encode};
use vc_protocol::{InstanceId, NodeId};

use super::connections::{Connection, Connections};
use super::limits::{INSTANCE_TIMEOUT, MAX_STREAMS};
use super::record::RecordStream;

/// Idle time after which the kernel probes whether the other end of a TCP connection still exists.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Interval of further probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// What carries TCP or UDP traffic to an instance.
pub(super) trait Upstream: Sized + Send {
    /// The transport protocol that a member is asked for.
    const PROTOCOL: PortProtocol;
    /// Counts the connection at the instance while it lives; UDP, which has no connections, counts none.
    type Count: Send;

    /// Counts a connection to an instance; `None`: the instance is draining.
    fn count(connections: &Connections, instance: &InstanceId) -> Option<Self::Count>;

    /// Connects to an instance on this node. Errors: see [`connect_tcp`] and [`connect_udp`].
    fn local(address: &str, port: u16) -> impl Future<Output = io::Result<Self>> + Send;

    /// Wraps a stream whose node has connected to the instance.
    fn remote(stream: Compat<Stream>) -> Self;
}

/// A TCP connection to an instance.
pub(super) enum TcpUpstream {
    /// The instance runs on this node.
    Local(TcpStream),
    /// The instance runs on another node; the stream carries records.
    Remote(Compat<Stream>),
}

impl Upstream for TcpUpstream {
    const PROTOCOL: PortProtocol = PortProtocol::Tcp;
    type Count = Connection;

    fn count(connections: &Connections, instance: &InstanceId) -> Option<Connection> {
        connections.begin(instance)
    }

    async fn local(address: &str, port: u16) -> io::Result<Self> {
        connect_tcp(address, port).await.map(Self::Local)
    }

    fn remote(stream: Compat<Stream>) -> Self {
        Self::Remote(stream)
    }
}

/// A UDP association with an instance.
pub(super) enum UdpUpstream {
    /// The instance runs on this node.
    Local(UdpSocket),
    /// The instance runs on another node; each record is a datagram.
    Remote(RecordStream),
}

impl Upstream for UdpUpstream {
    const PROTOCOL: PortProtocol = PortProtocol::Udp;
    type Count = ();

    fn count(_: &Connections, _: &InstanceId) -> Option<()> {
        Some(())
    }

    async fn local(address: &str, port: u16) -> io::Result<Self> {
        connect_udp(address, port).await.map(Self::Local)
    }

    fn remote(stream: Compat<Stream>) -> Self {
        Self::Remote(RecordStream::new(stream))
    }
}

/// Connects to a TCP port of an instance on this node. Errors: the connection is refused, or not accepted within
/// [`INSTANCE_TIMEOUT`] (`TimedOut`).
pub(super) async fn connect_tcp(address: &str, port: u16) -> io::Result<TcpStream> {
    let ip: IpAddr = address.parse().map_err(io::Error::other)?;
    let stream = timeout(INSTANCE_TIMEOUT, TcpStream::connect((ip, port))).await??;
    set_options(&stream);
    Ok(stream)
}

/// Returns a socket that is connected to a UDP port of an instance on this node. Errors: out of ports or descriptors.
pub(super) async fn connect_udp(address: &str, port: u16) -> io::Result<UdpSocket> {
    let ip: IpAddr = address.parse().map_err(io::Error::other)?;
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(SocketAddr::new(ip, port)).await?;
    // Before tokio has seen that the socket is writable, `try_send` fails.
    socket.writable().await?;
    Ok(socket)
}

/// Disables Nagle's algorithm and enables keepalive probes. Errors are ignored: the connection works without.
pub(super) fn set_options(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL);
}

/// Opens streams to other members, at most [`MAX_STREAMS`] to each.
pub(super) struct Streams {
    members: libp2p_stream::Control,
    permits: Mutex<HashMap<NodeId, Arc<Semaphore>>>,
}

impl Streams {
    pub(super) fn new(members: libp2p_stream::Control) -> Self {
        Self { members, permits: Mutex::default() }
    }

    /// Returns a permit for a stream to a node; `None`: the limit is reached.
    pub(super) fn acquire(&self, node: NodeId) -> Option<OwnedSemaphorePermit> {
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        let permits = permits.entry(node).or_insert_with(|| Arc::new(Semaphore::new(MAX_STREAMS)));
        Arc::clone(permits).try_acquire_owned().ok()
    }

    /// Asks a member to connect to its instance. Returns `None` when it refuses. Errors: the member cannot be reached.
    pub(super) async fn open(
        &self,
        node: NodeId,
        request: &RouteRequest,
    ) -> io::Result<Option<Compat<Stream>>> {
        let mut members = self.members.clone();
        let stream = members
            .open_stream(node.peer_id(), StreamProtocol::new(ROUTE_PROTOCOL))
            .await
            .map_err(io::Error::other)?;
        let mut stream = stream.compat();
        let request = encode(request);
        let length = u32::try_from(request.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), request.as_slice()].concat()).await?;
        stream.flush().await?;
        let accepted = stream.read_u8().await? == ACCEPTED;
        Ok(accepted.then_some(stream))
    }
}
