//! Authenticated clients that send chunks which are cheap to send and expensive for SCTP: their connection ends, others continue.

use std::time::{Duration, Instant};

use vc_webrtc::Limits;

use crate::{
    browser::Browser,
    node::{echo, node},
    wire::Version,
};

/// Chunks per packet.
const BUNDLE: u32 = 40;
/// Maximum chunks of a flood: fewer than the bytes of one message, at which SCTP itself would end the connection.
const FLOOD: u32 = 15_000;
/// Maximum latency of another connection during the flood.
const MAX_LATENCY: Duration = Duration::from_millis(500);

const MIDDLE: u8 = 0;
const WHOLE: u8 = 3;

/// Encodes an ordered DATA chunk.
fn chunk(flags: u8, tsn: u32, stream: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, flags, 0, 16 + data.len() as u8];
    bytes.extend_from_slice(&tsn.to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&53u32.to_be_bytes());
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Sends the chunks that `each` encodes (by index and TSN) until the connection ends, while another connection must be served.
async fn flood(each: impl Fn(u32, u32) -> Vec<u8>) {
    let mut node = node(Limits::default()).await;
    let (mut hostile, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    echo(node.connections.recv().await.unwrap());
    let (mut honest, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    echo(node.connections.recv().await.unwrap());
    hostile.open(2).await;
    honest.open(2).await;
    hostile.drop_sctp();
    let flood = async {
        let first = hostile.tsn;
        for bundle in 0..FLOOD / BUNDLE {
            if hostile.closed {
                return;
            }
            let chunks = (bundle * BUNDLE..).take(BUNDLE as usize);
            let chunks: Vec<u8> = chunks.flat_map(|n| each(n, first.wrapping_add(n))).collect();
            hostile.inject_chunks(&chunks).await;
        }
        hostile.until(|browser| browser.closed).await;
    };
    let mut flood = std::pin::pin!(flood);
    let mut over = false;
    while !over {
        let asked = Instant::now();
        honest.send(2, b"still there?").await;
        let mut answer = std::pin::pin!(honest.data(2));
        loop {
            tokio::select! {
                () = &mut flood, if !over => over = true,
                data = &mut answer => break assert_eq!(data, b"still there?"),
            }
        }
        assert!(asked.elapsed() < MAX_LATENCY, "{:?}", asked.elapsed());
    }
}

/// Encodes a stream reset request.
fn reset(request: u32, stream: u16) -> Vec<u8> {
    let head = [130, 0, 0, 22, 0, 13, 0, 18];
    [&head[..], &request.to_be_bytes(), &[0; 8], &stream.to_be_bytes(), &[0; 2]].concat()
}

#[tokio::test]
async fn repeated_resets_amid_a_message_end_only_their_connection() {
    flood(|n, tsn| if n == 0 { chunk(2, tsn, 2, 1, &[7]) } else { reset(tsn, 2) }).await;
}

#[tokio::test]
async fn empty_chunks_end_only_their_connection() {
    flood(|_, tsn| chunk(WHOLE, tsn, 2, 1, &[])).await;
}

#[tokio::test]
async fn an_endless_message_of_tiny_fragments_ends_only_its_connection() {
    flood(|n, tsn| chunk(if n == 0 { 2 } else { MIDDLE }, tsn, 2, 1, &[7])).await;
}

#[tokio::test]
async fn tiny_messages_behind_a_missing_message_end_only_their_connection() {
    flood(|n, tsn| chunk(WHOLE, tsn, 2, (n % 30_000) as u16 + 9, &[7])).await;
}

#[tokio::test]
async fn tiny_messages_behind_a_missing_chunk_end_only_their_connection() {
    flood(|n, tsn| chunk(WHOLE, tsn.wrapping_add(9), 2, (n % 30_000) as u16 + 9, &[7])).await;
}
