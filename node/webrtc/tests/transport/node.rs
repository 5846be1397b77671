//! A node that listens on loopback.

use std::{net::SocketAddr, pin::Pin};

use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn};
use libp2p::{
    Multiaddr, PeerId, Transport as _,
    core::{
        muxing::StreamMuxerExt,
        transport::{ListenerId, TransportEvent},
    },
    identity::Keypair,
    multiaddr::Protocol,
};
use tokio::{sync::mpsc, task::JoinHandle};
use vc_webrtc::{Certificate, Config, Connection, Fingerprint, Limits, Transport};

/// A listening node.
pub struct Node {
    pub address: SocketAddr,
    pub fingerprint: Fingerprint,
    pub peer: PeerId,
    pub connections: mpsc::UnboundedReceiver<Connection>,
    /// Holds the transport.
    pub task: JoinHandle<()>,
}

/// Starts a node on a free port of loopback.
pub async fn node(limits: Limits) -> Node {
    let key = Keypair::generate_ed25519();
    let peer = key.public().to_peer_id();
    let certificate = Certificate::generate().unwrap();
    let fingerprint = certificate.fingerprint();
    let mut transport = Transport::new(Config { key, certificate, limits });
    transport
        .listen_on(ListenerId::next(), "/ip4/127.0.0.1/udp/0/webrtc-direct".parse().unwrap())
        .unwrap();
    let TransportEvent::NewAddress { listen_addr, .. } =
        poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await
    else {
        panic!("expected a listen address");
    };
    let address = socket(&listen_addr);
    assert_eq!(listen_addr.iter().last(), Some(fingerprint.certhash()));
    let (sender, connections) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        loop {
            if let TransportEvent::Incoming { upgrade, .. } =
                poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await
            {
                let _ = sender.send(upgrade.await.unwrap().1);
            }
        }
    });
    Node { address, fingerprint, peer, connections, task }
}

fn socket(address: &Multiaddr) -> SocketAddr {
    let mut parts = address.iter();
    let (Some(Protocol::Ip4(ip)), Some(Protocol::Udp(port))) = (parts.next(), parts.next()) else {
        panic!("expected /ip4/…/udp/…: {address}");
    };
    SocketAddr::new(ip.into(), port)
}

/// Echoes every stream of a connection.
pub fn echo(mut connection: Connection) {
    tokio::spawn(async move {
        while let Ok(mut stream) = poll_fn(|cx| connection.poll_inbound_unpin(cx)).await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 16384];
                while let Ok(length) = stream.read(&mut buffer).await {
                    if length == 0 {
                        let _ = stream.close().await;
                        break;
                    }
                    if stream.write_all(&buffer[..length]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
}
