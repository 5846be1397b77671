//! Those who do not mean well: floods of first contacts, and garbage at every layer.

use std::{net::SocketAddr, time::Duration};

use sctp_proto::PayloadProtocolIdentifier;
use tokio::net::UdpSocket;
use vc_webrtc::Limits;

use crate::{
    browser::{Browser, RESET, Version, check, credentials},
    node::{Node, echo, node},
};

/// What this process has in memory, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// First contacts, each with another name, all of them signed.
async fn flood(from: &str, to: SocketAddr, contacts: usize) {
    let socket = UdpSocket::bind(from).await.unwrap();
    for contact in 0..contacts {
        let (username, password) =
            credentials(if contact % 2 == 0 { Version::One } else { Version::Two });
        socket.send_to(&check(&username, &password), to).await.unwrap();
        if contact % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Somebody who means well gets in and is answered.
async fn serves(node: &mut Node) {
    let (mut browser, peer) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    assert_eq!(peer, node.peer);
    echo(node.connections.recv().await.unwrap());
    browser.open(2).await;
    browser.send(2, b"well").await;
    assert_eq!(browser.data(2).await, b"well");
}

#[tokio::test]
async fn ten_thousand_first_contacts_cost_little_memory_and_keep_nobody_out() {
    let mut node = node(Limits::default()).await;
    serves(&mut node).await;
    let before = resident();
    flood("127.0.9.1:0", node.address, 5000).await;
    for source in 1..=250 {
        flood(&format!("127.0.10.{source}:0"), node.address, 20).await;
    }
    serves(&mut node).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for first contacts");
}

#[tokio::test]
async fn those_who_only_begin_with_dtls_keep_nobody_out() {
    let limits = Limits { handshakes: 4, handshakes_of_source: 4, ..Limits::default() };
    let mut node = node(limits).await;
    let mut strangers = Vec::new();
    for _ in 0..4 {
        let mut stranger = Browser::new(node.address, Version::Two).await;
        stranger.hello().await;
        strangers.push(stranger);
    }
    serves(&mut node).await;
}

#[tokio::test]
async fn those_who_have_completed_dtls_keep_their_places() {
    let limits = Limits { handshakes: 2, handshakes_of_source: 2, ..Limits::default() };
    let node = node(limits).await;
    let mut strangers = Vec::new();
    for _ in 0..2 {
        let mut stranger = Browser::new(node.address, Version::Two).await;
        stranger.connect().await;
        strangers.push(stranger);
    }
    assert!(!Browser::new(node.address, Version::Two).await.check().await);
}

#[tokio::test]
async fn one_source_has_only_so_many_connections_whatever_keys_it_makes() {
    let mut node = node(Limits { connections_of_source: 1, ..Limits::default() }).await;
    let (_browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    let _connection = node.connections.recv().await.unwrap();
    assert!(!Browser::new(node.address, Version::Two).await.check().await);
}

#[tokio::test]
async fn a_check_in_anothers_name_takes_no_address_from_a_client_that_is_there() {
    let mut node = node(Limits::default()).await;
    let (mut browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    echo(node.connections.recv().await.unwrap());
    let (username, password) = credentials(Version::Two);
    browser.socket.send_to(&check(&username, &password), node.address).await.unwrap();
    browser.open(2).await;
    browser.send(2, b"still me").await;
    assert_eq!(browser.data(2).await, b"still me");
}

#[tokio::test]
async fn garbage_that_claims_to_be_dtls_or_stun_is_passed_over() {
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
    browser.send(2, b"whatever came in my name").await;
    assert_eq!(browser.data(2).await, b"whatever came in my name");
    serves(&mut node).await;
}

#[tokio::test]
async fn garbage_in_place_of_a_handshake_disturbs_nobody() {
    let mut node = node(Limits::default()).await;
    for length in [1usize, 13, 14, 25, 60, 1200] {
        let mut browser = Browser::new(node.address, Version::Two).await;
        assert!(browser.check().await);
        let mut datagram: Vec<u8> = (0..length).map(|at| (at as u8).wrapping_mul(37)).collect();
        datagram[0] = 22;
        browser.socket.send_to(&datagram, node.address).await.unwrap();
    }
    serves(&mut node).await;
}

#[tokio::test]
async fn garbage_inside_dtls_ends_at_most_the_connection_it_came_by() {
    let mut node = node(Limits::default()).await;
    let mut browser = Browser::new(node.address, Version::Two).await;
    browser.connect().await;
    for seed in 0..200u32 {
        let length = 1 + seed as usize * 5;
        let packet: Vec<u8> =
            (0..length).map(|at| (seed.wrapping_mul(2_654_435_761) >> (at % 24)) as u8).collect();
        browser.inject(&packet).await;
    }
    // Behind a good head and checksum: chunks of all kinds, with lengths that are true, or are not.
    for kind in [0, 1, 3, 4, 7, 9, 10, 14, 77, 130, 192] {
        let mut browser = Browser::new(node.address, Version::Two).await;
        browser.connect().await;
        browser.open(2).await;
        browser.leave_sctp();
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
    serves(&mut node).await;
}

#[tokio::test]
async fn a_handshake_of_garbage_ends_the_connection() {
    let mut node = node(Limits::default()).await;
    let mut browser = Browser::new(node.address, Version::Two).await;
    browser.connect().await;
    browser.send(0, b"\x00\x20 no handshake of noise at all....").await;
    browser.until(|browser| browser.closed).await;
    serves(&mut node).await;
}

#[tokio::test]
async fn a_browser_that_never_authenticates_is_let_go() {
    let mut node = node(Limits { handshake: Duration::from_secs(1), ..Limits::default() }).await;
    let mut browser = Browser::new(node.address, Version::Two).await;
    browser.connect().await;
    browser.until(|browser| browser.closed).await;
    serves(&mut node).await;
}

#[tokio::test]
async fn much_data_before_authentication_ends_the_connection() {
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
    serves(&mut node).await;
}

#[tokio::test]
async fn a_stream_of_malformed_messages_is_reset_and_no_other() {
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
async fn streams_that_ask_for_no_channel_are_closed_and_too_many_of_them_end_the_connection() {
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
    serves(&mut node).await;
}
