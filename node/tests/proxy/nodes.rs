//! Nodes reduced to the proxy: a swarm, routes that the test sets, and a router.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::core::upgrade::Version;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use libp2p_stream::IncomingStreams;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use vc_engine::routes::{Endpoint, Routes, ServiceRoutes};
use vc_node::bandwidth::Bandwidth;
use vc_node::proxy::{Connections, Router, serve_member_streams};
use vc_protocol::wire::ROUTE_PROTOCOL;
use vc_protocol::{InstanceId, Keypair, NodeId, ServiceKey};

pub struct Node {
    pub id: NodeId,
    pub router: Router,
    pub connections: Connections,
    pub members: libp2p_stream::Control,
    pub table: watch::Sender<Arc<Routes>>,
}

/// Returns the service that all tests use.
pub fn service() -> ServiceKey {
    "shop/web".parse().expect("a service")
}

/// Returns the instance of a replica.
pub fn instance(replica: u32) -> InstanceId {
    format!("shop/web.{replica}@0123456789abcdef").parse().expect("an instance")
}

/// Returns a swarm with a new key, and its node id.
fn swarm() -> (NodeId, Swarm<libp2p_stream::Behaviour>) {
    let key = Keypair::generate_ed25519();
    let swarm = SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, || {
            let mut yamux = yamux::Config::default();
            yamux.set_max_num_streams(3072);
            yamux
        })
        .expect("TCP")
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .expect("a behaviour")
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(Duration::from_secs(600))
                .with_substream_upgrade_protocol_override(Version::V1Lazy)
        })
        .build();
    (NodeId::of(&key.public()).expect("ed25519"), swarm)
}

/// Starts a router on a swarm that the caller polls.
fn node(id: NodeId, swarm: &Swarm<libp2p_stream::Behaviour>) -> Node {
    let mut members = swarm.behaviour().new_control();
    let mut incoming =
        members.accept(StreamProtocol::new(ROUTE_PROTOCOL)).expect("the protocol is free");
    let (sender, streams) = mpsc::channel(256);
    tokio::spawn(async move {
        while let Some(stream) = incoming.next().await {
            if sender.send(stream).await.is_err() {
                return;
            }
        }
    });
    let (table, routes) = watch::channel(Arc::default());
    let connections = Connections::default();
    let router =
        Router::new(id, routes, connections.clone(), members.clone(), Bandwidth::default());
    tokio::spawn(serve_member_streams(router.clone(), streams));
    Node { id, router, connections, members, table }
}

/// Connects two swarms and polls them in the background.
async fn connect(
    mut one: Swarm<libp2p_stream::Behaviour>,
    mut other: Swarm<libp2p_stream::Behaviour>,
) {
    other.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address")).expect("listens");
    let address: Multiaddr = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = other.select_next_some().await {
            break address;
        }
    };
    one.dial(address).expect("dials");
    tokio::spawn(async move { while other.next().await.is_some() {} });
    while !matches!(one.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    tokio::spawn(async move { while one.next().await.is_some() {} });
}

/// Returns two connected nodes.
pub async fn pair() -> (Node, Node) {
    let ((here, one), (there, other)) = (swarm(), swarm());
    let nodes = (node(here, &one), node(there, &other));
    connect(one, other).await;
    nodes
}

/// Returns a node that is connected to a member that never answers, the id of that member, and the streams that the node
/// opens to it.
pub async fn with_silent_member() -> (Node, NodeId, IncomingStreams) {
    let ((here, one), (silent, other)) = (swarm(), swarm());
    let node = node(here, &one);
    let mut control = other.behaviour().new_control();
    let streams =
        control.accept(StreamProtocol::new(ROUTE_PROTOCOL)).expect("the protocol is free");
    connect(one, other).await;
    (node, silent, streams)
}

/// Returns a node without connections.
pub fn alone() -> Node {
    let (id, mut own) = swarm();
    let node = node(id, &own);
    tokio::spawn(async move { while own.next().await.is_some() {} });
    node
}

/// Sets the service's instances in the routes of some nodes: replica, node, address.
pub fn place(nodes: &[&Node], endpoints: &[(u32, NodeId, &str)]) {
    place_with(nodes, endpoints, |_| {});
}

/// As [`place`], with further changes to the routes.
pub fn place_with(
    nodes: &[&Node],
    endpoints: &[(u32, NodeId, &str)],
    more: impl FnOnce(&mut Routes),
) {
    let endpoints = endpoints
        .iter()
        .map(|&(replica, node, address)| Endpoint {
            instance: instance(replica),
            node,
            address: address.to_owned(),
        })
        .collect();
    let udp = BTreeSet::from([53]);
    let routes = ServiceRoutes { endpoints, udp, ..ServiceRoutes::default() };
    let services = BTreeMap::from([(service(), routes)]);
    let mut routes = Routes { services, ..Routes::default() };
    more(&mut routes);
    let routes = Arc::new(routes);
    for node in nodes {
        node.table.send_replace(Arc::clone(&routes));
    }
}

/// Listens on a free port of a loopback address, which stands for a container.
pub async fn container(address: &str) -> (TcpListener, u16) {
    let listener = TcpListener::bind((address, 0)).await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

/// Listens on the same port of another address, which stands for another container.
pub async fn replica(address: &str, port: u16) -> TcpListener {
    TcpListener::bind((address, port)).await.expect("the port is free on this address")
}

/// Connects a client to the service through a node's router.
pub async fn client(node: &Node, port: u16) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("bound"));
    let (client, accepted) = tokio::join!(client, listener.accept());
    let (accepted, _) = accepted.expect("accepted");
    let router = node.router.clone();
    tokio::spawn(async move { router.serve(accepted, service(), port).await });
    client.expect("connected")
}
