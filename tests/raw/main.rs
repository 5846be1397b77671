//! A bare libp2p TCP stream between two hosts: the baseline for the proxy. It uses Noise and yamux with their defaults, as
//! nodes do, and nothing else.
//!
//! - `vc-raw serve ADDRESS PORT`: prints its multiaddr, and sends the requested number of bytes on every stream.
//! - `vc-raw fetch MULTIADDR BYTES`: requests BYTES bytes. Prints bytes and seconds as JSON.

use std::process::ExitCode;
use std::time::Instant;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use serde_json::{Value, json};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/vc-raw/1");
/// Bytes per read and write of both sides.
const CHUNK: usize = 64 * 1024;
const USAGE: &str = "usage: vc-raw serve ADDRESS PORT | fetch MULTIADDR BYTES";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match *words {
        ["serve", address, port] => serve(address, port).await,
        ["fetch", peer, bytes] => fetch(peer, bytes).await.map(|report| println!("{report}")),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn swarm() -> Result<Swarm<libp2p_stream::Behaviour>> {
    Ok(SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| libp2p_stream::Behaviour::new())?
        .build())
}

async fn serve(address: &str, port: &str) -> Result<()> {
    let mut swarm = swarm()?;
    let listen: Multiaddr = format!("/ip4/{address}/tcp/{port}").parse()?;
    let mut incoming = swarm.behaviour().new_control().accept(PROTOCOL)?;
    swarm.listen_on(listen.clone())?;
    println!("{}", listen.with(Protocol::P2p(*swarm.local_peer_id())));
    loop {
        tokio::select! {
            _ = swarm.select_next_some() => {}
            Some((_, stream)) = incoming.next() => {
                tokio::spawn(async move {
                    // A peer may close the stream early.
                    let _ = send(stream).await;
                });
            }
        }
    }
}

async fn send(mut stream: Stream) -> std::io::Result<()> {
    let mut asked = [0; 8];
    stream.read_exact(&mut asked).await?;
    let (mut left, chunk) = (u64::from_be_bytes(asked), vec![0; CHUNK]);
    while left > 0 {
        let next = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        stream.write_all(&chunk[..next]).await?;
        left -= next as u64;
    }
    stream.close().await
}

async fn fetch(peer: &str, bytes: &str) -> Result<Value> {
    let (address, wanted): (Multiaddr, u64) = (peer.parse()?, bytes.parse()?);
    let Some(Protocol::P2p(peer)) = address.iter().last() else {
        return Err("the multiaddr names no peer".into());
    };
    let mut swarm = swarm()?;
    let control = swarm.behaviour().new_control();
    swarm.dial(address)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => break,
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
    let drive = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    let report = receive(control, peer, wanted).await;
    drive.abort();
    report
}

async fn receive(mut control: libp2p_stream::Control, peer: PeerId, wanted: u64) -> Result<Value> {
    let mut stream = control.open_stream(peer, PROTOCOL).await?;
    stream.write_all(&wanted.to_be_bytes()).await?;
    stream.flush().await?;
    let (mut buffer, mut bytes, start) = (vec![0; CHUNK], 0, Instant::now());
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            more => bytes += more as u64,
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    if bytes != wanted {
        return Err(format!("{bytes} of {wanted} bytes came").into());
    }
    Ok(json!({ "bytes": bytes, "seconds": seconds }))
}
