//! The libp2p behaviours of a node: which protocols it speaks with unauthenticated peers and with members.

use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::core::{ConnectedPoint, Transport};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, StreamProtocol};
use libp2p::{
    PeerId, Swarm, SwarmBuilder, connection_limits, gossipsub, identify, kad, mdns, noise, ping,
    quic, relay, tcp,
};
use tokio::sync::mpsc;
use vc_protocol::wire::{
    AUDIT_PROTOCOL, AUTH_PROTOCOL, EVENTS_PROTOCOL, EXEC_PROTOCOL, FILES_PROTOCOL, IMAGE_PROTOCOL,
    LEASE_PROTOCOL, LOGS_PROTOCOL, MAX_GOSSIP, ROUTE_PROTOCOL, SYNC_PROTOCOL, TRUST_PROTOCOL,
    USAGE_PROTOCOL, VOLUME_PROTOCOL,
};
use vc_protocol::{ClusterId, Keypair, NodeId};

use super::circuits;
use super::config::{Config, NetworkError};
use super::connection_gater::{ConnectionGater, MembersOnly};
use super::connection_limiter::{ConnectionLimiter, TransportKind};
use super::duplicates::{self, OwnProcess};
use super::inbound::{self, Inbound, Incoming};
use super::limited_transport::LimitedTransport;
use super::muxer;

/// Browsers' connections at a time: those that [`ConnectionLimiter`] allows unauthenticated peers, and one of each user session.
const MAX_WEBRTC: usize = 640;
/// Browsers' connections per source, likewise.
const MAX_WEBRTC_PER_SOURCE: usize = 128;
/// Established connections per peer.
const MAX_PER_PEER: u32 = 8;
/// Streams per connection, of both sides together. Yamux's default is 512, and it closes the connection at one more. Each
/// stream has a window of 256 KiB of yamux's 1 GiB per connection; the rest lets windows grow on slow paths.
pub(crate) const MAX_STREAMS: usize = 3072;
/// The same for TCP connections of peers that are no members. A user's client opens a stream per session.
const MAX_USER_STREAMS: usize = 128;
/// Flow-control window of a QUIC stream, in bytes. The connection's window is the sum over all streams: with less, a few
/// slow readers would block the other streams.
const QUIC_WINDOW: u32 = 512 * 1024;
/// Deadline for a transport handshake.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(4);
/// A connection without streams is closed after this; members keep one open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// All protocols. Unauthenticated peers get `auth` only.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) auth: libp2p_stream::Behaviour,
    pub(crate) auth_inbound: inbound::Behaviour<Inbound>,
    pub(crate) member: MembersOnly<Member>,
}

/// The protocols between members.
#[derive(NetworkBehaviour)]
pub(crate) struct Member {
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) gossip: gossipsub::Behaviour,
    pub(crate) kademlia: kad::Behaviour<kad::store::MemoryStore>,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) duplicates: duplicates::Behaviour,
    pub(crate) relay: relay::Behaviour,
    pub(crate) relay_client: relay::client::Behaviour,
    pub(crate) streams: libp2p_stream::Behaviour,
    pub(crate) sync_inbound: inbound::Behaviour,
    pub(crate) lease_inbound: inbound::Behaviour,
    pub(crate) logs_inbound: inbound::Behaviour,
    pub(crate) exec_inbound: inbound::Behaviour,
    pub(crate) route_inbound: inbound::Behaviour,
    pub(crate) image_inbound: inbound::Behaviour,
    pub(crate) files_inbound: inbound::Behaviour,
    pub(crate) audit_inbound: inbound::Behaviour,
    pub(crate) trust_inbound: inbound::Behaviour,
    pub(crate) events_inbound: inbound::Behaviour,
    pub(crate) volume_inbound: inbound::Behaviour,
    pub(crate) usage_inbound: inbound::Behaviour,
}

/// Handles that open streams.
#[derive(Clone)]
pub(crate) struct Controls {
    /// Streams of the auth protocol, to any peer.
    pub(crate) auth: libp2p_stream::Control,
    /// Streams of the other protocols, to members.
    pub(crate) members: libp2p_stream::Control,
}

