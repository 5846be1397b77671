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

/// How long a node may take to answer.
pub const SOON: Duration = Duration::from_secs(20);

/// Everything that members speak, and bare streams.
#[derive(NetworkBehaviour)]
pub struct Behaviour {
    streams: libp2p_stream::Behaviour,
    pub gossip: gossipsub::Behaviour,
    pub kademlia: kad::Behaviour<kad::store::MemoryStore>,
}

/// What a peer that runs in the background can be told.
pub type Order = Box<dyn FnOnce(&mut Swarm<Behaviour>) + Send>;

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
    pub node: PeerId,
    control: libp2p_stream::Control,
    orders: mpsc::UnboundedSender<Order>,
}

impl TestPeer {
    /// Connects with a key. Errors: no connection came up.
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
        let (orders, mut to_do) = mpsc::unbounded_channel::<Order>();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    order = to_do.recv() => match order {
                        Some(order) => order(&mut swarm),
                        None => return,
                    },
                    _ = swarm.select_next_some() => {}
                }
            }
        });
        Ok(Self { node, control, orders })
    }

    /// A peer that nobody knows.
    pub async fn unknown(cluster: &str, address: &str) -> Result<Self, ConnectError> {
        Self::connect(Keypair::generate_ed25519(), cluster, address).await
    }

    /// Opens a stream; `Err(true)`: the node does not speak that protocol with us.
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

    pub async fn open_auth(&self) -> Stream {
        self.open(AUTH_PROTOCOL).await.expect("auth is spoken with everybody")
    }

    /// Does something with the swarm and returns what came of it.
    pub async fn order<T: Send + 'static>(
        &self,
        order: impl FnOnce(&mut Swarm<Behaviour>) -> T + Send + 'static,
    ) -> T {
        let (tell, told) = tokio::sync::oneshot::channel();
        let order: Order = Box::new(move |swarm| drop(tell.send(order(swarm))));
        assert!(self.orders.send(order).is_ok(), "the swarm runs");
        told.await.expect("the swarm runs")
    }
}

/// A frame as the protocols expect it.
pub fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a small frame");
    [&length.to_be_bytes(), bytes].concat()
}

/// Writes as much as is taken.
pub async fn write(stream: &mut Stream, bytes: &[u8]) {
    let all = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    // The node may have closed it: that is what it is for.
    let _ = tokio::time::timeout(SOON, all).await;
}

/// Reads one frame; `None`: the stream ended.
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

/// Waits until the node has ended the stream.
pub async fn ended(stream: &mut Stream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.is_ok()
}
