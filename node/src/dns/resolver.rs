//! The resolver that containers ask: questions come redirected, over UDP and TCP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::{self, Response};
use super::container_lookup::ContainerLookup;
use super::per_ip_limiter::{PerIpLimiter, Permit};
use super::table::Table;
use super::upstream::{self, MAX_DATAGRAM, NoAnswer, Transport, Upstream};

/// Questions that are being answered at a time: in all, and of one container.
const MAX_QUERIES: (usize, usize) = (512, 64);
/// TCP connections at a time: in all, and of one container.
const MAX_CONNECTIONS: (usize, usize) = (128, 8);
/// How long a TCP connection may be silent, or slow with a question.
const IDLE: Duration = Duration::from_secs(10);
/// How long to wait when the system has no descriptors left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Answers questions. Cheap to clone.
#[derive(Clone)]
pub(super) struct Resolver {
    pub(super) table: watch::Receiver<Arc<Table>>,
    pub(super) containers: Arc<ContainerLookup>,
    pub(super) upstream: Upstream,
}

impl Resolver {
    /// Answers datagrams, for ever.
    pub(super) async fn serve_udp(self, socket: UdpSocket) {
        let limiter = PerIpLimiter::new(MAX_QUERIES.0, MAX_QUERIES.1);
        let socket = Arc::new(socket);
        let mut tasks = JoinSet::new();
        let mut question = vec![0; MAX_DATAGRAM];
        loop {
            let (bytes, from) = tokio::select! {
                received = socket.recv_from(&mut question) => match received {
                    Ok(received) => received,
                    Err(error) => {
                        // Somebody was not there for his answer any more.
                        tracing::debug!(%error, "no question could be read");
                        sleep(ACCEPT_BACKOFF).await;
                        continue;
                    }
                },
                Some(_) = tasks.join_next() => continue,
            };
            let IpAddr::V4(address) = from.ip() else { continue };
            let Some(permit) = limiter.take(address) else {
                tracing::debug!(%from, "too many questions at once: one is dropped");
                continue;
            };
            let question = question.get(..bytes).unwrap_or_default().to_vec();
            let (resolver, socket) = (self.clone(), Arc::clone(&socket));
            tasks.spawn(async move {
                let _turn: Permit = permit;
                if let Some(answer) = resolver.answer(&question, address, Transport::Udp).await {
                    let _ = socket.send_to(&answer, from).await;
                }
            });
        }
    }

    /// Answers connections, for ever.
    pub(super) async fn serve_tcp(self, listener: TcpListener) {
        let limiter = PerIpLimiter::new(MAX_CONNECTIONS.0, MAX_CONNECTIONS.1);
        let mut tasks = JoinSet::new();
        loop {
            let (stream, from) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::debug!(%error, "no connection could be accepted");
                        sleep(ACCEPT_BACKOFF).await;
                        continue;
                    }
                },
                Some(_) = tasks.join_next() => continue,
            };
            let SocketAddr::V4(from) = from else { continue };
            let Some(permit) = limiter.take(*from.ip()) else { continue };
            let resolver = self.clone();
            tasks.spawn(async move {
                let _turn: Permit = permit;
                resolver.converse(stream, *from.ip()).await;
            });
        }
    }

    async fn converse(&self, mut stream: TcpStream, from: Ipv4Addr) {
        while let Ok(Ok(question)) = timeout(IDLE, upstream::read_framed(&mut stream)).await {
            let Some(answer) = self.answer(&question, from, Transport::Tcp).await else { return };
            match timeout(IDLE, upstream::write_framed(&mut stream, &answer)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    }

    /// `None`: nothing is said to that.
    async fn answer(
        &self,
        question: &[u8],
        from: Ipv4Addr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let querier = match self.containers.of(from).await {
            Ok(querier) => querier?,
            Err(error) => {
                tracing::debug!(%from, error, "Docker does not say who asks");
                return answer::refuse(question, ResponseCode::ServFail);
            }
        };
        let table = Arc::clone(&self.table.borrow());
        match answer::answer(question, &querier, &table) {
            Response::Answer(answer) => Some(answer),
            Response::Ignore => None,
            Response::Forward => match self.upstream.ask(question, transport).await {
                Ok(answer) => Some(answer),
                // Nobody else knows such names: it does not exist, which is said at once.
                Err(NoAnswer::Nobody) if answer::is_single_label(question) => {
                    answer::refuse(question, ResponseCode::NXDomain)
                }
                Err(_) => answer::refuse(question, ResponseCode::ServFail),
            },
        }
    }
}
