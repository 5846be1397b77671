//! Connections and datagrams to virtual addresses: they come redirected, and go to the service if whoever sent them
//! shares a network with it.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use vc_protocol::ServiceKey;

use super::container_lookup::ContainerLookup;
use super::per_ip_limiter::{PerIpLimiter, Permit};
use super::table::Table;
use super::{Admit, ServiceRouter};

/// Connections at a time: in all, and of one container.
const MAX_CONNECTIONS: (usize, usize) = (16_384, 4096);
/// How long to wait when the system has no descriptors left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Lets through what may pass. Cheap to clone.
#[derive(Clone)]
pub(super) struct TransparentProxy<F> {
    pub(super) table: watch::Receiver<Arc<Table>>,
    pub(super) containers: Arc<ContainerLookup>,
    pub(super) router: F,
}

impl<F: ServiceRouter> TransparentProxy<F> {
    /// Serves connections, for ever.
    pub(super) async fn serve(self, listener: TcpListener) {
        let limiter = PerIpLimiter::new(MAX_CONNECTIONS.0, MAX_CONNECTIONS.1);
        let mut tasks = JoinSet::new();
        loop {
            let (stream, from) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, SocketAddr::V4(from))) => (stream, from),
                    Ok(_) => continue,
                    Err(error) => {
                        tracing::debug!(%error, "no connection could be accepted");
                        sleep(ACCEPT_BACKOFF).await;
                        continue;
                    }
                },
                Some(_) = tasks.join_next() => continue,
            };
            let Some(permit) = limiter.take(*from.ip()) else {
                tracing::debug!(%from, "too many connections at once: one is refused");
                reset(&stream);
                continue;
            };
            let proxy = self.clone();
            tasks.spawn(async move {
                let _turn: Permit = permit;
                match proxy.target(&stream, from).await {
                    Some((service, port)) => proxy.router.tcp(stream, service, port).await,
                    None => reset(&stream),
                }
            });
        }
    }

    /// The service and the port that a connection is for, if it may have it.
    async fn target(&self, stream: &TcpStream, from: SocketAddrV4) -> Option<(ServiceKey, u16)> {
        // One that was not redirected has our own address here, which is no service's.
        let to = original_destination(stream).ok()?;
        let querier = self.containers.of(*from.ip()).await.ok().flatten()?;
        let table = Arc::clone(&self.table.borrow());
        let service = table.reach(&querier, *to.ip())?.clone();
        Some((service, to.port()))
    }

    /// Who may send datagrams to a service.
    pub(super) fn admit(&self, service: ServiceKey) -> Admit {
        let (table, containers) = (self.table.clone(), Arc::clone(&self.containers));
        Arc::new(move |from: IpAddr| {
            let (table, containers, service) =
                (table.clone(), Arc::clone(&containers), service.clone());
            Box::pin(async move {
                let IpAddr::V4(from) = from else { return false };
                let Ok(Some(querier)) = containers.of(from).await else { return false };
                table.borrow().admits(&querier, &service)
            })
        })
    }
}

/// Where a connection was going before it was redirected.
fn original_destination(stream: &TcpStream) -> io::Result<SocketAddrV4> {
    let to = SockRef::from(stream).original_dst_v4()?;
    to.as_socket_ipv4().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// It ends as one that was refused, not as one that had nothing to say.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
