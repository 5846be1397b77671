//! Published ports: opening, closing, scopes, addresses and conflicts.

use std::io::{BufRead as _, BufReader, ErrorKind};
use std::net::IpAddr;
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vc_engine::routes::{Published, Routes};
use vc_node::handover::Sockets;
use vc_node::proxy::{Ingress, PublishErrors};
use vc_protocol::spec::{Port, PortProtocol, ProxyProtocol, Publish};

use crate::nodes::{Node, alone, container, pair, place_with, service};

/// Returns a TCP port of the service.
pub fn port(published: u16, target: u16, publish: Publish) -> Port {
    Port {
        host_ip: None,
        published,
        target,
        protocol: PortProtocol::Tcp,
        publish,
        proxy_protocol: None,
    }
}

/// Adds a published port to the routes.
pub fn publish(routes: &mut Routes, port: Port) {
    let held = routes.ports.entry((port.protocol, port.published)).or_default();
    held.push(Published { service: service(), port });
}

/// Starts the ingress of a node. Returns the errors that it reports.
fn ingress(node: &Node) -> mpsc::Receiver<PublishErrors> {
    let (problems, receiver) = mpsc::channel(16);
    let ingress = Ingress::new(node.router.clone(), problems, Sockets::default());
    tokio::spawn(ingress.run(CancellationToken::new()));
    receiver
}

/// Returns a port that is free now.
pub async fn free() -> u16 {
    let listener = TcpListener::bind("[::]:0").await.expect("a port");
    listener.local_addr().expect("bound").port()
}

