//! A node with ping, identify and two test protocols, to try the transport from a browser: `cargo run --release -p vc-webrtc --example echo -- /ip4/127.0.0.1/udp/4778/webrtc-direct`.
//!
//! `/vc/echo/1` echoes a stream. `/vc/source/1` receives a length (8 bytes, big endian) and sends that many bytes.

use std::{error::Error, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, Transport as _,
    core::muxing::StreamMuxerBox,
    identify,
    identity::Keypair,
    ping,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use vc_webrtc::{Certificate, Config, Limits, Transport};

#[derive(NetworkBehaviour)]
struct Behaviour {
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    stream: libp2p_stream::Behaviour,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let address: Multiaddr = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "/ip4/127.0.0.1/udp/0/webrtc-direct".to_owned())
        .parse()?;
    let key = Keypair::generate_ed25519();
    let config = Config {
        key: key.clone(),
        certificate: Certificate::generate()?,
        limits: Limits::default(),
    };
    let mut swarm = libp2p::SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|_| {
            Transport::new(config)
                .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        })?
        .with_behaviour(|key| Behaviour {
            ping: ping::Behaviour::default(),
            identify: identify::Behaviour::new(identify::Config::new("/vc/1".into(), key.public())),
            stream: libp2p_stream::Behaviour::new(),
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    swarm.listen_on(address)?;

    let mut control = swarm.behaviour().stream.new_control();
    let mut echo = control.accept(libp2p::StreamProtocol::new("/vc/echo/1"))?;
    tokio::spawn(async move {
        while let Some((_, mut stream)) = echo.next().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 65536];
                loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) => break stream.close().await,
                        Ok(n) => stream.write_all(&buffer[..n]).await?,
                        Err(error) => break Err(error),
                    }
                }
            });
        }
    });
    let mut source = control.accept(libp2p::StreamProtocol::new("/vc/source/1"))?;
    tokio::spawn(async move {
        while let Some((_, mut stream)) = source.next().await {
            tokio::spawn(async move {
                let mut length = [0; 8];
                stream.read_exact(&mut length).await?;
                let mut left = u64::from_be_bytes(length);
                let block: Vec<u8> = (0..65536u32).map(|n| (n % 251) as u8).collect();
                while left > 0 {
                    let now = block.len().min(usize::try_from(left).unwrap_or(block.len()));
                    stream.write_all(&block[..now]).await?;
                    left -= now as u64;
                }
                stream.close().await
            });
        }
    });

    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                println!("{address}/p2p/{}", swarm.local_peer_id())
            }
            event => tracing::info!(?event),
        }
    }
}
