//! Unauthenticated and hostile peers: floods of checks, and invalid data at every layer.

use std::{net::SocketAddr, time::Duration};

use sctp_proto::PayloadProtocolIdentifier;
use tokio::net::UdpSocket;
use vc_webrtc::Limits;

use crate::{
    browser::Browser,
    node::{Node, echo, node},
    wire::{RESET, Version, check, credentials},
};

/// Returns the resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Sends signed checks of distinct clients.
async fn flood(from: &str, to: SocketAddr, clients: usize) {
    let socket = UdpSocket::bind(from).await.unwrap();
    for client in 0..clients {
        let (username, password) =
            credentials(if client % 2 == 0 { Version::One } else { Version::Two });
        socket.send_to(&check(&username, &password), to).await.unwrap();
        if client % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Asserts that a well-behaved browser connects and is answered.
async fn assert_serves(node: &mut Node) {
    let (mut browser, peer) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    assert_eq!(peer, node.peer);
    echo(node.connections.recv().await.unwrap());
    browser.open(2).await;
    browser.send(2, b"well").await;
    assert_eq!(browser.data(2).await, b"well");
}

#[tokio::test]
async fn a_flood_of_checks_costs_little_memory_and_blocks_no_browser() {
    let mut node = node(Limits::default()).await;
    assert_serves(&mut node).await;
    let before = resident();
    flood("127.0.9.1:0", node.address, 5000).await;
    for source in 1..=250 {
        flood(&format!("127.0.10.{source}:0"), node.address, 20).await;
    }
    assert_serves(&mut node).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for 10,000 checks");
}

#[tokio::test]
async fn connections_that_only_start_dtls_block_no_browser() {
    let limits = Limits { pending: 4, pending_per_source: 4, ..Limits::default() };
    let mut node = node(limits).await;
    let mut peers = Vec::new();
    for _ in 0..4 {
        let mut peer = Browser::new(node.address, Version::Two).await;
        peer.hello().await;
        peers.push(peer);
    }
    assert_serves(&mut node).await;
}

#[tokio::test]
async fn pending_connections_that_completed_dtls_block_no_browser() {
    let limits = Limits { pending: 2, pending_per_source: 2, ..Limits::default() };
    let mut node = node(limits).await;
    let mut peers = Vec::new();
    for _ in 0..2 {
        let mut peer = Browser::new(node.address, Version::Two).await;
        peer.connect().await;
        peers.push(peer);
    }
    assert_serves(&mut node).await;
}

#[tokio::test]
async fn connections_per_source_are_limited_across_peer_ids() {
    let mut node = node(Limits { connections_per_source: 1, ..Limits::default() }).await;
    let (_browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    let _connection = node.connections.recv().await.unwrap();
    assert!(!Browser::new(node.address, Version::Two).await.check().await);
}

#[tokio::test]
async fn a_spoofed_check_does_not_take_the_address_of_an_active_client() {
    let mut node = node(Limits::default()).await;
    let (mut browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    echo(node.connections.recv().await.unwrap());
    let (username, password) = credentials(Version::Two);
    browser.socket.send_to(&check(&username, &password), node.address).await.unwrap();
    browser.open(2).await;
    browser.send(2, b"same client").await;
    assert_eq!(browser.data(2).await, b"same client");
}

#[tokio::test]
async fn invalid_dtls_and_stun_datagrams_are_ignored() {
    let mut node = node(Limits::default()).await;
    let (mut browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    echo(node.connections.recv().await.unwrap());
    for first in 0..=255u8 {
        for length in [1usize, 2, 13, 25, 60, 1200] {
            let mut datagram: Vec<u8> =
                (0..length).map(|at| (at as u8).wrapping_mul(37) ^ first).collect();
            datagram[0] = first;
            browser.socket.send_to(&datagram, node.address).await.unwrap();
        }
        tokio::task::yield_now().await;
    }
    browser.open(2).await;
    browser.send(2, b"after invalid datagrams").await;
    assert_eq!(browser.data(2).await, b"after invalid datagrams");
    assert_serves(&mut node).await;
}

#[tokio::test]
async fn invalid_dtls_handshakes_affect_no_other_client() {
    let mut node = node(Limits::default()).await;
    for length in [1usize, 13, 14, 25, 60, 1200] {
        let mut browser = Browser::new(node.address, Version::Two).await;
        assert!(browser.check().await);
        let mut datagram: Vec<u8> = (0..length).map(|at| (at as u8).wrapping_mul(37)).collect();
        datagram[0] = 22;
        browser.socket.send_to(&datagram, node.address).await.unwrap();
    }
    assert_serves(&mut node).await;
}

#[tokio::test]
async fn invalid_sctp_packets_end_at_most_their_connection() {
    let mut node = node(Limits::default()).await;
    let mut browser = Browser::new(node.address, Version::Two).await;
    browser.connect().await;
    for seed in 0..200u32 {
        let length = 1 + seed as usize * 5;
        let packet: Vec<u8> =
            (0..length).map(|at| (seed.wrapping_mul(2_654_435_761) >> (at % 24)) as u8).collect();
        browser.inject(&packet).await;
    }
    // With a valid header and checksum: chunks of all types, with right and wrong lengths.
    for kind in [0, 1, 3, 4, 7, 9, 10, 14, 77, 130, 192] {
        let mut browser = Browser::new(node.address, Version::Two).await;
        browser.connect().await;
        browser.open(2).await;
        browser.drop_sctp();
        for seed in 0..100u32 {
            if browser.closed {
                break;
            }
            let random =
                |at: u32| (seed.wrapping_mul(2_654_435_761).wrapping_add(at * 40_503) >> 11) as u8;
            let mut chunk: Vec<u8> = (0..4 + seed % 80).map(random).collect();
            chunk[0] = kind;
            let more = if seed % 3 == 0 { u16::from(random(2)) } else { 0 };
            let length = chunk.len() as u16 + more;
            chunk[2..4].copy_from_slice(&length.to_be_bytes());
            browser.inject_chunks(&chunk).await;
        }
    }
    assert_serves(&mut node).await;
}

#[tokio::test]
async fn an_invalid_noise_handshake_ends_the_connection() {
    let mut node = node(Limits::default()).await;
    let mut browser = Browser::new(node.address, Version::Two).await;
    browser.connect().await;
    browser.send(0, b"\x00\x20 no handshake of noise at all....").await;
    browser.until(|browser| browser.closed).await;
    assert_serves(&mut node).await;
}

#[tokio::test]
async fn a_browser_that_never_authenticates_is_disconnected() {
    let mut node =
        node(Limits { handshake_timeout: Duration::from_secs(1), ..Limits::default() }).await;
    let mut browser = Browser::new(node.address, Version::Two).await;
    browser.connect().await;
    browser.until(|browser| browser.closed).await;
    assert_serves(&mut node).await;
}

#[tokio::test]
async fn too_much_data_before_authentication_ends_the_connection() {
    let mut node = node(Limits::default()).await;
    let mut browser = Browser::new(node.address, Version::Two).await;
    browser.connect().await;
    browser.open(2).await;
    for _ in 0..4 {
        if !browser.closed {
            browser.send(2, &[0; 15_000]).await;
        }
    }
    browser.until(|browser| browser.closed).await;
    assert_serves(&mut node).await;
}

#[tokio::test]
async fn invalid_frames_reset_only_their_stream() {
    let mut node = node(Limits::default()).await;
    let (mut browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    echo(node.connections.recv().await.unwrap());
    browser.open(2).await;
    browser.open(4).await;
    browser.write(2, &[0xff; 100], PayloadProtocolIdentifier::Binary).await;
    browser.flag(2, RESET).await;
    browser.send(4, b"fine").await;
    assert_eq!(browser.data(4).await, b"fine");
}

#[tokio::test]
async fn streams_without_a_channel_open_are_reset_and_too_many_end_the_connection() {
    let mut node = node(Limits::default()).await;
    let (mut browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    echo(node.connections.recv().await.unwrap());
    browser.association().open_stream(8, PayloadProtocolIdentifier::Binary).unwrap();
    browser.write(8, b"no channel", PayloadProtocolIdentifier::Binary).await;
    browser.until(|browser| browser.finished.contains(&8)).await;
    for id in (1000..6000).step_by(2) {
        if browser.closed
            || browser.association().open_stream(id, PayloadProtocolIdentifier::Binary).is_err()
        {
            break;
        }
        browser
            .write(id, &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], PayloadProtocolIdentifier::Dcep)
            .await;
    }
    browser.until(|browser| browser.closed).await;
    assert_serves(&mut node).await;
}
