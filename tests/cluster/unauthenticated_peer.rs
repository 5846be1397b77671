//! A libp2p peer that tests control: unauthenticated, or with the key of a member.

use std::time::Duration;

use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use futures::stream::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, gossipsub, kad, noise, tcp,
    yamux,
};
use libp2p_stream::OpenStreamError;
use tokio::sync::mpsc;
use vc_protocol::wire::AUTH_PROTOCOL;

/// Deadline of every answer of a node.
pub const SOON: Duration = Duration::from_secs(20);

/// The protocols of members, and bare streams.
#[derive(NetworkBehaviour)]
pub struct Behaviour {
    streams: libp2p_stream::Behaviour,
    pub gossip: gossipsub::Behaviour,
    pub kademlia: kad::Behaviour<kad::store::MemoryStore>,
}

/// A function that is run on the swarm now and after each of its events, until it returns true.
type Order = Box<dyn FnMut(&mut Swarm<Behaviour>) -> bool + Send>;

/// Why a test peer has no connection.
#[derive(Debug)]
pub struct ConnectError(#[allow(dead_code, reason = "shown by Debug")] String);

impl ConnectError {
    fn new(cause: impl std::fmt::Display) -> Self {
        Self(cause.to_string())
    }
}

/// A peer that is connected to a node.
pub struct TestPeer {
    /// The connected node.
    pub node: PeerId,
    control: libp2p_stream::Control,
    orders: mpsc::UnboundedSender<Order>,
}

impl TestPeer {
    /// Connects with a key. Errors: the connection failed.
    pub async fn connect(key: Keypair, cluster: &str, address: &str) -> Result<Self, ConnectError> {
        let streams = libp2p_stream::Behaviour::new();
        let control = streams.new_control();
        let peer = key.public().to_peer_id();
        let signed = gossipsub::MessageAuthenticity::Signed(key.clone());
        let gossip = gossipsub::Behaviour::new(signed, gossipsub::Config::default())
            .map_err(ConnectError::new)?;
        let protocol =
            StreamProtocol::try_from_owned(format!("/vc/{cluster}/kad/1")).expect("a protocol");
        let kademlia = kad::Behaviour::with_config(
            peer,
            kad::store::MemoryStore::new(peer),
            kad::Config::new(protocol),
        );
        let mut swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .expect("TCP")
            .with_quic()
            .with_behaviour(|_| Behaviour { streams, gossip, kademlia })
            .expect("a behaviour")
            .with_swarm_config(|config| {
                config.with_idle_connection_timeout(Duration::from_secs(600))
            })
            .build();
        let address: Multiaddr = address.parse().expect("an address");
        swarm.dial(address).map_err(ConnectError::new)?;
        let connected = async {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { peer_id, .. } => return Ok(peer_id),
                    SwarmEvent::OutgoingConnectionError { error, .. } => {
                        return Err(ConnectError::new(error));
                    }
                    _ => {}
                }
            }
        };
        let node = tokio::time::timeout(SOON, connected).await.map_err(ConnectError::new)??;
        let (orders, mut received) = mpsc::unbounded_channel::<Order>();
        tokio::spawn(async move {
            let mut pending: Vec<Order> = Vec::new();
            loop {
                tokio::select! {
                    order = received.recv() => match order {
                        Some(order) => pending.push(order),
                        None => return,
                    },
                    _ = swarm.select_next_some() => {}
                }
                pending.retain_mut(|order| !order(&mut swarm));
            }
        });
        Ok(Self { node, control, orders })
    }

    /// Connects with a new key, which is not a member's.
    pub async fn unknown(cluster: &str, address: &str) -> Result<Self, ConnectError> {
        Self::connect(Keypair::generate_ed25519(), cluster, address).await
    }

    /// Opens a stream. Errors: `true`: the node does not support the protocol for this peer; `false`: any other failure.
    pub async fn open(&self, protocol: &str) -> Result<Stream, bool> {
        let protocol = StreamProtocol::try_from_owned(protocol.to_owned()).expect("a protocol");
        let mut control = self.control.clone();
        let opened = tokio::time::timeout(SOON, control.open_stream(self.node, protocol)).await;
        match opened.expect("an answer") {
            Ok(stream) => Ok(stream),
            Err(OpenStreamError::UnsupportedProtocol(_)) => Err(true),
            Err(_) => Err(false),
        }
    }

    /// Opens a stream of the auth protocol.
    pub async fn open_auth(&self) -> Stream {
        self.open(AUTH_PROTOCOL).await.expect("auth is open to every peer")
    }

    /// Runs a function on the swarm and returns its result.
    pub async fn order<T: Send + 'static>(
        &self,
        order: impl FnOnce(&mut Swarm<Behaviour>) -> T + Send + 'static,
    ) -> T {
        let mut order = Some(order);
        self.order_until(move |swarm| order.take().map(|order| order(swarm))).await
    }

    /// Runs a function on the swarm, now and after each of its events, until it returns a result. Panics after [`SOON`].
    pub async fn order_until<T: Send + 'static>(
        &self,
        mut order: impl FnMut(&mut Swarm<Behaviour>) -> Option<T> + Send + 'static,
    ) -> T {
        let (sender, result) = tokio::sync::oneshot::channel();
        let mut sender = Some(sender);
        let order: Order = Box::new(move |swarm| {
            let Some(value) = order(swarm) else { return false };
            let _ = sender.take().map(|sender| sender.send(value));
            true
        });
        assert!(self.orders.send(order).is_ok(), "the swarm runs");
        let result = tokio::time::timeout(SOON, result).await.expect("the order is completed");
        result.expect("the swarm runs")
    }
}

/// Returns a frame: the length, four bytes in network order, and the bytes.
pub fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a small frame");
    [&length.to_be_bytes(), bytes].concat()
}

/// Writes the bytes, or as many as the node accepts.
pub async fn write(stream: &mut Stream, bytes: &[u8]) {
    let all = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    // The node may close the stream, which the tests expect of malformed input.
    let _ = tokio::time::timeout(SOON, all).await;
}

/// Reads one frame; `None`: the stream ended. Panics after [`SOON`].
pub async fn read(stream: &mut Stream) -> Option<Vec<u8>> {
    let whole = async {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.ok()?;
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut bytes).await.ok()?;
        Some(bytes)
    };
    tokio::time::timeout(SOON, whole).await.expect("a frame or an end")
}

/// Waits until the node ends the stream; `false` after [`SOON`].
pub async fn ended(stream: &mut Stream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.is_ok()
}
