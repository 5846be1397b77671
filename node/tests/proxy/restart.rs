//! Restarts of a node: drained streams, sockets and connections that are handed over.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vc_node::handover::Sockets;
use vc_node::proxy::{CONNECT_DEADLINE, Ingress, resume};
use vc_protocol::spec::{PortProtocol, Publish};

use crate::nodes::{alone, client, container, pair, place, place_with};
use crate::ports::{connect, free, port, publish};

/// Sends a byte over a connection and receives it.
async fn exchange(from: &mut TcpStream, to: &mut TcpStream, byte: u8) {
    from.write_all(&[byte]).await.expect("written");
    assert_eq!(to.read_u8().await.expect("connected"), byte);
}

#[tokio::test]
async fn clients_wait_in_the_backlog_of_a_socket_that_is_handed_over() {
    let here = alone();
    let (listener, target) = container("127.0.30.1").await;
    let published = free().await;
    let run = |left: Sockets| {
        let (problems, _) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let ingress = Ingress::new(here.router.clone(), problems, left);
        (stop.clone(), tokio::spawn(ingress.run(stop)))
    };
    let (stop, before) = run(Sockets::default());
    place_with(&[&here], &[(1, here.id, "127.0.30.1")], |routes| {
        publish(routes, port(published, target, Publish::Cluster));
        let udp = vc_protocol::spec::Port {
            protocol: PortProtocol::Udp,
            ..port(published, target, Publish::Cluster)
        };
        publish(routes, udp);
    });
    let mut early = connect(published).await;
    let (mut served, _) = listener.accept().await.expect("accepted");
    stop.cancel();
    let left = before.await.expect("it ends");
    let names: Vec<String> = left.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, [format!("port {published}/tcp"), format!("port {published}/udp")]);
    let mut waiting = TcpStream::connect(("127.0.0.1", published)).await.expect("open still");
    waiting.write_all(&[2]).await.expect("written");
    let (_stop, _after) = run(left);
    let (mut second, _) = listener.accept().await.expect("accepted");
    assert_eq!(second.read_u8().await.expect("connected"), 2);
    exchange(&mut early, &mut served, 1).await;
}

#[tokio::test]
async fn a_connection_to_an_instance_here_goes_on_with_the_bytes_that_were_not_written() {
    let here = alone();
    let (listener, target) = container("127.0.31.1").await;
    place(&[&here], &[(1, here.id, "127.0.31.1")]);
    let mut client = client(&here, target).await;
    let (mut served, _) = listener.accept().await.expect("accepted");
    exchange(&mut client, &mut served, 1).await;
    // More than all buffers hold: the client does not read.
    let sent: Vec<u8> = (0..20_000_000_u32).map(|at| (at / 251 + at) as u8).collect();
    let answer = sent.clone();
    let writes = tokio::spawn(async move {
        served.write_all(&answer).await.expect("written");
        served
    });
    let mut first = [0];
    client.read_exact(&mut first).await.expect("the beginning");
    let detached = here.router.detach(std::future::ready(())).await;
    assert_eq!(detached.len(), 1);
    for connection in detached {
        tokio::spawn(resume(connection));
    }
    let mut received = vec![0; sent.len() - 1];
    client.read_exact(&mut received).await.expect("all of it");
    assert!(received == sent[1..], "nothing is lost or repeated");
    let mut served = writes.await.expect("written");
    exchange(&mut client, &mut served, 3).await;
    drop(client);
    assert_eq!(served.read(&mut [0]).await.expect("the end"), 0);
}

#[tokio::test]
async fn a_drain_closes_idle_streams_and_lets_requests_finish() {
    // The node of the clients restarts, then that of the instance.
    for restarts in 0..2 {
        let (here, there) = pair().await;
        let (listener, target) = container("127.0.32.1").await;
        place(&[&here, &there], &[(1, there.id, "127.0.32.1")]);
        let mut idle = client(&here, target).await;
        let (mut idle_served, _) = listener.accept().await.expect("accepted");
        let mut busy = client(&here, target).await;
        let (mut busy_served, _) = listener.accept().await.expect("accepted");
        exchange(&mut idle, &mut idle_served, 1).await;
        exchange(&mut idle_served, &mut idle, 2).await;
        exchange(&mut busy, &mut busy_served, 3).await;
        let router = [&here, &there][restarts].router.clone();
        let drained = tokio::spawn(async move { router.drain().await });
        assert_eq!(idle.read(&mut [0]).await.expect("a clean end"), 0);
        drop(idle);
        assert_eq!(idle_served.read(&mut [0]).await.expect("a clean end"), 0);
        exchange(&mut busy_served, &mut busy, 4).await;
        assert_eq!(busy.read(&mut [0]).await.expect("a clean end after the answer"), 0);
        drop((busy, idle_served, busy_served));
        drained.await.expect("drained");
    }
}

#[tokio::test]
async fn a_connection_waits_for_the_restart_of_the_only_node_with_an_instance() {
    let (here, there) = pair().await;
    let (listener, target) = container("127.0.33.1").await;
    let only = [(1, there.id, "127.0.33.1")];
    // It refuses, as a node does that restarts.
    place_with(&[&here], &only, |routes| {
        routes.restarting.insert(there.id);
    });
    let mut client = client(&here, target).await;
    let longer = CONNECT_DEADLINE + Duration::from_millis(500);
    assert!(timeout(longer, client.read_u8()).await.is_err(), "it is not reset meanwhile");
    place(&[&here, &there], &only);
    let (mut served, _) = listener.accept().await.expect("accepted");
    exchange(&mut client, &mut served, 1).await;
}

#[tokio::test]
async fn other_nodes_are_refused_while_connections_are_detached() {
    let (here, there) = pair().await;
    let (_listener, target) = container("127.0.34.1").await;
    place(&[&here, &there], &[(1, there.id, "127.0.34.1")]);
    assert!(there.router.detach(std::future::ready(())).await.is_empty());
    let mut client = client(&here, target).await;
    assert!(client.read_u8().await.is_err(), "no instance accepts");
}
