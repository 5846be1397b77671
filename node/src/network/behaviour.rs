//! Which protocols a node speaks, and to whom.

use std::time::Duration;

use anyhow::Context as _;
use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::upgrade::Version;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, StreamProtocol};
use libp2p::{
    Swarm, SwarmBuilder, connection_limits, gossipsub, identify, kad, mdns, noise, ping, relay, tcp,
};
use vc_protocol::wire::{
    AUTH_PROTOCOL, EXEC_PROTOCOL, IMAGE_PROTOCOL, LOGS_PROTOCOL, MAX_GOSSIP, ROUTE_PROTOCOL,
    SYNC_PROTOCOL,
};
use vc_protocol::{ClusterId, Keypair};

use super::Config;
use super::circuits;
use super::connection_gater::{ConnectionGater, MembersOnly};
use super::inbound::{self, Incoming};
use super::muxer;

/// Connections that may be coming up at once, from strangers too: who connects and says nothing holds a place for the
/// four seconds of the connection timeout, and must not keep the others out.
const MAX_PENDING: u32 = 512;
/// Connections in all, but for those of members.
const MAX_CONNECTIONS: u32 = 512;
/// Connections of one peer.
const MAX_PER_PEER: u32 = 8;
/// Streams on one connection, of both sides together. Yamux by itself allows 512, and gives up the whole connection
/// with one more. Each may have 256 KiB under way, and yamux hands out 1 GiB a connection: what is left of that lets
/// streams over long distances have more.
pub(crate) const MAX_STREAMS: usize = 3072;
/// Bytes under way on one stream of a QUIC connection. All streams together may have as many: with less, a few readers
/// that rest would hold up everybody else on the connection.
const QUIC_WINDOW: u32 = 512 * 1024;

/// Everything: strangers see `auth` alone.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) auth: libp2p_stream::Behaviour,
    pub(crate) auth_inbound: inbound::Behaviour,
    pub(crate) member: MembersOnly<Member>,
}

/// What members speak with one another.
#[derive(NetworkBehaviour)]
pub(crate) struct Member {
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) gossip: gossipsub::Behaviour,
    pub(crate) kademlia: kad::Behaviour<kad::store::MemoryStore>,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) relay: relay::Behaviour,
    pub(crate) relay_client: relay::client::Behaviour,
    pub(crate) streams: libp2p_stream::Behaviour,
    pub(crate) sync_inbound: inbound::Behaviour,
    pub(crate) logs_inbound: inbound::Behaviour,
    pub(crate) exec_inbound: inbound::Behaviour,
    pub(crate) route_inbound: inbound::Behaviour,
    pub(crate) image_inbound: inbound::Behaviour,
}

/// Open streams.
#[derive(Clone)]
pub struct Controls {
    /// For anybody: the auth protocol.
    pub auth: libp2p_stream::Control,
    /// For members.
    pub members: libp2p_stream::Control,
}

/// Streams that others open.
pub(crate) struct Streams {
    /// Of anybody: the auth protocol.
    pub(crate) auth: Incoming,
    /// Of members: anti-entropy.
    pub(crate) sync: Incoming,
    /// Of members: logs.
    pub(crate) logs: Incoming,
    /// Of members: commands in instances.
    pub(crate) exec: Incoming,
    /// Of members: connections to instances.
    pub(crate) route: Incoming,
    /// Of members: images.
    pub(crate) image: Incoming,
}

pub(crate) fn swarm(
    key: &Keypair,
    cluster: ClusterId,
    gater: ConnectionGater,
    config: &Config,
) -> anyhow::Result<(Swarm<Behaviour>, Controls, Streams)> {
    let auth = libp2p_stream::Behaviour::new();
    let streams = libp2p_stream::Behaviour::new();
    let (auth_inbound, auth_streams) = inbound::Behaviour::new(AUTH_PROTOCOL);
    let (sync_inbound, sync_streams) = inbound::Behaviour::new(SYNC_PROTOCOL);
    let (logs_inbound, logs_streams) = inbound::Behaviour::new(LOGS_PROTOCOL);
    let (exec_inbound, exec_streams) = inbound::Behaviour::new(EXEC_PROTOCOL);
    let (route_inbound, route_streams) = inbound::Behaviour::new(ROUTE_PROTOCOL);
    let (image_inbound, image_streams) = inbound::Behaviour::new(IMAGE_PROTOCOL);
    let incoming = Streams {
        auth: auth_streams,
        sync: sync_streams,
        logs: logs_streams,
        exec: exec_streams,
        route: route_streams,
        image: image_streams,
    };
    let controls = Controls { auth: auth.new_control(), members: streams.new_control() };
    let peer = key.public().to_peer_id();

    let gossip_config = gossipsub::ConfigBuilder::default()
        .max_transmit_size(MAX_GOSSIP)
        .validate_messages()
        .build()
        .context("gossipsub settings")?;
    let signed = gossipsub::MessageAuthenticity::Signed(key.clone());
    let gossip = gossipsub::Behaviour::new(signed, gossip_config)
        .map_err(|error| anyhow::anyhow!("gossipsub: {error}"))?;

    let protocol =
        StreamProtocol::try_from_owned(format!("/vc/{cluster}/kad/1")).context("protocol name")?;
    let store = kad::store::MemoryStore::new(peer);
    let mut kademlia = kad::Behaviour::with_config(peer, store, kad::Config::new(protocol));
    // Without a confirmed external address it would stay a client, and nobody could ask it.
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
    let mdns = if config.mdns {
        Some(
            mdns::tokio::Behaviour::new(mdns::Config::default(), peer)
                .context("cannot start mDNS; try --no-mdns")?,
        )
    } else {
        None
    };
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_established(Some(MAX_CONNECTIONS))
        .with_max_established_per_peer(Some(MAX_PER_PEER));
    let behaviour = |_: &Keypair, relay_client| Behaviour {
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
                relay: circuits::server(peer),
                relay_client,
                streams,
                sync_inbound,
                logs_inbound,
                exec_inbound,
                route_inbound,
                image_inbound,
            },
            gater,
        ),
    };
    let multiplexed = || muxer::Config::with_max_streams(MAX_STREAMS);
    let swarm = SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, multiplexed)
        .context("TCP transport")?
        .with_quic_config(|mut quic| {
            // Each side counts the streams that the other opens.
            quic.max_concurrent_stream_limit = MAX_STREAMS as u32 / 2;
            quic.max_stream_data = QUIC_WINDOW;
            quic.max_connection_data = QUIC_WINDOW * (MAX_STREAMS as u32 / 2);
            quic
        })
        .with_other_transport(|key| {
            let config = vc_webrtc::Config {
                key: key.clone(),
                certificate: config.certificate.clone(),
                limits: vc_webrtc::Limits::default(),
            };
            vc_webrtc::Transport::new(config)
                .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        })
        .context("WebRTC transport")?
        .with_relay_client(noise::Config::new, multiplexed)
        .context("relayed transport")?
        .with_behaviour(behaviour)
        .map_err(|error| anyhow::anyhow!("behaviour: {error}"))?
        // Members hold a stream open, which keeps the connection; strangers have so long to say who they are.
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(Duration::from_secs(10))
                // A stream is of use at once, instead of after a round trip: whoever opens one names one protocol, and
                // speaks first.
                .with_substream_upgrade_protocol_override(Version::V1Lazy)
        })
        .with_connection_timeout(Duration::from_secs(4))
        .build();
    Ok((swarm, controls, incoming))
}
