//! The transparent proxy: forwards redirected connections and datagrams to the service whose virtual IP they were sent
//! to, if the client shares a network with it.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use vc_protocol::ServiceKey;

use super::container_lookup::ContainerLookup;
use super::service_router::{Admit, ServiceRouter};
use super::table::Table;
use crate::limiter::Limiter;

/// Limit of concurrent connections, in total and per container.
const MAX_CONNECTIONS: (usize, usize) = (16_384, 4096);
/// Pause after a failed `accept`, as when file descriptors run out.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Forwards admitted clients. Cheap to clone.
#[derive(Clone)]
pub(super) struct TransparentProxy<F> {
    pub(super) table: watch::Receiver<Arc<Table>>,
    pub(super) containers: Arc<ContainerLookup>,
    pub(super) router: F,
}

impl<F: ServiceRouter> TransparentProxy<F> {
    /// Accepts connections until `stop` is cancelled; completes when all are closed.
    pub(super) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let limiter = Limiter::new(MAX_CONNECTIONS.0, MAX_CONNECTIONS.1);
        let mut tasks = JoinSet::new();
        loop {
            let (stream, client) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, SocketAddr::V4(client))) => (stream, client),
                    Ok(_) => continue,
                    Err(error) => {
                        tracing::debug!(%error, "accept failed");
                        sleep(ACCEPT_BACKOFF).await;
                        continue;
                    }
                },
                Some(_) = tasks.join_next() => continue,
                () = stop.cancelled() => break,
            };
            let Some(permit) = limiter.acquire(*client.ip()) else {
                tracing::debug!(%client, "connection limit reached, client reset");
                reset(&stream);
                continue;
            };
            let proxy = self.clone();
            tasks.spawn(async move {
                let _permit = permit;
                match proxy.target(&stream, client).await {
                    Some((service, port)) => proxy.router.tcp(stream, service, port).await,
                    None => reset(&stream),
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Returns the service and port that a connection was sent to; `None`: its client may not reach that service.
    async fn target(&self, stream: &TcpStream, client: SocketAddrV4) -> Option<(ServiceKey, u16)> {
        // Without a redirection this is the socket's own address, which is no virtual IP.
        let to = original_destination(stream).ok()?;
        let querier = self.containers.find(*client.ip()).await.ok().flatten()?;
        let table = Arc::clone(&self.table.borrow());
        let service = table.reach(&querier, *to.ip())?.clone();
        Some((service, to.port()))
    }

    /// Returns the check whether a client may send datagrams to a service.
    pub(super) fn admit(&self, service: ServiceKey) -> Admit {
        let (table, containers) = (self.table.clone(), Arc::clone(&self.containers));
        Arc::new(move |client: IpAddr| {
            let (table, containers, service) =
                (table.clone(), Arc::clone(&containers), service.clone());
            Box::pin(async move {
                let IpAddr::V4(client) = client else { return false };
                let Ok(Some(querier)) = containers.find(client).await else { return false };
                table.borrow().admits(&querier, &service)
            })
        })
    }
}

/// Returns the destination of a connection before it was redirected (`SO_ORIGINAL_DST`).
fn original_destination(stream: &TcpStream) -> io::Result<SocketAddrV4> {
    let to = SockRef::from(stream).original_dst_v4()?;
    to.as_socket_ipv4().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// Makes closing the connection a reset, which the client sees as a refusal and not as the end of the data.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
