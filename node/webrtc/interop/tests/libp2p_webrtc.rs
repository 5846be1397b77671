//! Interoperability with an independent implementation: rust-libp2p's `libp2p-webrtc`, over webrtc-rs, dials this crate.
//!
//! Uses the transports without a swarm, whose timeout for opening a stream (10 s) would measure the host's load.
//!
//! The test stays within what `libp2p-webrtc` 0.10.0-alpha supports:
//! - It dials with version 1 of the handshake only.
//! - It has no FIN_ACK: an unknown flag fails its next read, so its streams are not closed but dropped, which sends RESET. The two
//!   ends agree on the length of the data instead.
//! - It cannot receive messages over 8 KiB: `PollDataChannel::clone` of webrtc-rs resets the read buffer to its default, and the
//!   stream then fails with "Short buffer (size: 8192)".
//! - It coalesces small writes up to 16 KiB and may exceed that, which fails the stream. So each write of either side is at most
//!   8,000 bytes and flushed, which makes it one message.
//! - It drops inbound streams when 10 wait to be accepted.
//! - It dials from a listener's socket, so it must listen first; and webrtc-rs gathers candidates from non-loopback interfaces only,
//!   so the host needs one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests assert by panicking")]

use std::{future, io, task::Poll, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, TryStreamExt, stream};
use libp2p::{
    Multiaddr, PeerId, Transport as _,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent},
    },
    identity::Keypair,
};
use tokio::sync::{mpsc, oneshot};

/// Bytes per stream and direction.
const STREAM_BYTES: usize = 256 * 1024;
/// Streams that each side opens: together 10 MiB in each direction.
const STREAMS: usize = 20;
/// Streams that each side has open at once.
const CONCURRENT: usize = 8;
/// The longest write before a flush, in bytes.
const WRITE: usize = 8_000;
/// No limit of this crate depends on the host's load.
const UNLIMITED: Duration = Duration::from_secs(3600);

type Transport = Boxed<(PeerId, StreamMuxerBox)>;

/// This crate's transport.
fn ours(key: Keypair) -> Transport {
    let limits = vc_webrtc::Limits {
        handshake_timeout: UNLIMITED,
        idle_timeout: UNLIMITED,
        ..vc_webrtc::Limits::default()
    };
    let certificate = vc_webrtc::Certificate::generate().unwrap();
    vc_webrtc::Transport::new(vc_webrtc::Config { key, certificate, limits })
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed()
}

/// The transport of `libp2p-webrtc`.
fn theirs(key: Keypair) -> Transport {
    let certificate = libp2p_webrtc::tokio::Certificate::generate(&mut rand::rng()).unwrap();
    libp2p_webrtc::tokio::Transport::new(key, certificate)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed()
}

async fn listen(transport: &mut Transport) -> Multiaddr {
    let address = "/ip4/127.0.0.1/udp/0/webrtc-direct".parse().unwrap();
    transport.listen_on(ListenerId::next(), address).unwrap();
    loop {
        if let TransportEvent::NewAddress { listen_addr, .. } = transport.select_next_some().await {
            return listen_addr;
        }
    }
}

async fn accept(transport: &mut Transport) -> (PeerId, StreamMuxerBox) {
    loop {
        if let TransportEvent::Incoming { upgrade, .. } = transport.select_next_some().await {
            return upgrade.await.unwrap();
        }
    }
}

/// Drives a connection until it fails: echoes the streams that the peer opens, and opens streams on request.
async fn drive(
    mut muxer: StreamMuxerBox,
    mut requests: mpsc::Receiver<oneshot::Sender<SubstreamBox>>,
) -> io::Error {
    let mut request: Option<oneshot::Sender<SubstreamBox>> = None;
    future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(Err(error)) = muxer.poll_unpin(cx) {
                return Poll::Ready(error);
            }
            match muxer.poll_inbound_unpin(cx) {
                Poll::Ready(Ok(stream)) => {
                    tokio::spawn(echo(stream));
                    continue;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => {}
            }
            if request.is_none() {
                if let Poll::Ready(Some(next)) = requests.poll_recv(cx) {
                    request = Some(next);
                } else {
                    return Poll::Pending;
                }
            }
            match muxer.poll_outbound_unpin(cx) {
                Poll::Ready(Ok(stream)) => {
                    let _ = request.take().unwrap().send(stream);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Echoes [`STREAM_BYTES`] and holds the stream until the other end drops it.
async fn echo(mut stream: SubstreamBox) -> io::Result<()> {
    let mut buffer = [0; WRITE];
    let mut left = STREAM_BYTES;
    while left > 0 {
        let length = stream.read(&mut buffer[..left.min(WRITE)]).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        stream.write_all(&buffer[..length]).await?;
        stream.flush().await?;
        left -= length;
    }
    stream.read(&mut buffer).await.map(drop)
}

/// Sends [`STREAM_BYTES`] that depend on `seed` over a new stream and asserts that they come back.
async fn round_trip(
    open: mpsc::Sender<oneshot::Sender<SubstreamBox>>,
    seed: usize,
) -> io::Result<()> {
    let (reply, stream) = oneshot::channel();
    open.send(reply).await.map_err(io::Error::other)?;
    let stream = stream.await.map_err(io::Error::other)?;
    let sent: Vec<u8> =
        (0..STREAM_BYTES).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ (seed * 7)) as u8).collect();
    let mut received = vec![0; STREAM_BYTES];
    let (mut reader, mut writer) = stream.split();
    let write = async {
        for block in sent.chunks(WRITE) {
            writer.write_all(block).await?;
            writer.flush().await?;
        }
        Ok(())
    };
    futures::try_join!(write, reader.read_exact(&mut received))?;
    assert!(sent == received, "stream {seed} returned other data");
    Ok(())
}

async fn round_trips(muxer: StreamMuxerBox) {
    let (open, requests) = mpsc::channel(1);
    let streams = stream::iter((0..STREAMS).map(Ok))
        .try_for_each_concurrent(CONCURRENT, |seed| round_trip(open.clone(), seed));
    tokio::spawn(drive(muxer, requests));
    streams.await.unwrap();
}

#[tokio::test]
async fn libp2p_webrtc_dials_and_moves_10_mib_each_way() {
    // webrtc-rs takes rustls's process-wide provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (our_key, their_key) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (our_peer, their_peer) = (our_key.public().to_peer_id(), their_key.public().to_peer_id());
    let (mut ours, mut theirs) = (ours(our_key), theirs(their_key));
    let address = listen(&mut ours).await;
    listen(&mut theirs).await;
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };
    let dial = theirs.dial(address, options).unwrap();
    tokio::spawn(theirs.for_each(|_| future::ready(())));
    let (accepted, dialed) = futures::join!(accept(&mut ours), dial);
    let ((their_id, ours), (our_id, theirs)) = (accepted, dialed.unwrap());
    assert_eq!((our_id, their_id), (our_peer, their_peer));
    futures::join!(round_trips(ours), round_trips(theirs));
}
