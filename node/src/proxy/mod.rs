//! The service proxy: a layer-4 load balancer that forwards TCP connections and UDP datagrams to the instances of a
//! service, on this node or another.
//!
//! Traffic comes from a published port (`ingress`), from a container that connects to a service's virtual IP
//! ([`Router::serve`], called by [`crate::dns`]), or from another member's stream (`inbound`). The first two choose an
//! instance (`load_balancer`), preferring this node, and otherwise open a libp2p stream to the instance's node.
//! [`Routes`](vc_engine::routes::Routes) lists the instances. What it cannot show yet, such as a node that died a moment
//! ago, is found by trying: until the first byte is forwarded the next instance is tried, and an endpoint that does not
//! answer is ejected for a while (outlier ejection; a circuit breaker that opens at the first failure). An established
//! connection (`splice`) has no timeout and outlives every change of the routes.

pub mod connections;
mod conntrack;
mod forward;
mod host_ports;
mod inbound;
mod ingress;
pub(crate) mod instance_stream;
mod limits;
mod listen;
mod load_balancer;
mod port_owner;
mod proxy_protocol;
mod record;
mod restart;
mod router;
mod routes;
mod splice;
mod traffic;
mod udp;
mod udp_socket;
mod upstream;

pub use connections::Connections;
pub(crate) use host_ports::HostPorts;
pub use inbound::serve as serve_member_streams;
pub use ingress::{Ingress, PublishErrors};
pub use limits::{
    CONNECT_DEADLINE, EJECTION_TIME, INSTANCE_TIMEOUT, MAX_CONNECTIONS, MAX_STREAMS, MEMBER_TIMEOUT,
};
pub use router::Router;
pub use routes::maintain_routes;
pub use splice::resume;
pub(crate) use traffic::TrafficCounts;
