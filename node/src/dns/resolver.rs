//! Serves DNS queries of containers over UDP and TCP (RFC 1035, RFC 7766).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use ipnet::Ipv4Net;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use vc_runtime::docker::SUBNET_LENGTH;

use super::answer::{self, Response};
use super::container_lookup::ContainerLookup;
use super::table::Table;
use super::upstream::{self, ForwardError, MAX_DATAGRAM, Transport, Upstream};
use crate::limiter::Limiter;

/// Limit of concurrent UDP queries, in total and per container.
const MAX_QUERIES: (usize, usize) = (512, 64);
/// Limit of concurrent TCP connections, in total and per container.
const MAX_CONNECTIONS: (usize, usize) = (128, 8);
/// How long a TCP connection may take for its next query, or to accept an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed `accept` or `recv_from`, as when file descriptors run out.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Answers DNS queries. Cheap to clone.
#[derive(Clone)]
pub(super) struct Resolver {
    pub(super) table: watch::Receiver<Arc<Table>>,
    pub(super) containers: Arc<ContainerLookup>,
    pub(super) upstream: Upstream,
}

/// Returns the network of this node that a container with an address is in, for whose addresses no other server has names.
fn network_of(container: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new_assert(container, SUBNET_LENGTH).trunc()
}

impl Resolver {
    /// Answers queries in datagrams until `stop` is cancelled; completes when all are answered.
    pub(super) async fn serve_udp(self, socket: UdpSocket, stop: CancellationToken) {
        let limiter = Limiter::new(MAX_QUERIES.0, MAX_QUERIES.1);
        let socket = Arc::new(socket);
        let mut tasks = JoinSet::new();
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let (bytes, client) = tokio::select! {
                received = socket.recv_from(&mut buffer) => match received {
                    Ok(received) => received,
                    Err(error) => {
                        // An ICMP error for an earlier answer, such as a closed port.
                        tracing::debug!(%error, "receive failed");
                        sleep(ACCEPT_BACKOFF).await;
                        continue;
                    }
                },
                Some(_) = tasks.join_next() => continue,
                () = stop.cancelled() => break,
            };
            let IpAddr::V4(address) = client.ip() else { continue };
            let Some(permit) = limiter.acquire(address) else {
                tracing::debug!(%client, "query limit reached, query dropped");
                continue;
            };
            let query = buffer.get(..bytes).unwrap_or_default().to_vec();
            let (resolver, socket) = (self.clone(), Arc::clone(&socket));
            tasks.spawn(async move {
                let _permit = permit;
                if let Some(answer) = resolver.answer(&query, address, Transport::Udp).await {
                    let _ = socket.send_to(&answer, client).await;
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Answers queries on TCP connections, and accepts some until `stop` is cancelled; completes when all are closed.
    pub(super) async fn serve_tcp(self, listener: TcpListener, stop: CancellationToken) {
        let limiter = Limiter::new(MAX_CONNECTIONS.0, MAX_CONNECTIONS.1);
        let mut tasks = JoinSet::new();
        loop {
            let (stream, client) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::debug!(%error, "accept failed");
                        sleep(ACCEPT_BACKOFF).await;
                        continue;
                    }
                },
                Some(_) = tasks.join_next() => continue,
                () = stop.cancelled() => break,
            };
            let SocketAddr::V4(client) = client else { continue };
            let Some(permit) = limiter.acquire(*client.ip()) else { continue };
            let resolver = self.clone();
            tasks.spawn(async move {
                let _permit = permit;
                resolver.serve_connection(stream, *client.ip()).await;
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn serve_connection(&self, mut stream: TcpStream, client: Ipv4Addr) {
        while let Ok(Ok(query)) = timeout(IDLE_TIMEOUT, upstream::read_framed(&mut stream)).await {
            let Some(answer) = self.answer(&query, client, Transport::Tcp).await else { return };
            match timeout(IDLE_TIMEOUT, upstream::write_framed(&mut stream, &answer)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    }

    /// Returns the answer to a query; `None`: it is ignored.
    async fn answer(
        &self,
        query: &[u8],
        client: Ipv4Addr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let querier = match self.containers.find(client).await {
            Ok(querier) => querier?,
            Err(error) => {
                tracing::debug!(%client, %error, "container lookup failed");
                return answer::refuse(query, ResponseCode::ServFail);
            }
        };
        let table = Arc::clone(&self.table.borrow());
        match answer::answer(query, &querier, &table) {
            Response::Answer(answer) => Some(answer),
            Response::Ignore => None,
            // A query carries words out, and its answer back.
            Response::Forward if querier.is_isolated => {
                answer::refuse(query, ResponseCode::NXDomain)
            }
            // Servers look up their clients, and see the gateway: they would wait where no upstream server answers (RFC 6303).
            Response::Forward if answer::is_reverse_in(query, network_of(client)) => {
                answer::refuse(query, ResponseCode::NXDomain)
            }
            Response::Forward => {
                match self.upstream.forward(query, transport, &querier.dns).await {
                    Ok(answer) if transport == Transport::Udp => Some(answer::fit(query, answer)),
                    Ok(answer) => Some(answer),
                    // Without upstream servers a local host name does not exist; no retry can find it.
                    Err(ForwardError::NoServers) if answer::is_single_label(query) => {
                        answer::refuse(query, ResponseCode::NXDomain)
                    }
                    Err(_) => answer::refuse(query, ResponseCode::ServFail),
                }
            }
        }
    }
}