/// Connects to a port as soon as it is open.
pub async fn connect(port: u16) -> TcpStream {
    loop {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => return stream,
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until a port is closed.
async fn until_refused(port: u16) {
    while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_proxy_protocol_names_the_client_to_instances_on_both_nodes() {
    let (here, there) = pair().await;
    let (listener, target) = container("127.0.15.1").await;
    let ports = [(free().await, ProxyProtocol::V1), (free().await, ProxyProtocol::V2)];
    let _problems = ingress(&here);
    for node in [&here, &there] {
        place_with(&[&here, &there], &[(1, node.id, "127.0.15.1")], |routes| {
            for (published, version) in ports {
                let proxy_protocol = Some(version);
                publish(
                    routes,
                    Port { proxy_protocol, ..port(published, target, Publish::Cluster) },
                );
            }
        });
        for (published, version) in ports {
            let mut client = connect(published).await;
            client.write_all(b"question").await.expect("written");
            client.shutdown().await.expect("half-closed");
            let (mut served, _) = listener.accept().await.expect("accepted");
            let mut received = Vec::new();
            served.read_to_end(&mut received).await.expect("up to the end");
            let from = client.local_addr().expect("connected").port();
            let expected = match version {
                ProxyProtocol::V1 => {
                    format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {published}\r\n").into_bytes()
                }
                ProxyProtocol::V2 => [
                    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01",
                    &from.to_be_bytes()[..],
                    &published.to_be_bytes()[..],
                ]
                .concat(),
            };
            assert_eq!(received, [&expected[..], b"question"].concat());
        }
    }
}

#[tokio::test]
async fn closing_a_published_port_keeps_its_connections() {
    let here = alone();
    let (listener, target) = container("127.0.14.1").await;
    let (first, second) = (free().await, free().await);
    let _problems = ingress(&here);
    let on = [(1, here.id, "127.0.14.1")];
    place_with(&[&here], &on, |routes| publish(routes, port(first, target, Publish::Cluster)));
    let mut client = connect(first).await;
    let (mut served, _) = listener.accept().await.expect("accepted");
    place_with(&[&here], &on, |routes| publish(routes, port(second, target, Publish::Cluster)));
    until_refused(first).await;
    client.write_all(&[1]).await.expect("written");
    assert_eq!(served.read_u8().await.expect("still there"), 1);
    let mut other = connect(second).await;
    let (mut served, _) = listener.accept().await.expect("accepted");
    other.write_all(&[2]).await.expect("written");
    assert_eq!(served.read_u8().await.expect("connected"), 2);
    let mut six = TcpStream::connect(("::1", second)).await.expect("IPv6 too");
    let (mut served, _) = listener.accept().await.expect("accepted");
    six.write_all(&[3]).await.expect("written");
    assert_eq!(served.read_u8().await.expect("connected"), 3);
}

#[tokio::test]
async fn a_node_scoped_port_is_open_only_where_an_instance_runs() {
    let (here, there) = pair().await;
    let (near, target) = container("127.0.15.1").await;
    let published = free().await;
    let _problems = ingress(&here);
    let with = |routes: &mut Routes| publish(routes, port(published, target, Publish::Node));
    // The ingress has applied the routes when the port that every node publishes is open.
    let everywhere = free().await;
    place_with(&[&here, &there], &[(1, there.id, "127.0.15.2")], |routes| {
        with(routes);
        publish(routes, port(everywhere, 1, Publish::Cluster));
    });
    let _client = connect(everywhere).await;
    assert!(TcpStream::connect(("127.0.0.1", published)).await.is_err());
    let both = [(1, there.id, "127.0.15.2"), (2, here.id, "127.0.15.1")];
    place_with(&[&here, &there], &both, with);
    for _ in 0..2 {
        let _client = connect(published).await;
        near.accept().await.expect("accepted");
    }
    place_with(&[&here, &there], &both[..1], with);
    until_refused(published).await;
}

#[tokio::test]
async fn a_port_that_the_node_has_itself_is_reported_as_such() {
    let here = alone();
    let taken = TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let published = taken.local_addr().expect("bound").port();
    let mut problems = ingress(&here);
    let on = [(1, here.id, "127.0.16.2")];
    place_with(&[&here], &on, |routes| publish(routes, port(published, 80, Publish::Cluster)));
    let errors = problems.recv().await.expect("an error");
    let error = &errors[&format!("{published}/tcp")];
    assert!(error.starts_with("this node has it itself"), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_reported_with_its_owner_and_published_when_free() {
    let here = alone();
    let (listener, target) = container("127.0.16.1").await;
    let script = "import socket, sys; it = socket.create_server(('0.0.0.0', 0));
print(it.getsockname()[1], flush=True); sys.stdin.read()";
    let mut owner = Command::new("python3");
    owner.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut owner = owner.spawn().expect("python3");
    let mut line = String::new();
    BufReader::new(owner.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a port");
    let published: u16 = line.trim().parse().expect("a port");
    let mut problems = ingress(&here);
    let on = [(1, here.id, "127.0.16.1")];
    place_with(&[&here], &on, |routes| publish(routes, port(published, target, Publish::Cluster)));
    let errors = problems.recv().await.expect("an error");
    let error = &errors[&format!("{published}/tcp")];
    assert!(error.starts_with("already in use by python3"), "{error}");
    assert!(error.ends_with(&format!("(pid {})", owner.id())), "{error}");
    drop(owner.stdin.take());
    owner.wait().expect("ended");
    assert_eq!(problems.recv().await.expect("a report without errors"), PublishErrors::new());
    let _client = connect(published).await;
    listener.accept().await.expect("accepted");
}

#[tokio::test]
async fn a_port_is_bound_to_its_address_only() {
    let here = alone();
    let (listener, target) = container("127.0.17.1").await;
    let published = free().await;
    let mut problems = ingress(&here);
    let at = |address: &str| Port {
        host_ip: Some(address.parse::<IpAddr>().expect("an address")),
        ..port(published, target, Publish::Cluster)
    };
    place_with(&[&here], &[(1, here.id, "127.0.17.1")], |routes| {
        publish(routes, at("127.0.17.2"));
        // An address of another node, which publishes the port, or of none.
        publish(routes, at("192.0.2.1"));
    });
    let client = loop {
        match TcpStream::connect(("127.0.17.2", published)).await {
            Ok(client) => break client,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    listener.accept().await.expect("accepted");
    drop(client);
    assert!(TcpStream::connect(("127.0.0.1", published)).await.is_err());
    let absent =
        (format!("{published}/tcp of 192.0.2.1"), "this host has no such address".to_owned());
    let reported = problems.recv().await.expect("a report");
    assert_eq!(reported.into_iter().collect::<Vec<_>>(), [absent]);
}

#[tokio::test]
async fn all_addresses_of_ipv4_and_those_of_ipv6_are_two_ports() {
    let here = alone();
    let (four, target) = container("127.0.19.1").await;
    let published = free().await;
    let _problems = ingress(&here);
    let at = |address: &str| Port {
        host_ip: Some(address.parse::<IpAddr>().expect("an address")),
        ..port(published, target, Publish::Cluster)
    };
    let on = [(1, here.id, "127.0.19.1")];
    place_with(&[&here], &on, |routes| {
        publish(routes, at("0.0.0.0"));
        publish(routes, at("::"));
    });
    for address in ["127.0.0.1", "::1"] {
        let _client = loop {
            match TcpStream::connect((address, published)).await {
                Ok(client) => break client,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        four.accept().await.expect("accepted");
    }
    place_with(&[&here], &on, |routes| publish(routes, at("::")));
    until_refused(published).await;
    TcpStream::connect(("::1", published)).await.expect("IPv6 still");
}

#[tokio::test]
async fn a_udp_port_is_published() {
    let here = alone();
    let container = UdpSocket::bind("127.0.18.1:0").await.expect("a port");
    let target = container.local_addr().expect("bound").port();
    let published = free().await;
    let _problems = ingress(&here);
    let udp = Port { protocol: PortProtocol::Udp, ..port(published, target, Publish::Cluster) };
    place_with(&[&here], &[(1, here.id, "127.0.18.1")], |routes| publish(routes, udp));
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    client.connect(("127.0.0.1", published)).await.expect("connected");
    let mut buffer = [0; 16];
    let (length, from) = loop {
        let _ = client.send(b"ping").await;
        let asked = container.recv_from(&mut buffer);
        let wait = std::time::Duration::from_millis(100);
        if let Ok(asked) = tokio::time::timeout(wait, asked).await {
            break asked.expect("asked");
        }
    };
    assert_eq!(&buffer[..length], b"ping");
    container.send_to(b"pong", from).await.expect("sent");
    let length = client.recv(&mut buffer).await.expect("an answer");
    assert_eq!(&buffer[..length], b"pong");
}
