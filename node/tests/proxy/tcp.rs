//! TCP forwarding: splicing, choice of instances, failover, drains.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use vc_protocol::Keypair;

use crate::nodes::{
    Node, alone, client, container, instance, pair, place, place_with, replica, with_silent_member,
};

/// Returns bytes in which losses and reordering are visible.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251 + at) as u8).collect()
}

/// Answers each connection with a name.
fn serve_name(listener: TcpListener, name: &'static str) {
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(name.as_bytes()).await;
        }
    });
}

/// Returns all that a new connection to the service receives.
async fn ask(node: &Node, port: u16) -> String {
    let mut text = String::new();
    client(node, port).await.read_to_string(&mut text).await.expect("an answer");
    text
}

/// Runs a test with a client and a container, once on this node and once on the other.
async fn on_both_nodes(mut talk: impl AsyncFnMut(TcpStream, TcpStream)) {
    let (here, there) = pair().await;
    let (listener, port) = container("127.0.1.1").await;
    for node in [&here, &there] {
        place(&[&here, &there], &[(1, node.id, "127.0.1.1")]);
        let client = client(&here, port).await;
        let (served, _) = listener.accept().await.expect("accepted");
        talk(client, served).await;
    }
}

#[tokio::test]
async fn each_direction_is_closed_on_its_own() {
    on_both_nodes(async |mut client, mut served| {
        client.write_all(b"question").await.expect("written");
        client.shutdown().await.expect("half-closed");
        let mut question = String::new();
        served.read_to_string(&mut question).await.expect("up to the end");
        assert_eq!(question, "question");
        // The other direction stays open after the first has ended.
        for part in ["long ", "answer"] {
            served.write_all(part.as_bytes()).await.expect("written");
        }
        let mut beginning = [0; 5];
        client.read_exact(&mut beginning).await.expect("the first part");
        served.shutdown().await.expect("half-closed");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("up to the end");
        assert_eq!(answer, "answer");
    })
    .await;
}

#[tokio::test]
async fn the_instance_may_close_first() {
    on_both_nodes(async |mut client, mut served| {
        served.write_all(b"hello").await.expect("written");
        served.shutdown().await.expect("half-closed");
        let mut hello = String::new();
        client.read_to_string(&mut hello).await.expect("up to the end");
        assert_eq!(hello, "hello");
        client.write_all(b"thanks").await.expect("written");
        client.shutdown().await.expect("half-closed");
        let mut thanks = String::new();
        served.read_to_string(&mut thanks).await.expect("up to the end");
        assert_eq!(thanks, "thanks");
    })
    .await;
}

#[tokio::test]
async fn large_transfers_in_both_directions_arrive_whole() {
    on_both_nodes(async |client, served| {
        let sent = pattern(5_000_000);
        let talk = |stream: TcpStream| {
            let (mut from, mut to) = stream.into_split();
            let sent = sent.clone();
            async move {
                let mut received = Vec::new();
                let write = async {
                    to.write_all(&sent).await.expect("written");
                    to.shutdown().await.expect("half-closed");
                };
                let read = from.read_to_end(&mut received);
                let (_, read) = tokio::join!(write, read);
                read.expect("up to the end");
                received
            }
        };
        let (a, b) = tokio::join!(talk(client), talk(served));
        assert!(a == sent && b == sent, "{} and {} of {}", a.len(), b.len(), sent.len());
    })
    .await;
}

#[tokio::test]
async fn a_service_whose_instances_are_all_unhealthy_refuses_connections_at_once() {
    let (waits, refuses) = (alone(), alone());
    place(&[&waits], &[]);
    place_with(&[&refuses], &[], |routes| {
        let services = routes.services.values_mut();
        services.for_each(|routes| routes.is_unhealthy = true);
    });
    // Nothing is known of the service here: the connection is held for a while.
    let mut held = client(&waits, 80).await;
    let (mut buffer, mut other) = ([0], [0]);
    let held = held.read(&mut buffer);
    tokio::pin!(held);
    let mut refused = client(&refuses, 80).await;
    let error = refused.read(&mut other).await.expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(futures::poll!(held).is_pending(), "this one came first and is still held");
}

