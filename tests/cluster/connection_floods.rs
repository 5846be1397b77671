//! Floods of connections from one address that do not authenticate. The nodes' limits are lower than the floods.

use std::net::{TcpStream, UdpSocket};
use std::time::Instant;

use futures::future::join_all;

use crate::harness::cluster::Cluster;
use crate::harness::{measured, running, sleeping_service};
use crate::unauthenticated_peer::TestPeer;

/// Connections of a flood, to each node and over each transport.
const FLOOD: usize = 600;
/// Handshakes in progress at a time.
const CONCURRENT: usize = 50;
/// Limit of the growth of a node's resident memory, in bytes.
const GROWTH: u64 = 64 << 20;

/// Opens connections that never start a handshake.
fn idle(cluster: &Cluster) -> Vec<TcpStream> {
    let ports: Vec<u16> = cluster.alive().map(|i| cluster.nodes[i].port.number).collect();
    let connect = |port| TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
    ports.into_iter().flat_map(|port| (0..FLOOD).map(move |_| connect(port))).collect()
}

/// Connects peers with keys of their own that complete the transport handshake and nothing else. A node may have displaced some.
async fn handshaken(cluster: &Cluster) -> Vec<TestPeer> {
    let id = cluster.vc(0, &["--output", "json", "status"]).json()["cluster"].to_string();
    let id = id.trim_matches('"');
    let mut peers = Vec::new();
    for node in cluster.alive().map(|i| &cluster.nodes[i]) {
        for address in [node.address(), node.quic_address()] {
            for _ in 0..FLOOD / CONCURRENT {
                let some = (0..CONCURRENT).map(|_| TestPeer::unknown(id, address));
                peers.extend(join_all(some).await.into_iter().filter_map(Result::ok));
            }
        }
    }
    peers
}

/// Asserts that `vc` is answered over TCP and QUIC.
fn assert_answers(cluster: &Cluster) {
    for node in cluster.alive().map(|i| &cluster.nodes[i]) {
        for (transport, address) in [("TCP", node.address()), ("QUIC", node.quic_address())] {
            let start = Instant::now();
            let nodes = cluster.vc_to(address, &["--output", "json", "nodes"]).json();
            assert_eq!(nodes.as_array().map(Vec::len), Some(cluster.nodes.len()), "{address}");
            measured(&format!("vc over {transport}"), start.elapsed());
        }
    }
}

#[test]
fn floods_of_unauthenticated_connections_lock_out_neither_users_nor_members() {
    let mut cluster = Cluster::of(2);
    cluster.deploy(0, &sleeping_service("shop", "web", 2));
    let before = cluster.nodes[0].memory();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");

    let silent = idle(&cluster);
    assert_answers(&cluster);
    let peers = runtime.block_on(handshaken(&cluster));
    println!("measured: {} peers completed the handshake", peers.len());
    assert_answers(&cluster);
    // Datagrams that begin no connection.
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for _ in 0..FLOOD {
        let _ = socket.send_to(&[0xc0; 1200], ("127.0.0.1", cluster.nodes[0].port.number));
    }

    // A member that restarts during the floods is back. The other one has not given its instances away.
    cluster.nodes[1].kill();
    let again = idle(&cluster);
    let start = Instant::now();
    cluster.nodes[1].rerun(&[]);
    cluster.all_up();
    measured("the restarted member is back after", start.elapsed());
    assert!(running(&cluster.ps(0), "shop/web", 2).is_ok());
    assert_answers(&cluster);

    let after = cluster.nodes[0].memory();
    println!("measured: memory: {} MiB before, {} MiB after", before >> 20, after >> 20);
    assert!(after < before + GROWTH, "memory grew from {before} to {after}");
    let failures = crate::harness::log_check::entries(&cluster.nodes[0], "authentication failed");
    assert!(failures.len() <= 1, "{failures:?}");
    drop((silent, again, peers));
}
