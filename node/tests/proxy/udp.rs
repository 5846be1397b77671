//! UDP forwarding: sessions, datagram sizes and failover.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::net::UdpSocket;
use vc_node::dns::Admit;

use crate::nodes::{Node, instance, pair, place, service};

/// Starts a container that answers each datagram with its name and the datagram.
async fn echo(address: &str, port: u16, name: &'static str) -> u16 {
    let socket = UdpSocket::bind((address, port)).await.expect("a port");
    let port = socket.local_addr().expect("bound").port();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let answer = [name.as_bytes(), &buffer[..length]].concat();
            let _ = socket.send_to(&answer, from).await;
        }
    });
    port
}

/// Opens a port of a node that forwards to the service.
async fn publish(node: &Node, target: u16) -> std::net::SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    serve(node, socket, target);
    address
}

/// Forwards what a socket of a node receives to the service.
fn serve(node: &Node, socket: UdpSocket, target: u16) {
    let router = node.router.clone();
    let all: Admit = Arc::new(|_| async { true }.boxed());
    tokio::spawn(async move { router.serve_udp(socket, service(), target, all).await });
}

/// Sends a datagram until an answer arrives, since datagrams may be lost.
async fn ask(client: &UdpSocket, question: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    for _ in 0..20 {
        client.send(question).await.expect("sent");
        let answer = tokio::time::timeout(Duration::from_millis(500), client.recv(&mut buffer));
        if let Ok(Ok(length)) = answer.await {
            return buffer[..length].to_vec();
        }
    }
    panic!("no answer");
}

#[tokio::test]
async fn a_client_keeps_its_instance_on_this_and_other_nodes() {
    let (here, there) = pair().await;
    let port = echo("127.0.11.1", 0, "one ").await;
    echo("127.0.11.2", port, "two ").await;
    for node in [&here, &there] {
        place(&[&here, &there], &[(1, node.id, "127.0.11.1"), (2, node.id, "127.0.11.2")]);
        let address = publish(&here, port).await;
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..4 {
            let client = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
            client.connect(address).await.expect("connected");
            // The first datagram of a session is not lost.
            client.send(b"hello").await.expect("sent");
            let mut first = vec![0; 16];
            let length = client.recv(&mut first).await.expect("an answer");
            first.truncate(length);
            assert!(first.ends_with(b" hello"));
            for _ in 0..3 {
                assert_eq!(ask(&client, b"hello").await, first);
            }
            names.insert(first);
        }
        assert_eq!(names.len(), 2, "both instances serve");
    }
}

#[tokio::test]
async fn answers_leave_from_the_address_that_was_asked() {
    let (here, _) = pair().await;
    let port = echo("127.0.20.1", 0, "").await;
    place(&[&here], &[(1, here.id, "127.0.20.1")]);
    for (bound, asked) in [
        ("0.0.0.0:0", vec!["127.0.20.2", "127.0.20.3"]),
        ("[::]:0", vec!["127.0.20.2", "127.0.20.3", "::1"]),
    ] {
        let socket = UdpSocket::bind(bound).await.expect("a port");
        let published = socket.local_addr().expect("bound").port();
        serve(&here, socket, port);
        for asked in asked {
            let own = if asked == "::1" { "[::]:0" } else { "0.0.0.0:0" };
            let client = UdpSocket::bind(own).await.expect("a port");
            // A connected socket takes nothing that comes from elsewhere.
            client.connect((asked, published)).await.expect("connected");
            assert_eq!(ask(&client, b"hello").await, b"hello", "{asked} of {bound}");
        }
        // One client that asks two addresses gets each answer from its own.
        let client = UdpSocket::bind("0.0.0.0:0").await.expect("a port");
        let mut buffer = [0; 16];
        for asked in ["127.0.20.2", "127.0.20.3"] {
            client.send_to(b"hello", (asked, published)).await.expect("sent");
            let (_, from) = client.recv_from(&mut buffer).await.expect("an answer");
            assert_eq!(from.ip().to_string(), asked);
        }
    }
}

#[tokio::test]
async fn large_and_empty_datagrams_are_forwarded_whole() {
    let (here, there) = pair().await;
    let port = echo("127.0.12.1", 0, "").await;
    place(&[&here, &there], &[(1, there.id, "127.0.12.1")]);
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    client.connect(publish(&here, port).await).await.expect("connected");
    for length in [0, 1, 1400, 65_507] {
        let question: Vec<u8> = (0..length).map(|at| at as u8).collect();
        assert!(ask(&client, &question).await == question, "{length} bytes");
    }
}

#[tokio::test]
async fn a_session_fails_over_when_its_instance_is_removed_or_refuses() {
    let (here, there) = pair().await;
    let port = echo("127.0.13.1", 0, "one ").await;
    echo("127.0.13.2", port, "two ").await;
    place(&[&here, &there], &[(1, there.id, "127.0.13.1")]);
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    client.connect(publish(&here, port).await).await.expect("connected");
    assert_eq!(ask(&client, b"hello").await, b"one hello");
    place(&[&here, &there], &[(2, there.id, "127.0.13.2")]);
    assert_eq!(ask(&client, b"hello").await, b"two hello");
    // Instances that refuse are left for one that accepts.
    place(&[&here, &there], &[(2, there.id, "127.0.13.3"), (3, here.id, "127.0.13.4")]);
    let _ = client.send(b"lost").await;
    place(
        &[&here, &there],
        &[(1, there.id, "127.0.13.1"), (2, there.id, "127.0.13.3"), (3, here.id, "127.0.13.4")],
    );
    assert_eq!(ask(&client, b"hello").await, b"one hello");
    assert_eq!(
        here.connections.active(&instance(1)),
        0,
        "UDP sessions do not count as connections"
    );
}