#[tokio::test]
async fn a_receiver_that_does_not_read_applies_backpressure() {
    let (here, there) = pair().await;
    let (listener, port) = container("127.0.1.1").await;
    let mut buffer = vec![7; 64 * 1024];
    for node in [&here, &there] {
        place(&[&here, &there], &[(1, node.id, "127.0.1.1")]);
        let sender = client(&here, port).await;
        let (mut receiver, _) = listener.accept().await.expect("accepted");
        let mut probe = client(&here, port).await;
        let (mut probed, _) = listener.accept().await.expect("accepted");
        let (mut written, mut blocked) = (0, 0);
        // The path is full when the sender stays blocked while another connection forwards bytes.
        while blocked < 50 {
            match sender.try_write(&buffer) {
                Ok(length) => (written, blocked) = (written + length, 0),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    probe.write_all(&[1]).await.expect("written");
                    assert_eq!(probed.read_u8().await.expect("forwarded"), 1);
                    blocked += 1;
                }
            }
            assert!(written < 100_000_000, "no backpressure");
        }
        let mut read = 0;
        while read < written {
            read += receiver.read(&mut buffer).await.expect("still connected");
        }
    }
}

#[tokio::test]
async fn a_reset_is_forwarded() {
    // A connection that is reset before its first byte counts as refused.
    let pass = async |client: &mut TcpStream, served: &mut TcpStream| {
        client.write_all(&[1]).await.expect("written");
        assert_eq!(served.read_u8().await.expect("connected"), 1);
    };
    on_both_nodes(async |mut client, mut served| {
        pass(&mut client, &mut served).await;
        served.set_zero_linger().expect("a reset");
        drop(served);
        let error = client.read(&mut [0]).await.expect_err("the connection was reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    })
    .await;
    on_both_nodes(async |mut client, mut served| {
        pass(&mut client, &mut served).await;
        client.set_zero_linger().expect("a reset");
        drop(client);
        let error = served.read(&mut [0]).await.expect_err("the connection was reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_closes_after_half_close_resets_the_instance() {
    on_both_nodes(async |mut client, mut served| {
        client.write_all(b"a question").await.expect("written");
        client.shutdown().await.expect("half-closed");
        let mut question = Vec::new();
        served.read_to_end(&mut question).await.expect("up to the end");
        drop(client);
        // Only writing detects a closed peer, as without the proxy.
        let chunk = vec![0; 64 * 1024];
        let until_reset = async { while served.write_all(&chunk).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(10), until_reset)
            .await
            .expect("the instance's connection is reset");
    })
    .await;
}

#[tokio::test]
async fn an_answer_arrives_when_the_instance_closes_before_reading_all() {
    on_both_nodes(async |mut client, mut served| {
        served.write_all(b"too long").await.expect("written");
        drop(served);
        let upload = pattern(3_000_000);
        // The upload may fail or succeed.
        let _ = client.write_all(&upload).await;
        let mut answer = [0; 8];
        client.read_exact(&mut answer).await.expect("the answer");
        assert_eq!(&answer, b"too long");
    })
    .await;
}

#[tokio::test]
async fn a_local_instance_is_preferred_and_remote_ones_serve_when_it_refuses() {
    let (here, there) = pair().await;
    let (near, port) = container("127.0.2.1").await;
    serve_name(replica("127.0.2.2", port).await, "far");
    place(&[&here, &there], &[(1, there.id, "127.0.2.2"), (2, here.id, "127.0.2.1")]);
    let accepted = tokio::spawn(async move {
        for _ in 0..3 {
            let (mut stream, _) = near.accept().await.expect("accepted");
            stream.write_all(b"near").await.expect("written");
        }
    });
    for _ in 0..3 {
        assert_eq!(ask(&here, port).await, "near");
    }
    // The local listener is closed: connections are refused.
    accepted.await.expect("three were served");
    for _ in 0..3 {
        assert_eq!(ask(&here, port).await, "far");
    }
}

#[tokio::test]
async fn a_remote_instance_that_refuses_is_skipped() {
    let (here, there) = pair().await;
    let (far, port) = container("127.0.3.1").await;
    serve_name(far, "far");
    // The second address has no listener; the other node does not know the third instance.
    let all = [(1, there.id, "127.0.3.2"), (2, there.id, "127.0.3.1")];
    place(&[&there], &all);
    place(&[&here], &[all[0], all[1], (3, there.id, "127.0.3.1")]);
    for _ in 0..6 {
        assert_eq!(ask(&here, port).await, "far");
    }
}

#[tokio::test]
async fn connections_fail_over_from_nodes_that_do_not_answer() {
    let (here, silent, mut requests) = with_silent_member().await;
    let (listener, port) = container("127.0.4.1").await;
    serve_name(listener, "alive");
    let key = Keypair::generate_ed25519();
    let dead = vc_protocol::NodeId::of(&key.public()).expect("ed25519");
    let unanswered = [(2, dead, "127.0.4.2"), (3, silent, "127.0.4.3")];
    place(&[&here], &unanswered);
    let before = Instant::now();
    let mut waiting = client(&here, port).await;
    // An instance that answers appears while the connection waits for one that does not.
    let _request = requests.next().await.expect("a stream to the silent member");
    place(&[&here], &[(1, here.id, "127.0.4.1"), unanswered[0], unanswered[1]]);
    let mut text = String::new();
    waiting.read_to_string(&mut text).await.expect("an answer");
    assert_eq!(text, "alive");
    println!("measured: answered after {:?}", before.elapsed());
}

#[tokio::test]
async fn a_connection_without_an_instance_is_held_until_one_appears_or_the_deadline_resets_it() {
    let here = alone();
    let (listener, port) = container("127.0.5.1").await;
    serve_name(listener, "late");
    place(&[&here], &[]);
    let idle = here.table.receiver_count();
    let mut early = client(&here, port).await;
    // A held connection waits for changes of the routes.
    while here.table.receiver_count() == idle {
        tokio::task::yield_now().await;
    }
    place(&[&here], &[(1, here.id, "127.0.5.1")]);
    let mut text = String::new();
    early.read_to_string(&mut text).await.expect("an answer");
    assert_eq!(text, "late");
    place(&[&here], &[]);
    let before = Instant::now();
    let mut unserved = client(&here, port).await;
    let error = unserved.read(&mut [0]).await.expect_err("the connection is reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    println!("measured: the connection was reset after {:?}", before.elapsed());
}

#[tokio::test]
async fn connections_are_balanced_over_remote_instances() {
    let (here, there) = pair().await;
    let (one, port) = container("127.0.6.1").await;
    let other = replica("127.0.6.2", port).await;
    place(&[&here, &there], &[(1, there.id, "127.0.6.1"), (2, there.id, "127.0.6.2")]);
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(client(&here, port).await);
    }
    let ten = async |listener: TcpListener| {
        let mut held = Vec::new();
        for _ in 0..10 {
            held.push(listener.accept().await.expect("accepted"));
        }
        held
    };
    let _held = tokio::join!(ten(one), ten(other));
    assert_eq!(here.connections.active(&instance(1)), 10);
    assert_eq!(here.connections.active(&instance(2)), 10);
}

#[tokio::test]
async fn an_instance_removed_from_the_routes_keeps_its_connections() {
    let (here, there) = pair().await;
    let (old, port) = container("127.0.7.1").await;
    serve_name(replica("127.0.7.2", port).await, "new");
    for node in [&here, &there] {
        place(&[&here, &there], &[(1, node.id, "127.0.7.1")]);
        let mut client = client(&here, port).await;
        let (mut served, _) = old.accept().await.expect("accepted");
        place(&[&here, &there], &[(2, node.id, "127.0.7.2")]);
        assert_eq!(ask(&here, port).await, "new");
        for round in 0..3 {
            client.write_all(&[round]).await.expect("written");
            assert_eq!(served.read_u8().await.expect("still connected"), round);
            served.write_all(&[round]).await.expect("written");
            assert_eq!(client.read_u8().await.expect("still connected"), round);
        }
    }
}

#[tokio::test]
async fn a_drain_refuses_new_connections_and_waits_for_open_ones() {
    let (here, there) = pair().await;
    let (old, port) = container("127.0.8.1").await;
    serve_name(replica("127.0.8.2", port).await, "other");
    place(&[&here, &there], &[(1, there.id, "127.0.8.1")]);
    let client = client(&here, port).await;
    let (served, _) = old.accept().await.expect("accepted");
    place(&[&here, &there], &[(1, there.id, "127.0.8.1"), (2, there.id, "127.0.8.2")]);
    assert_eq!(there.connections.active(&instance(1)), 1);
    let connections = there.connections.clone();
    let mut drain = tokio::spawn(async move {
        connections.drain(&instance(1), Duration::from_secs(60)).await;
    });
    while !there.connections.is_draining(&instance(1)) {
        tokio::task::yield_now().await;
    }
    for _ in 0..4 {
        assert_eq!(ask(&here, port).await, "other");
    }
    assert!(futures::poll!(&mut drain).is_pending());
    drop((client, served));
    tokio::time::timeout(Duration::from_secs(10), drain).await.expect("in time").expect("drained");
}
