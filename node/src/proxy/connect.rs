//! Connecting to an instance: tries one after another until one takes the connection.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libp2p::{Stream, StreamProtocol};
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};
use vc_engine::routes::Endpoint;
use vc_protocol::route::{ACCEPTED, RouteRequest};
use vc_protocol::spec::PortProtocol;
use vc_protocol::wire::{ROUTE_PROTOCOL, encode};
use vc_protocol::{NodeId, ServiceKey};

use super::connections::Connection;
use super::load_balancer::Ejected;
use super::{
    CONNECT_DEADLINE, INSTANCE_TIMEOUT, MAX_STREAMS, MEMBER_TIMEOUT, RETRY_INTERVAL, Router, Scope,
};

/// A silent end of a TCP connection is asked after so long whether it is still there, and then again and again.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Between two such questions.
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(15);

/// A way to an instance.
pub(super) struct Route {
    /// Which instance.
    pub(super) endpoint: Endpoint,
    /// The way.
    pub(super) upstream: Upstream,
    /// Its place among the connections of the instance; UDP, which has no connections, has none.
    pub(super) connection: Option<Connection>,
    /// Its place among the streams to its node.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

/// What leads to an instance.
pub(super) enum Upstream {
    /// An instance here.
    Tcp(TcpStream),
    /// An instance here.
    Udp(UdpSocket),
    /// An instance on another node, by records.
    Stream(Compat<Stream>),
}

/// Why an instance did not take a connection.
enum Failure {
    /// It said so, or takes none now: another attempt may find it changed.
    Refused,
    /// No answer came.
    Silent(Ejected),
}

/// The streams to other members.
pub(super) struct Streams {
    members: libp2p_stream::Control,
    places: Mutex<HashMap<NodeId, Arc<Semaphore>>>,
}

impl Streams {
    pub(super) fn new(members: libp2p_stream::Control) -> Self {
        Self { members, places: Mutex::default() }
    }

    fn place(&self, node: NodeId) -> Option<OwnedSemaphorePermit> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let places = places.entry(node).or_insert_with(|| Arc::new(Semaphore::new(MAX_STREAMS)));
        Arc::clone(places).try_acquire_owned().ok()
    }

    /// Asks a member for a way to its instance. `Ok(None)`: it refuses.
    async fn open(
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

impl Router {
    /// A way for TCP to an instance of a service; `None`: none was found in time.
    pub(super) async fn connect(
        &self,
        service: &ServiceKey,
        port: u16,
        scope: Scope,
    ) -> Option<Route> {
        self.connect_by(PortProtocol::Tcp, service, port, scope).await
    }

    /// A way to an instance of a service; `None`: none was found within [`CONNECT_DEADLINE`].
    pub(super) async fn connect_by(
        &self,
        protocol: PortProtocol,
        service: &ServiceKey,
        port: u16,
        scope: Scope,
    ) -> Option<Route> {
        let give_up = Instant::now() + CONNECT_DEADLINE;
        let left = || give_up.saturating_duration_since(Instant::now());
        let mut table = self.inner.table.clone();
        let mut patience = MEMBER_TIMEOUT;
        loop {
            let mut tried = Vec::new();
            loop {
                let routes = Arc::clone(&table.borrow_and_update());
                let balancer = &self.inner.balancer;
                let chosen = balancer.choose(&routes, service, scope, &tried, Instant::now());
                let Some(endpoint) = chosen else { break };
                match self.attempt(endpoint, port, protocol, patience.min(left())).await {
                    Ok(route) => return Some(route),
                    Err(Failure::Refused) => {}
                    Err(Failure::Silent(suspect)) => {
                        tracing::debug!(?suspect, %service, "no answer; another instance is tried");
                        balancer.eject(suspect, Instant::now());
                    }
                }
                tried.push(endpoint.clone());
                if left().is_zero() {
                    return None;
                }
            }
            // Whoever needs long gets longer, when nobody else is there.
            patience *= 2;
            let pause = if tried.is_empty() { left() } else { left().min(RETRY_INTERVAL) };
            match timeout(pause, table.changed()).await {
                Ok(Ok(())) => {}
                // The node ends.
                Ok(Err(_)) => return None,
                Err(_) if left().is_zero() => return None,
                Err(_) => {}
            }
        }
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        port: u16,
        protocol: PortProtocol,
        patience: Duration,
    ) -> Result<Route, Failure> {
        let connection = match protocol {
            PortProtocol::Tcp => {
                let begun = self.inner.connections.begin(&endpoint.instance);
                Some(begun.ok_or(Failure::Refused)?)
            }
            PortProtocol::Udp => None,
        };
        let route =
            |upstream, place| Route { endpoint: endpoint.clone(), upstream, place, connection };
        if endpoint.node == self.inner.node {
            return match local(&endpoint.address, port, protocol).await {
                Ok(upstream) => Ok(route(upstream, None)),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    Err(Failure::Silent(Ejected::Instance(endpoint.instance.clone())))
                }
                Err(_) => Err(Failure::Refused),
            };
        }
        let streams = &self.inner.streams;
        let place = streams.place(endpoint.node).ok_or(Failure::Refused)?;
        let request = RouteRequest { instance: endpoint.instance.clone(), port, protocol };
        match timeout(patience, streams.open(endpoint.node, &request)).await {
            Ok(Ok(Some(opened))) => Ok(route(Upstream::Stream(opened), Some(place))),
            Ok(Ok(None)) => Err(Failure::Refused),
            Ok(Err(_)) | Err(_) => Err(Failure::Silent(Ejected::Node(endpoint.node))),
        }
    }
}

/// Connects to an instance on this node. Errors: it refuses, or says nothing within [`INSTANCE_TIMEOUT`] (`TimedOut`).
pub(super) async fn local(
    address: &str,
    port: u16,
    protocol: PortProtocol,
) -> io::Result<Upstream> {
    let ip: IpAddr = address.parse().map_err(io::Error::other)?;
    let to = SocketAddr::new(ip, port);
    match protocol {
        PortProtocol::Tcp => {
            let stream = timeout(INSTANCE_TIMEOUT, TcpStream::connect(to)).await??;
            settings(&stream);
            Ok(Upstream::Tcp(stream))
        }
        PortProtocol::Udp => {
            let any: IpAddr = match ip {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(to).await?;
            // Until it is known that the socket takes datagrams, it loses them.
            socket.writable().await?;
            Ok(Upstream::Udp(socket))
        }
    }
}

/// What a forwarded connection is set to: nothing waits for more to send, and an end that has vanished is noticed in
/// the end. Where a system refuses one of these, the connection works without.
pub(super) fn settings(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_AGAIN);
}
