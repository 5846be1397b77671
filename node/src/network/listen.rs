//! Making the swarm, and getting the addresses it listens on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Context as _;
use futures::StreamExt as _;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, gossipsub};
use tokio::sync::mpsc;
use vc_protocol::gossip::topic;
use vc_protocol::{ClusterId, Keypair};

use super::circuits::Circuits;
use super::connection_gater::ConnectionGater;
use super::connections::{Connections, is_circuit};
use super::{COMMANDS, Config, Handles, Network, addresses, behaviour};
use crate::driver_message::DriverMessage;

impl Network {
    /// A swarm that listens. Errors: the port is in use, the address is not this node's.
    pub async fn listen(
        config: Config,
        key: &Keypair,
        cluster: ClusterId,
        certificate: String,
        gater: ConnectionGater,
        driver: mpsc::Sender<DriverMessage>,
    ) -> anyhow::Result<(Self, Handles)> {
        check_port(config.listen, config.port)?;
        let (mut swarm, controls, streams) =
            behaviour::swarm(key, cluster, gater.clone(), &config)?;
        let topic = gossipsub::IdentTopic::new(topic(cluster));
        swarm
            .behaviour_mut()
            .member
            .inner
            .gossip
            .subscribe(&topic)
            .context("cannot subscribe to gossip")?;
        let ip = Multiaddr::from(config.listen);
        let tcp = ip.clone().with(Protocol::Tcp(config.port));
        let quic = ip.clone().with(Protocol::Udp(config.port)).with(Protocol::QuicV1);
        let browsers = ip.with(Protocol::Udp(config.port + 1)).with(Protocol::WebRTCDirect);
        for address in [tcp, quic, browsers] {
            swarm
                .listen_on(address.clone())
                .with_context(|| format!("cannot listen on {address}"))?;
        }
        let (own, commands) = mpsc::channel(COMMANDS);
        let handles = Handles { commands: own.clone(), controls: controls.clone(), streams };
        let network = Self {
            swarm,
            config,
            topic,
            gater,
            certificate,
            cluster,
            auth: controls.auth,
            commands,
            own,
            driver,
            listening: BTreeSet::new(),
            address_book: addresses::AddressBook::default(),
            connections: Connections::default(),
            circuits: Circuits::new(key.public().to_peer_id()),
            asked_kademlia: BTreeMap::new(),
        };
        Ok((network, handles))
    }

    /// Waits until every wanted address is listened on, and returns those to publish. Errors: one cannot be had.
    pub async fn ready(&mut self) -> anyhow::Result<Vec<Multiaddr>> {
        let settled = |listening: &BTreeSet<Multiaddr>| {
            let of =
                |name: &str| listening.iter().any(|address| address.to_string().contains(name));
            of("/tcp/") && of("/quic-v1") && of("/webrtc-direct")
        };
        while !settled(&self.listening) {
            match self.swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { address, .. } => {
                    self.listens_on(address);
                }
                SwarmEvent::ListenerClosed { reason: Err(error), addresses, .. } => {
                    anyhow::bail!("cannot listen on {addresses:?}: {error}");
                }
                SwarmEvent::ListenerError { error, .. } => anyhow::bail!("cannot listen: {error}"),
                _ => {}
            }
        }
        Ok(self.publishable())
    }

    /// Takes note of an address that is listened on; `true`: it was not known. Circuits are not listened on for others
    /// to dial: who wants one finds it by himself.
    pub(super) fn listens_on(&mut self, address: Multiaddr) -> bool {
        if is_circuit(&address) {
            return false;
        }
        // A relay says where it is when it grants a reservation, and one that says nothing is taken for broken.
        self.swarm.add_external_address(address.clone());
        self.listening.insert(address)
    }

    pub(super) fn listens_no_more_on(&mut self, address: &Multiaddr) -> bool {
        self.swarm.remove_external_address(address);
        self.listening.remove(address)
    }

    pub(super) fn publishable(&self) -> Vec<Multiaddr> {
        addresses::publishable(&self.listening, self.config.advertise)
    }
}

/// The transports share ports with other programs of the same user without a word; a plain bind does not.
fn check_port(ip: IpAddr, port: u16) -> anyhow::Result<()> {
    let advice = |protocol: &str, port: u16, error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("{protocol} port {port} of {ip} is in use: choose another with --port")
        }
        std::io::ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!("{ip} is not an address of this node: choose another with --listen")
        }
        _ => anyhow::anyhow!("cannot listen on {ip}, {protocol} port {port}: {error}"),
    };
    std::net::TcpListener::bind((ip, port)).map_err(|error| advice("TCP", port, error))?;
    for port in [port, port + 1] {
        std::net::UdpSocket::bind((ip, port)).map_err(|error| advice("UDP", port, error))?;
    }
    Ok(())
}
