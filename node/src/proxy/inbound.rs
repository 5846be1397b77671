//! Streams of other members to instances on this node.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use libp2p::{PeerId, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};
use vc_protocol::route::{ACCEPTED, MAX_REQUEST, REFUSED, RouteRequest};
use vc_protocol::spec::PortProtocol;
use vc_protocol::wire::decode;

use super::limits::MAX_STREAMS;
use super::record::RecordStream;
use super::router::Router;
use super::splice::Direction;
use super::upstream::{connect_tcp, connect_udp};
use super::{splice, udp};

/// How long a member may take to send its request after it opened a stream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves streams of other members until the channel closes; at most [`MAX_STREAMS`] of each member at once.
pub async fn serve(router: Router, mut streams: mpsc::Receiver<(PeerId, Stream)>) {
    let mut permits: HashMap<PeerId, Arc<Semaphore>> = HashMap::new();
    while let Some((peer, stream)) = streams.recv().await {
        permits.retain(|_, permits| Arc::strong_count(permits) > 1);
        let permits = permits.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(MAX_STREAMS)));
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else {
            tracing::warn!(%peer, limit = MAX_STREAMS, "stream limit of a member reached, stream dropped");
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_stream(&router, stream.compat()).await {
                tracing::debug!(%peer, %error, "route request failed");
            }
            drop(permit);
        });
    }
}

/// Connects a stream to the instance that it names and forwards until either is closed. Errors: the stream closed
/// early, or did not begin with a request.
async fn serve_stream(router: &Router, mut stream: Compat<Stream>) -> io::Result<()> {
    let restart = &router.inner.restart;
    let _open = (restart.connection(), restart.stream());
    // Boxed, so that the state of connecting is freed before forwarding begins.
    let request = Box::pin(tokio::time::timeout(REQUEST_TIMEOUT, read_request(&mut stream)));
    let request = request.await??;
    match request.protocol {
        PortProtocol::Tcp => {
            let connecting = Box::pin(async {
                let address = router.address_of(&request)?;
                let connection = router.inner.connections.begin(&request.instance)?;
                Some((connection, connect_tcp(&address, request.port).await.ok()?))
            });
            let connected = connecting.await;
            Box::pin(answer(&mut stream, connected.is_some())).await?;
            if let Some((_connection, instance)) = connected {
                let down = std::future::pending();
                let (bandwidth, to) = (&router.inner.bandwidth, Direction::To);
                splice::records(instance, stream, to, down, restart, bandwidth, None).await;
            }
        }
        PortProtocol::Udp => {
            let connecting = Box::pin(async {
                connect_udp(&router.address_of(&request)?, request.port).await.ok()
            });
            let connected = connecting.await;
            Box::pin(answer(&mut stream, connected.is_some())).await?;
            if let Some(instance) = connected {
                udp::forward_records(instance, RecordStream::new(stream)).await;
            }
        }
    }
    Ok(())
}

impl Router {
    /// Returns the address of an instance on this node that accepts connections.
    fn address_of(&self, request: &RouteRequest) -> Option<String> {
        if self.inner.restart.is_detaching() {
            return None;
        }
        let routes = self.inner.table.borrow();
        let service = routes.services.get(&request.instance.slot.service)?;
        let endpoints = &service.endpoints;
        let is_it = |it: &&vc_engine::routes::Endpoint| {
            it.node == self.inner.node && it.instance == request.instance
        };
        let endpoint = endpoints.iter().find(is_it)?;
        let draining = self.inner.connections.is_draining(&request.instance);
        let is_open = !draining && service.has_port(request.protocol, request.port);
        is_open.then(|| endpoint.address.clone())
    }
}

async fn read_request(stream: &mut Compat<Stream>) -> io::Result<RouteRequest> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > MAX_REQUEST {
        let error = format!("route request of {length} bytes is over the limit of {MAX_REQUEST}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    let mut request = vec![0; length];
    stream.read_exact(&mut request).await?;
    decode(&request).map_err(io::Error::other)
}

async fn answer(stream: &mut Compat<Stream>, accepted: bool) -> io::Result<()> {
    stream.write_all(&[if accepted { ACCEPTED } else { REFUSED }]).await?;
    stream.flush().await?;
    if accepted { Ok(()) } else { stream.shutdown().await }
}
