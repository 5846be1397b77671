//! The routing mesh: connections to services, wherever their instances are.
//!
//! Three ways lead in: a port that this node publishes (`ingress`), a connection that came to a service's name
//! ([`Router::serve`]), and a stream of another member (`inbound`). The first two look for an instance: here if there
//! is one, else on another node over a libp2p stream. [`Routes`] says which there are; what it cannot know, as that
//! a node died a moment ago, is found out by trying: as long as no byte has been relayed, the next instance may do
//! as well. A connection that is established lives as long as its two ends: no change of the table touches it, and it
//! has no timeout.

mod connect;
pub mod connections;
mod inbound;
mod ingress;
pub(crate) mod instance_stream;
mod listen;
mod load_balancer;
mod port_owner;
mod splice;
mod udp;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use vc_engine::routes::Routes;
use vc_protocol::{NodeId, ServiceKey};

pub use connections::Connections;
pub use inbound::serve as serve_member_streams;
pub use ingress::{Ingress, PublishErrors};

use crate::dns::{Admit, ServiceRouter};
use crate::snapshot::Snapshot;
use connect::{Streams, Upstream};
use load_balancer::LoadBalancer;

/// Connections that this node forwards at once. Those beyond are reset.
pub const MAX_CONNECTIONS: usize = 16_384;
/// Streams to one member, and from one, at once: what a connection between two nodes can carry is not without end.
pub const MAX_STREAMS: usize = 1280;
// Both sides open streams for connections, and for everything else.
const _: () = assert!(2 * MAX_STREAMS + 512 <= crate::network::MAX_STREAMS);
/// An instance here has so long to take a connection. Shorter than [`MEMBER_TIMEOUT`], so that a member says in time that its
/// instance does not.
pub const INSTANCE_TIMEOUT: Duration = Duration::from_millis(500);
/// A member has so long to answer before another one is tried.
pub const MEMBER_TIMEOUT: Duration = Duration::from_millis(700);
/// Who did not answer is tried last for so long.
pub const EJECTION_TIME: Duration = Duration::from_secs(2);
/// A connection that no instance takes is held so long, for one that may come; then it is reset.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// Between two rounds through all instances.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Which instances may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All.
    Cluster,
    /// Those on this node.
    Node,
}

/// Forwards connections to instances. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    table: watch::Receiver<Arc<Routes>>,
    connections: Connections,
    balancer: LoadBalancer,
    streams: Streams,
    places: Arc<Semaphore>,
}

impl Router {
    /// A router on this node, by a table that changes.
    pub fn new(
        node: NodeId,
        table: watch::Receiver<Arc<Routes>>,
        connections: Connections,
        members: libp2p_stream::Control,
    ) -> Self {
        let balancer = LoadBalancer::new(node, connections.clone());
        let streams = Streams::new(members);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { inner: Arc::new(Inner { node, table, connections, balancer, streams, places }) }
    }

    /// Forwards a TCP connection to a port of an instance of a service, and returns when it is over. When no instance
    /// takes it within [`CONNECT_DEADLINE`], it is reset.
    pub async fn serve(&self, client: TcpStream, service: ServiceKey, port: u16) {
        self.forward(client, service, port, Scope::Cluster).await;
    }

    /// Forwards what comes to a UDP socket to a port of the instances of a service, and their answers from the same
    /// socket; as long as it is polled. Each client keeps its instance while that is there; one who is not admitted
    /// gets nowhere.
    pub async fn serve_udp(&self, socket: UdpSocket, service: ServiceKey, port: u16, admit: Admit) {
        udp::serve(self.clone(), socket, service, port, Scope::Cluster, Some(admit)).await;
    }

    /// Where connections go now, and how to learn of changes.
    pub fn table(&self) -> watch::Receiver<Arc<Routes>> {
        self.inner.table.clone()
    }

    pub(crate) async fn forward(
        &self,
        client: TcpStream,
        service: ServiceKey,
        port: u16,
        scope: Scope,
    ) {
        let Ok(_place) = self.inner.places.try_acquire() else {
            tracing::debug!(%service, "too many connections; this one is reset");
            return splice::reset(client);
        };
        connect::settings(&client);
        // What it takes to connect is not held as long as the connection lives.
        let route = Box::pin(self.connect(&service, port, scope)).await;
        drop(service);
        let Some(route) = route else { return splice::reset(client) };
        match route.upstream {
            Upstream::Tcp(instance) => splice::tcp(client, instance).await,
            Upstream::Stream(stream) => {
                let lost = self.node_down(&route.endpoint);
                splice::records(client, stream, lost).await;
            }
            // Nobody asked for that.
            Upstream::Udp(_) => splice::reset(client),
        }
    }
}

impl ServiceRouter for Router {
    async fn tcp(&self, stream: TcpStream, service: ServiceKey, port: u16) {
        self.serve(stream, service, port).await;
    }

    async fn udp(&self, socket: UdpSocket, service: ServiceKey, port: u16, admit: Admit) {
        self.serve_udp(socket, service, port, admit).await;
    }
}

/// Keeps the table that follows from the latest view. Ends when nobody tells of views or listens any more.
pub async fn maintain_routes(
    mut snapshot: watch::Receiver<Snapshot>,
    table: watch::Sender<Arc<Routes>>,
) {
    let mut view = Arc::clone(&snapshot.borrow_and_update().view);
    loop {
        let routes = Routes::of(&view);
        table.send_if_modified(|held| {
            let new = **held != routes;
            if new {
                *held = Arc::new(routes);
            }
            new
        });
        // What nodes use changes more often than what is.
        loop {
            tokio::select! {
                changed = snapshot.changed() => if changed.is_err() { return },
                () = table.closed() => return,
            }
            let latest = Arc::clone(&snapshot.borrow_and_update().view);
            if !Arc::ptr_eq(&latest, &view) {
                view = latest;
                break;
            }
        }
    }
}
