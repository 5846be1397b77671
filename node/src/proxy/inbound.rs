//! Streams of other members, to instances here.

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

use super::connect::{Upstream, local};
use super::connections::Connection;
use super::{MAX_STREAMS, Router, splice, udp};

/// Who opened a stream has so long to say where it goes.
const REQUEST: Duration = Duration::from_secs(2);

/// Answers other members, until no more streams come.
pub async fn serve(router: Router, mut streams: mpsc::Receiver<(PeerId, Stream)>) {
    let mut places: HashMap<PeerId, Arc<Semaphore>> = HashMap::new();
    while let Some((peer, stream)) = streams.recv().await {
        places.retain(|_, places| Arc::strong_count(places) > 1);
        let places = places.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(MAX_STREAMS)));
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            tracing::warn!(%peer, "a member has too many streams to instances here; this one is turned away");
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            let mut stream = stream.compat();
            // What it takes to connect is not held as long as the connection lives.
            match Box::pin(router.accept(&mut stream)).await {
                Ok(Some((_connection, Upstream::Tcp(instance)))) => {
                    splice::records(instance, stream, std::future::pending()).await;
                }
                Ok(Some((_, Upstream::Udp(instance)))) => udp::records(instance, stream).await,
                Ok(Some((_, Upstream::Stream(_))) | None) => {}
                Err(error) => tracing::debug!(%peer, %error, "no way to an instance here"),
            }
            drop(place);
        });
    }
}

impl Router {
    /// Reads where a stream is to go, connects to there and answers. Errors: the stream broke, or carries no request.
    async fn accept(
        &self,
        stream: &mut Compat<Stream>,
    ) -> io::Result<Option<(Option<Connection>, Upstream)>> {
        let request = tokio::time::timeout(REQUEST, read(stream)).await??;
        let connected = self.reach(&request).await;
        let answer = if connected.is_some() { ACCEPTED } else { REFUSED };
        stream.write_all(&[answer]).await?;
        stream.flush().await?;
        if connected.is_none() {
            stream.shutdown().await?;
        }
        Ok(connected)
    }

    /// Connects to an instance here that takes connections. This node knows best which do.
    async fn reach(&self, request: &RouteRequest) -> Option<(Option<Connection>, Upstream)> {
        let routes = Arc::clone(&self.inner.table.borrow());
        let endpoints = &routes.services.get(&request.instance.slot.service)?.endpoints;
        let endpoint = endpoints
            .iter()
            .find(|it| it.node == self.inner.node && it.instance == request.instance)?;
        if self.inner.connections.is_leaving(&request.instance) {
            return None;
        }
        let connection = match request.protocol {
            PortProtocol::Tcp => Some(self.inner.connections.begin(&request.instance)?),
            PortProtocol::Udp => None,
        };
        let upstream = local(&endpoint.address, request.port, request.protocol).await.ok()?;
        Some((connection, upstream))
    }
}

async fn read(stream: &mut Compat<Stream>) -> io::Result<RouteRequest> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > MAX_REQUEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a request that is too long"));
    }
    let mut request = vec![0; length];
    stream.read_exact(&mut request).await?;
    decode(&request).map_err(io::Error::other)
}
