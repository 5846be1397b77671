//! Browsers dial a node: both handshake versions, streams in both directions, half-close, reset, and bulk data.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn};
use libp2p::core::muxing::StreamMuxerExt;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use vc_webrtc::Limits;

use crate::{
    browser::Browser,
    node::{echo, node},
    wire::{FIN, FIN_ACK, RESET, STOP_SENDING, Version},
};

#[tokio::test]
async fn a_browser_dials_with_either_version_and_authenticates_the_node() {
    let mut node = node(Limits::default()).await;
    for version in [Version::One, Version::Two] {
        let (mut browser, peer) = Browser::dial(node.address, version, &node.fingerprint).await;
        assert_eq!(peer, node.peer);
        echo(node.connections.recv().await.unwrap());
        browser.open(2).await;
        browser.send(2, b"hello").await;
        assert_eq!(browser.data(2).await, b"hello");
    }
}

#[tokio::test]
async fn a_half_closed_stream_is_answered_and_its_fins_are_acknowledged() {
    let mut node = node(Limits::default()).await;
    let (mut browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    let mut connection = node.connections.recv().await.unwrap();
    browser.open(2).await;
    browser.send(2, b"question").await;
    browser.send_flag(2, FIN).await;
    let mut stream = poll_fn(|cx| connection.poll_inbound_unpin(cx)).await.unwrap();
    let mut question = String::new();
    stream.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");
    browser.flag(2, FIN_ACK).await;
    stream.write_all(b"answer").await.unwrap();
    stream.close().await.unwrap();
    assert_eq!(browser.data(2).await, b"answer");
    browser.flag(2, FIN).await;
}

#[tokio::test]
async fn a_reset_by_one_side_fails_the_stream_on_the_other() {
    let mut node = node(Limits::default()).await;
    let (mut browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    let mut connection = node.connections.recv().await.unwrap();
    browser.open(2).await;
    let mut stream = poll_fn(|cx| connection.poll_inbound_unpin(cx)).await.unwrap();
    browser.send_flag(2, RESET).await;
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    browser.open(4).await;
    let stream = poll_fn(|cx| connection.poll_inbound_unpin(cx)).await.unwrap();
    drop(stream);
    browser.flag(4, RESET).await;

    browser.open(6).await;
    let mut stream = poll_fn(|cx| connection.poll_inbound_unpin(cx)).await.unwrap();
    browser.send_flag(6, STOP_SENDING).await;
    browser.flag(6, FIN).await;
    let error = stream.write(b"x").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn the_node_opens_streams() {
    let mut node = node(Limits::default()).await;
    let (mut browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    let mut connection = node.connections.recv().await.unwrap();
    let mut streams = Vec::new();
    for id in [1, 3] {
        let mut stream = poll_fn(|cx| connection.poll_outbound_unpin(cx)).await.unwrap();
        stream.write_all(b"from the node").await.unwrap();
        assert_eq!(browser.data(id).await, b"from the node");
        streams.push(stream);
    }
}

#[tokio::test]
async fn streams_over_the_inbound_limit_are_reset() {
    let mut node = node(Limits::default()).await;
    let (mut browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    echo(node.connections.recv().await.unwrap());
    for id in (2..).step_by(2).take(32) {
        browser.open(id).await;
        browser.send(id, &id.to_be_bytes()).await;
        assert_eq!(browser.data(id).await, id.to_be_bytes());
    }
    browser.open(100).await;
    browser.flag(100, RESET).await;
    browser.send(2, b"still").await;
    assert_eq!(browser.data(2).await, b"still");
}

#[tokio::test]
async fn bulk_data_is_echoed_unchanged() {
    let mut node = node(Limits::default()).await;
    let (mut browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    echo(node.connections.recv().await.unwrap());
    browser.open(2).await;
    let (mut sent, mut received) = (Sha256::new(), Sha256::new());
    let (mut outstanding, mut block) = (0, vec![0; 16000]);
    for n in 0..500u32 {
        block
            .iter_mut()
            .zip(0u32..)
            .for_each(|(byte, at)| *byte = (n.wrapping_mul(31) ^ at.wrapping_mul(7)) as u8);
        sent.update(&block);
        browser.send(2, &block).await;
        outstanding += block.len();
        while outstanding > 200_000 {
            let data = browser.data(2).await;
            received.update(&data);
            outstanding -= data.len();
        }
    }
    while outstanding > 0 {
        let data = browser.data(2).await;
        received.update(&data);
        outstanding -= data.len();
    }
    assert_eq!(sent.finalize(), received.finalize());
}

#[tokio::test]
async fn concurrent_bulk_streams_share_the_connection() {
    let mut node = node(Limits::default()).await;
    let (mut browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    let mut connection = node.connections.recv().await.unwrap();
    for id in [2, 4, 6] {
        browser.open(id).await;
        let mut stream = poll_fn(|cx| connection.poll_inbound_unpin(cx)).await.unwrap();
        tokio::spawn(async move { while stream.write_all(&[id as u8; 16_000]).await.is_ok() {} });
    }
    let mut received = [0; 3];
    while received.iter().sum::<usize>() < 6_000_000 {
        for (received, id) in received.iter_mut().zip([2, 4, 6]) {
            while let Some(data) = browser.take_data(id) {
                *received += data.len();
            }
        }
        browser.step().await;
    }
    assert!(received.iter().all(|bytes| *bytes > 1_000_000), "{received:?}");
}

#[tokio::test]
async fn messages_on_the_finished_noise_channel_do_not_stall_a_full_connection() {
    let mut node = node(Limits::default()).await;
    let (mut browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    let mut connection = node.connections.recv().await.unwrap();
    browser.flag(0, STOP_SENDING).await;
    browser.open(2).await;
    let mut stream = poll_fn(|cx| connection.poll_inbound_unpin(cx)).await.unwrap();
    tokio::spawn(async move { while stream.write_all(&[7; 16_000]).await.is_ok() {} });
    let mut received = 0;
    while received < 1_000_000 {
        browser.send(0, b"late").await;
        while let Some(data) = browser.take_data(2) {
            received += data.len();
        }
        browser.step().await;
    }
}

#[tokio::test]
async fn a_silent_browser_is_disconnected_after_the_idle_timeout() {
    let mut node =
        node(Limits { idle_timeout: Duration::from_millis(500), ..Limits::default() }).await;
    let (browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    let mut connection = node.connections.recv().await.unwrap();
    drop(browser);
    let end =
        timeout(Duration::from_secs(5), poll_fn(|cx| connection.poll_unpin(cx))).await.unwrap();
    assert!(matches!(end, Err(vc_webrtc::ConnectionError::IdleTimeout(_))), "{end:?}");
}

#[tokio::test]
async fn streams_fail_when_their_transport_is_dropped() {
    let mut node = node(Limits::default()).await;
    let (mut browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    let mut connection = node.connections.recv().await.unwrap();
    browser.open(2).await;
    let mut stream = poll_fn(|cx| connection.poll_inbound_unpin(cx)).await.unwrap();
    node.task.abort();
    let read = timeout(Duration::from_secs(5), stream.read(&mut [0])).await;
    assert_eq!(read.unwrap().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_connection_that_the_node_drops_is_closed_at_the_browser() {
    let mut node = node(Limits::default()).await;
    let (mut browser, _) = Browser::dial(node.address, Version::Two, &node.fingerprint).await;
    drop(node.connections.recv().await.unwrap());
    browser.until(|browser| browser.closed).await;
    assert!(!browser.check().await, "checks of a closed client are ignored");
}
