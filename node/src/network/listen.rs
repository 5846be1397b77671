//! Building the swarm, and the addresses it listens on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use futures::StreamExt as _;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, gossipsub};
use tokio::sync::mpsc;
use vc_protocol::gossip::topic;

use super::circuits::Circuits;
use super::config::{Config, NetworkError};
use super::connection_gater::ConnectionGater;
use super::connection_limiter::ConnectionLimiter;
use super::connections::{Connections, is_circuit};
use super::swarm::{COMMANDS, Handles, Network};
use super::{addresses, behaviour, bridges};
use crate::driver_message::DriverMessage;
use crate::identity::Membership;

impl Network {
    /// Builds a swarm that listens on TCP, QUIC and WebRTC-direct.
    pub(crate) async fn listen(
        config: Config,
        membership: Arc<Membership>,
        gater: ConnectionGater,
        driver: mpsc::Sender<DriverMessage>,
    ) -> Result<(Self, Handles), NetworkError> {
        let (key, cluster) = (&membership.key, membership.cluster);
        check_port(config.listen, config.port)?;
        let limiter = ConnectionLimiter::new(gater.clone());
        let (mut swarm, controls, streams) =
            behaviour::swarm(key, cluster, gater.clone(), limiter.clone(), &config)?;
        let topic = gossipsub::IdentTopic::new(topic(cluster));
        swarm
            .behaviour_mut()
            .member
            .inner
            .gossip
            .subscribe(&topic)
            .map_err(|error| NetworkError::setup("gossip subscription", error))?;
        let ip = Multiaddr::from(config.listen);
        let tcp = ip.clone().with(Protocol::Tcp(config.port));
        let quic = ip.clone().with(Protocol::Udp(config.port)).with(Protocol::QuicV1);
        let browsers = ip.with(Protocol::Udp(config.port + 1)).with(Protocol::WebRTCDirect);
        for address in [tcp, quic, browsers] {
            swarm
                .listen_on(address.clone())
                .map_err(|error| NetworkError::Listen(format!("{address}: {error}")))?;
        }
        let (own, commands) = mpsc::channel(COMMANDS);
        let handles = Handles { commands: own.clone(), controls: controls.clone(), streams };
        let network = Self {
            swarm,
            config,
            topic,
            gater,
            limiter,
            circuits: Circuits::new(key.public().to_peer_id()),
            membership,
            auth: controls.auth,
            commands,
            own,
            driver,
            listening: BTreeSet::new(),
            internal: bridges::addresses().await,
            address_book: addresses::AddressBook::default(),
            connections: Connections::default(),
            asked_kademlia: BTreeMap::new(),
        };
        Ok((network, handles))
    }

    /// Waits until the swarm listens on all transports. Returns the addresses to publish.
    pub(crate) async fn ready(&mut self) -> Result<Vec<Multiaddr>, NetworkError> {
        let complete = |listening: &BTreeSet<Multiaddr>| {
            let of =
                |name: &str| listening.iter().any(|address| address.to_string().contains(name));
            of("/tcp/") && of("/quic-v1") && of("/webrtc-direct")
        };
        while !complete(&self.listening) {
            match self.swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { address, .. } => {
                    self.add_listen_address(address).await;
                }
                SwarmEvent::ListenerClosed { reason: Err(error), addresses, .. } => {
                    return Err(NetworkError::Listen(format!("{addresses:?}: {error}")));
                }
                SwarmEvent::ListenerError { error, .. } => {
                    return Err(NetworkError::Listen(error.to_string()));
                }
                _ => {}
            }
        }
        Ok(self.publishable())
    }

    /// Adds an address that the swarm listens on. Returns `true` if it is new. Circuit addresses are left out: members
    /// derive them themselves.
    pub(super) async fn add_listen_address(&mut self, address: Multiaddr) -> bool {
        if is_circuit(&address) {
            return false;
        }
        self.internal = bridges::addresses().await;
        // A relay must name its external addresses when it grants a reservation, or the client rejects it.
        if addresses::ip(&address).is_none_or(|ip| !self.internal.contains(&ip)) {
            self.swarm.add_external_address(address.clone());
        }
        self.listening.insert(address)
    }

    /// Removes an address. Returns `true` if it was known.
    pub(super) fn remove_listen_address(&mut self, address: &Multiaddr) -> bool {
        self.swarm.remove_external_address(address);
        self.listening.remove(address)
    }

    /// Returns the addresses to publish.
    pub(super) fn publishable(&self) -> Vec<Multiaddr> {
        addresses::publishable(&self.listening, &self.internal, self.config.advertise)
    }
}

/// Checks that the ports are free. The transports set SO_REUSEPORT, so their own binds succeed on a port that another
/// program of the same user has.
fn check_port(ip: IpAddr, port: u16) -> Result<(), NetworkError> {
    let advice = |protocol: &'static str, port: u16, error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => NetworkError::PortInUse { protocol, ip, port },
        std::io::ErrorKind::AddrNotAvailable => NetworkError::NotOurAddress(ip),
        _ => NetworkError::Listen(format!("{ip}, {protocol} port {port}: {error}")),
    };
    std::net::TcpListener::bind((ip, port)).map_err(|error| advice("TCP", port, error))?;
    for port in [port, port + 1] {
        std::net::UdpSocket::bind((ip, port)).map_err(|error| advice("UDP", port, error))?;
    }
    Ok(())
}