/// Queues of incoming streams, by protocol.
pub(crate) struct Streams {
    /// Authentication, from any peer.
    pub(crate) auth: mpsc::Receiver<Inbound>,
    /// Anti-entropy, from members.
    pub(crate) sync: Incoming,
    /// Messages about leases, from members.
    pub(crate) lease: Incoming,
    /// Logs, from members.
    pub(crate) logs: Incoming,
    /// Commands in instances, from members.
    pub(crate) exec: Incoming,
    /// Connections to instances, from members.
    pub(crate) route: Incoming,
    /// Image layers, from members.
    pub(crate) image: Incoming,
    /// Requests for secrets and configs, from members.
    pub(crate) files: Incoming,
    /// Requests about the audit log, from members.
    pub(crate) audit: Incoming,
    /// Private keys, from servers.
    pub(crate) trust: Incoming,
    /// Requests for events of the past, from members.
    pub(crate) events: Incoming,
    /// Requests for snapshots of volumes, from members.
    pub(crate) volume: Incoming,
    /// Requests for what instances use, from members.
    pub(crate) usage: Incoming,
}

/// Builds the protocols.
pub(super) fn behaviour(
    key: &Keypair,
    cluster: ClusterId,
    gater: ConnectionGater,
    config: &Config,
    relay_client: relay::client::Behaviour,
) -> Result<(Behaviour, Controls, Streams), NetworkError> {
    let auth = libp2p_stream::Behaviour::new();
    let streams = libp2p_stream::Behaviour::new();
    let (auth_inbound, auth_streams) = inbound::Behaviour::new(AUTH_PROTOCOL);
    let (sync_inbound, sync_streams) = inbound::Behaviour::new(SYNC_PROTOCOL);
    let (lease_inbound, lease_streams) = inbound::Behaviour::new(LEASE_PROTOCOL);
    let (logs_inbound, logs_streams) = inbound::Behaviour::new(LOGS_PROTOCOL);
    let (exec_inbound, exec_streams) = inbound::Behaviour::new(EXEC_PROTOCOL);
    let (route_inbound, route_streams) = inbound::Behaviour::new(ROUTE_PROTOCOL);
    let (image_inbound, image_streams) = inbound::Behaviour::new(IMAGE_PROTOCOL);
    let (files_inbound, files_streams) = inbound::Behaviour::new(FILES_PROTOCOL);
    let (audit_inbound, audit_streams) = inbound::Behaviour::new(AUDIT_PROTOCOL);
    let (trust_inbound, trust_streams) = inbound::Behaviour::new(TRUST_PROTOCOL);
    let (events_inbound, events_streams) = inbound::Behaviour::new(EVENTS_PROTOCOL);
    let (volume_inbound, volume_streams) = inbound::Behaviour::new(VOLUME_PROTOCOL);
    let (usage_inbound, usage_streams) = inbound::Behaviour::new(USAGE_PROTOCOL);
    let incoming = Streams {
        auth: auth_streams,
        sync: sync_streams,
        lease: lease_streams,
        logs: logs_streams,
        exec: exec_streams,
        route: route_streams,
        image: image_streams,
        files: files_streams,
        audit: audit_streams,
        trust: trust_streams,
        events: events_streams,
        volume: volume_streams,
        usage: usage_streams,
    };
    let controls = Controls { auth: auth.new_control(), members: streams.new_control() };
    let peer = key.public().to_peer_id();

    let gossip_config = gossipsub::ConfigBuilder::default()
        .max_transmit_size(MAX_GOSSIP)
        .validate_messages()
        .build()
        .map_err(|error| NetworkError::setup("gossipsub", error))?;
    let signed = gossipsub::MessageAuthenticity::Signed(key.clone());
    let gossip = gossipsub::Behaviour::new(signed, gossip_config)
        .map_err(|error| NetworkError::setup("gossipsub", error))?;

    let protocol = StreamProtocol::try_from_owned(format!("/vc/{cluster}/kad/1"))
        .map_err(|error| NetworkError::setup("Kademlia", error))?;
    let store = kad::store::MemoryStore::new(peer);
    let mut kademlia = kad::Behaviour::with_config(peer, store, kad::Config::new(protocol));
    // By default it stays a client, which answers no queries, until an external address is confirmed.
    kademlia.set_mode(Some(kad::Mode::Server));

    let identify = identify::Behaviour::new(
        identify::Config::new("/vc/id/1".to_owned(), key.public())
            .with_interval(Duration::from_secs(300)),
    );
    let ping = ping::Behaviour::new(
        ping::Config::new()
            .with_interval(Duration::from_secs(5))
            .with_timeout(Duration::from_secs(5)),
    );
    let node = NodeId::of(&key.public()).map_err(|error| NetworkError::setup("identity", error))?;
    let own = OwnProcess::new(node, key.clone(), config.name.clone())?;
    let duplicates = duplicates::Behaviour::new(own);
    let mdns = if config.mdns {
        Some(
            mdns::tokio::Behaviour::new(mdns::Config::default(), peer)
                .map_err(NetworkError::Mdns)?,
        )
    } else {
        None
    };
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_established_per_peer(Some(MAX_PER_PEER));
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        auth,
        auth_inbound,
        member: MembersOnly::new(
            Member {
                mdns: Toggle::from(mdns),
                gossip,
                kademlia,
                identify,
                ping,
                duplicates,
                relay: circuits::server(peer),
                relay_client,
                streams,
                sync_inbound,
                lease_inbound,
                logs_inbound,
                exec_inbound,
                route_inbound,
                image_inbound,
                files_inbound,
                audit_inbound,
                trust_inbound,
                events_inbound,
                volume_inbound,
                usage_inbound,
            },
            gater,
        ),
    };
    Ok((behaviour, controls, incoming))
}

