//! The network of a node in memory: for fuzz targets.

use std::future::Ready;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, StreamExt as _};
use libp2p::core::muxing::StreamMuxerExt as _;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::upgrade::OutboundConnectionUpgrade as _;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm, Transport, noise, relay};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};
use vc_protocol::{ClusterId, Keypair};

use super::behaviour::{self, Behaviour, Streams};
use super::config::Config;
use super::connection_gater::ConnectionGater;
use super::connection_limiter::{ConnectionLimiter, TransportKind};
use super::limited_transport::LimitedTransport;
use super::muxer;

/// Bytes that a client reads of one stream.
const MAX_READ: usize = 1 << 20;
/// Streams of one connection.
const MAX_STREAMS: usize = 16;

/// Bytes in flight.
const BUFFER: usize = 64 * 1024;

type Connection = Compat<DuplexStream>;

/// What a client sends.
pub enum ClientBytes {
    /// On the connection itself.
    Raw(Vec<u8>),
    /// After the Noise handshake.
    Encrypted(Vec<u8>),
    /// On streams.
    Streams(Vec<Vec<u8>>),
}

/// A node that listens in memory.
pub(crate) struct MemoryNode {
    swarm: Swarm<Behaviour>,
    /// The behaviour of circuits needs it.
    _relay: relay::client::Transport,
    connections: mpsc::Sender<Connection>,
}

impl MemoryNode {
    /// Listens. Returns the node and the queues of its incoming streams.
    #[expect(clippy::expect_used, reason = "a fuzz target")]
    pub(crate) async fn listen(
        key: &Keypair,
        cluster: ClusterId,
        gater: ConnectionGater,
    ) -> (Self, Streams) {
        let peer = key.public().to_peer_id();
        let config = Config {
            name: "n1".parse().expect("a name"),
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            certificate: vc_webrtc::Certificate::generate().expect("a certificate"),
            advertise: None,
            mdns: false,
        };
        let (_relay, relay_client) = relay::client::new(peer);
        let (behaviour, _, streams) =
            behaviour::behaviour(key, cluster, gater.clone(), &config, relay_client)
                .expect("behaviours");
        let (connections, incoming) = mpsc::channel(1);
        let transport = ChannelTransport { connections: incoming, listener: None };
        let transport = behaviour::upgrade(transport, key, gater.clone()).expect("a key");
        let limiter = ConnectionLimiter::new(gater.clone());
        let transport = LimitedTransport::new(transport, TransportKind::Tcp, gater, limiter);
        let config = behaviour::swarm_config(libp2p::swarm::Config::with_tokio_executor());
        let mut swarm = Swarm::new(transport.boxed(), behaviour, peer, config);
        swarm.listen_on(Multiaddr::from(Ipv4Addr::LOCALHOST)).expect("listens");
        (Self { swarm, _relay, connections }, streams)
    }

    /// Serves a client until its connection is closed on both sides.
    pub(crate) async fn serve(&mut self, key: &Keypair, bytes: ClientBytes) {
        let (near, far) = tokio::io::duplex(BUFFER);
        let _ = self.connections.send(far.compat()).await;
        let client = client(key, near.compat(), bytes);
        let mut client = std::pin::pin!(client);
        let (mut sent, mut open) = (false, 1);
        while !sent || open > 0 {
            tokio::select! {
                _ = &mut client, if !sent => sent = true,
                event = self.swarm.select_next_some() => match event {
                    SwarmEvent::ConnectionClosed { .. } | SwarmEvent::IncomingConnectionError { .. } => {
                        open -= 1;
                    }
                    _ => {}
                },
            }
        }
    }
}

/// Sends what a client with this key sends, on its side of a connection.
async fn client(key: &Keypair, mut connection: Connection, bytes: ClientBytes) -> io::Result<()> {
    if let ClientBytes::Raw(bytes) = bytes {
        send(connection, &bytes).await;
        return Ok(());
    }
    negotiate(&mut connection, "/noise").await?;
    let noise = noise::Config::new(key).map_err(io::Error::other)?;
    let secured = noise.upgrade_outbound(connection, "/noise").await;
    let (_, mut connection) = secured.map_err(io::Error::other)?;
    let streams = match bytes {
        ClientBytes::Streams(streams) => streams,
        ClientBytes::Raw(bytes) | ClientBytes::Encrypted(bytes) => {
            send(connection, &bytes).await;
            return Ok(());
        }
    };
    negotiate(&mut connection, "/yamux/1.0.0").await?;
    let muxer = muxer::Config::with_max_streams(MAX_STREAMS);
    let mut connection = muxer.upgrade_outbound(connection, "/yamux/1.0.0").await?;
    for bytes in streams.iter().take(MAX_STREAMS) {
        let open = std::future::poll_fn(|cx| connection.poll_outbound_unpin(cx));
        let mut sending = std::pin::pin!(send(open.await.map_err(io::Error::other)?, bytes));
        let both = std::future::poll_fn(|cx: &mut Context<'_>| {
            let ended = matches!(connection.poll_unpin(cx), Poll::Ready(Err(_)));
            let sent = sending.as_mut().poll(cx);
            if ended { Poll::Ready(()) } else { sent }
        });
        both.await;
    }
    Ok(())
}

/// Chooses a protocol (multistream-select).
async fn negotiate(
    connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
    protocol: &str,
) -> io::Result<()> {
    let line = |text: &str| [&[text.len() as u8 + 1], text.as_bytes(), b"\n"].concat();
    let mut lines = [line("/multistream/1.0.0"), line(protocol)].concat();
    connection.write_all(&lines).await?;
    connection.flush().await?;
    connection.read_exact(&mut lines).await
}

/// Sends bytes and the end, and reads the answer.
async fn send(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    let _ = stream.write_all(bytes).await;
    let _ = stream.close().await;
    let _ = stream.take(MAX_READ as u64).read_to_end(&mut Vec::new()).await;
}

/// A transport whose connections come through a channel.
struct ChannelTransport {
    connections: mpsc::Receiver<Connection>,
    listener: Option<ListenerId>,
}

impl Transport for ChannelTransport {
    type Output = Connection;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<Connection>>;
    type Dial = Ready<io::Result<Connection>>;

    fn listen_on(&mut self, id: ListenerId, _: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.listener = Some(id);
        Ok(())
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let (Some(listener_id), Poll::Ready(Some(connection))) =
            (self.listener, self.connections.poll_recv(cx))
        else {
            return Poll::Pending;
        };
        Poll::Ready(TransportEvent::Incoming {
            listener_id,
            upgrade: std::future::ready(Ok(connection)),
            local_addr: Multiaddr::from(Ipv4Addr::LOCALHOST),
            send_back_addr: Multiaddr::from(Ipv4Addr::LOCALHOST),
        })
    }
}
