//! Members that violate the route protocol.

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{Stream, StreamProtocol};
use tokio::io::AsyncReadExt as _;
use vc_protocol::route::{ACCEPTED, MAX_REQUEST, REFUSED, RouteRequest};
use vc_protocol::spec::PortProtocol;
use vc_protocol::wire::{ROUTE_PROTOCOL, encode};

use crate::nodes::{Node, container, instance, pair, place};

/// Opens a stream of the route protocol.
async fn open(from: &Node, to: &Node) -> Stream {
    let mut members = from.members.clone();
    let protocol = StreamProtocol::new(ROUTE_PROTOCOL);
    members.open_stream(to.id.peer_id(), protocol).await.expect("a stream")
}

/// Sends a request as a frame.
async fn request(stream: &mut Stream, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("short");
    stream.write_all(&length.to_be_bytes()).await.expect("written");
    stream.write_all(bytes).await.expect("written");
    stream.flush().await.expect("flushed");
}

/// Returns all bytes that the other node sends until it closes the stream. Panics after 10 s.
async fn answer(stream: &mut Stream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(std::time::Duration::from_secs(10), read).await;
    let _ = read.expect("the stream ends");
    answer
}

#[tokio::test]
async fn malformed_requests_are_rejected() {
    let (here, there) = pair().await;
    let mut garbage = open(&here, &there).await;
    request(&mut garbage, b"GET / HTTP/1.1").await;
    assert_eq!(answer(&mut garbage).await, b"");
    let mut endless = open(&here, &there).await;
    endless.write_all(&u32::MAX.to_be_bytes()).await.expect("written");
    endless.flush().await.expect("flushed");
    assert_eq!(answer(&mut endless).await, b"");
    let mut long = open(&here, &there).await;
    let _ = long.write_all(&(MAX_REQUEST as u32 + 1).to_be_bytes()).await;
    let _ = long.flush().await;
    assert_eq!(answer(&mut long).await, b"");
    let mut silent = open(&here, &there).await;
    silent.write_all(&[0]).await.expect("written");
    silent.flush().await.expect("flushed");
    assert_eq!(answer(&mut silent).await, b"");
}

#[tokio::test]
async fn only_local_instances_that_accept_connections_are_reached() {
    let (here, there) = pair().await;
    let (_listener, port) = container("127.0.9.1").await;
    let all = [(1, there.id, "127.0.9.1"), (2, here.id, "127.0.9.1"), (4, there.id, "127.0.9.1")];
    place(&[&here, &there], &all);
    there.connections.start_draining(&instance(4));
    for (replica, port, expected) in [
        (1, port, ACCEPTED),
        (2, port, REFUSED),
        (3, port, REFUSED),
        (4, port, REFUSED),
        (1, 1, REFUSED),
    ] {
        let mut stream = open(&here, &there).await;
        let wanted =
            RouteRequest { instance: instance(replica), port, protocol: PortProtocol::Tcp };
        request(&mut stream, &encode(&wanted)).await;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("an answer");
        assert_eq!(byte, [expected], "replica {replica}, port {port}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_without_an_empty_record_resets_the_connection() {
    let (here, there) = pair().await;
    let (listener, port) = container("127.0.10.1").await;
    place(&[&here, &there], &[(1, there.id, "127.0.10.1")]);
    // Ends within a record; ends between records; continues after the empty record.
    for records in [&[0, 9, 1, 2][..], &[0, 1, 1], &[0, 0, 0, 1, 1]] {
        let mut stream = open(&here, &there).await;
        let wanted = RouteRequest { instance: instance(1), port, protocol: PortProtocol::Tcp };
        request(&mut stream, &encode(&wanted)).await;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("an answer");
        assert_eq!(byte, [ACCEPTED]);
        let (mut served, _) = listener.accept().await.expect("accepted");
        stream.write_all(records).await.expect("written");
        stream.close().await.expect("closed");
        let mut received = Vec::new();
        let end = served.read_to_end(&mut received).await;
        assert!(end.is_err(), "{records:?} ended the connection without a reset");
    }
}