/// Authenticates the connections of a transport with Noise, and multiplexes them with Yamux.
pub(super) fn upgrade<T>(
    transport: T,
    key: &Keypair,
    gater: ConnectionGater,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetworkError>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
{
    let of_peer = move |peer: &PeerId, _: &ConnectedPoint| {
        let is_member = gater.is_member(peer);
        muxer::Config::with_max_streams(if is_member { MAX_STREAMS } else { MAX_USER_STREAMS })
    };
    let noise = noise::Config::new(key).map_err(|error| NetworkError::setup("Noise", error))?;
    Ok(transport
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex_ext(of_peer)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed())
}

/// Returns the configuration of the swarm.
pub(super) fn swarm_config(config: libp2p::swarm::Config) -> libp2p::swarm::Config {
    config
        .with_idle_connection_timeout(IDLE_TIMEOUT)
        // Saves a round trip per stream: openers offer one protocol and write first.
        .with_substream_upgrade_protocol_override(Version::V1Lazy)
}

/// Builds the swarm with its transports.
pub(crate) fn swarm(
    key: &Keypair,
    cluster: ClusterId,
    gater: ConnectionGater,
    limiter: ConnectionLimiter,
    config: &Config,
) -> Result<(Swarm<Behaviour>, Controls, Streams), NetworkError> {
    let limited = {
        let gater = gater.clone();
        move |inner, kind| LimitedTransport::new(inner, kind, gater.clone(), limiter.clone())
    };
    let multiplexed = || muxer::Config::with_max_streams(MAX_STREAMS);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let tcp = upgrade(tcp, key, gater.clone())?;
    let mut quic = quic::Config::new(key);
    // The limit is on streams that the other side opens.
    quic.max_concurrent_stream_limit = MAX_STREAMS as u32 / 2;
    quic.max_stream_data = QUIC_WINDOW;
    quic.max_connection_data = QUIC_WINDOW * (MAX_STREAMS as u32 / 2);
    let quic = quic::tokio::Transport::new(quic)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed();
    let webrtc = vc_webrtc::Transport::new(vc_webrtc::Config {
        key: key.clone(),
        certificate: config.certificate.clone(),
        limits: vc_webrtc::Limits {
            connections: MAX_WEBRTC,
            connections_per_source: MAX_WEBRTC_PER_SOURCE,
            ..vc_webrtc::Limits::default()
        },
    })
    .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
    .boxed();
    let mut handles = None;
    let swarm = SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_other_transport(|_| limited(tcp, TransportKind::Tcp))
        .map_err(|error| NetworkError::setup("TCP transport", error))?
        .with_other_transport(|_| limited(quic, TransportKind::Quic))
        .map_err(|error| NetworkError::setup("QUIC transport", error))?
        .with_other_transport(|_| limited(webrtc, TransportKind::WebRtc))
        .map_err(|error| NetworkError::setup("WebRTC transport", error))?
        .with_relay_client(noise::Config::new, multiplexed)
        .map_err(|error| NetworkError::setup("relay transport", error))?
        .with_behaviour(|_, relay_client| {
            let (behaviour, controls, incoming) =
                behaviour(key, cluster, gater, config, relay_client)?;
            handles = Some((controls, incoming));
            Ok(behaviour)
        })
        .map_err(|error| NetworkError::setup("behaviours", error))?
        .with_swarm_config(swarm_config)
        .with_connection_timeout(CONNECTION_TIMEOUT)
        .build();
    let (controls, incoming) =
        handles.ok_or_else(|| NetworkError::setup("behaviours", "none were made"))?;
    Ok((swarm, controls, incoming))
}
