//! Hostile peers that are not members. Each test then checks that the cluster is unchanged and accepts commands.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};

use futures::future::join_all;
use serde_json::json;
use vc_protocol::auth::{MAX_AUTH_FRAME, ServerHello};
use vc_protocol::gossip::topic;
use vc_protocol::token::{Issuer, NodeRole, Scope, UserRole, issue_certificate};
use vc_protocol::wire::AUTH_PROTOCOL;
use vc_protocol::{ClusterId, Keypair, NodeId, ProtocolVersions};

use crate::harness::cluster::Cluster;
use crate::harness::{measured, running, sleeping_service};
use crate::unauthenticated_peer::{TestPeer, ended, frame, read, write};

/// Limit of the growth of a node's resident memory during a test, in bytes.
const GROWTH: u64 = 96 << 20;

/// A cluster with a running service, and its state before the test.
struct Fixture {
    cluster: Cluster,
    /// Running instances of each node.
    spread: BTreeMap<String, usize>,
    /// Resident memory of the first node, in bytes.
    memory: u64,
}

impl Fixture {
    fn new() -> Self {
        let cluster = Cluster::of(2);
        cluster.deploy(0, &sleeping_service("shop", "web", 4));
        let spread = running(&cluster.ps(0), "shop/web", 4).expect("the service runs");
        let memory = cluster.nodes[0].memory();
        Self { cluster, spread, memory }
    }

    /// Returns the cluster's id.
    fn id(&self) -> String {
        self.cluster.vc(0, &["--output", "json", "status"]).json()["cluster"]
            .as_str()
            .expect("an id")
            .to_owned()
    }

    /// Returns the address of the first node.
    fn address(&self) -> &str {
        self.cluster.nodes[0].address()
    }

    /// Asserts that nodes and instances are unchanged, a deploy is accepted and memory has not grown by [`GROWTH`].
    fn assert_unchanged(&self) {
        self.cluster.all_up();
        assert_eq!(running(&self.cluster.ps(0), "shop/web", 4).as_ref(), Ok(&self.spread));
        self.cluster.deploy(0, &sleeping_service("shop", "after", 1));
        let now = self.cluster.nodes[0].memory();
        println!(
            "measured: memory of the node: {} MiB before, {} MiB after",
            self.memory >> 20,
            now >> 20
        );
        assert!(now < self.memory + GROWTH, "memory grew from {} to {now}", self.memory);
    }
}

/// Runs a future to its end.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(future)
}

#[test]
fn garbage_on_the_ports_is_ignored() {
    let fixture = Fixture::new();
    let port = fixture.cluster.nodes[0].port.number;
    let noise: Vec<u8> =
        (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    // Connections that are held open: silent ones, ones that begin as libp2p does, ones that send garbage.
    let mut open = Vec::new();
    for i in 0..300 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
        let begin: &[u8] = match i % 4 {
            0 => b"",
            1 => b"\x13/multistream/1.0.0\n",
            2 => b"\x13/multistream/1.0.0\n\x07/noise\n\xff\xff",
            _ => b"GET / HTTP/1.1\r\n\r\n",
        };
        let _ = stream.write_all(begin);
        if i % 4 > 1 {
            let _ = stream.write_all(&noise);
        }
        open.push(stream);
    }
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for datagram in noise.chunks(1200).cycle().take(2000) {
        let _ = socket.send_to(datagram, ("127.0.0.1", port));
    }
    fixture.assert_unchanged();
    drop(open);
}

#[test]
fn an_unauthenticated_peer_gets_no_protocol_but_auth() {
    let fixture = Fixture::new();
    let id = fixture.id();
    wait(async {
        let peer = TestPeer::unknown(&id, fixture.address()).await.expect("connected");
        let kademlia = format!("/vc/{id}/kad/1");
        for protocol in [
            "/vc/sync/1",
            "/vc/logs/1",
            "/meshsub/1.3.0",
            "/meshsub/1.2.0",
            "/meshsub/1.1.0",
            "/meshsub/1.0.0",
            "/floodsub/1.0.0",
            &kademlia,
            "/ipfs/kad/1.0.0",
            "/ipfs/id/1.0.0",
            "/ipfs/id/push/1.0.0",
            "/ipfs/ping/1.0.0",
            "/libp2p/circuit/relay/0.2.0/hop",
            "/libp2p/circuit/relay/0.2.0/stop",
        ] {
            assert_eq!(
                peer.open(protocol).await.err(),
                Some(true),
                "{protocol} is open to an unauthenticated peer"
            );
        }
        peer.open_auth().await;

        // Gossip reaches no node, and Kademlia returns no peers.
        let topic = libp2p::gossipsub::IdentTopic::new(topic(id.parse().expect("a cluster id")));
        let published = peer
            .order(move |swarm| {
                swarm.behaviour_mut().gossip.subscribe(&topic).expect("subscribed");
                swarm.behaviour_mut().gossip.publish(topic, b"down with n2".to_vec()).is_ok()
            })
            .await;
        assert!(!published, "a node subscribed to gossip of an unauthenticated peer");
        let node = peer.node;
        let known = peer
            .order(move |swarm| {
                swarm.behaviour_mut().kademlia.get_closest_peers(node);
                swarm
                    .behaviour_mut()
                    .kademlia
                    .kbuckets()
                    .map(|bucket| bucket.num_entries())
                    .sum::<usize>()
            })
            .await;
        assert_eq!(known, 0, "an unauthenticated peer learned addresses");
    });
    fixture.assert_unchanged();
}

#[test]
fn malformed_auth_messages_end_the_stream() {
    let fixture = Fixture::new();
    let id = fixture.id();
    wait(async {
        let peer = TestPeer::unknown(&id, fixture.address()).await.expect("connected");
        let greeting = frame(br#"{"version":1}"#);
        let huge = vec![b'x'; MAX_AUTH_FRAME + 1];
        let deep = [vec![b'['; MAX_AUTH_FRAME / 2], vec![b']'; MAX_AUTH_FRAME / 2]].concat();
        for bytes in [
            b"\xff\xff\xff\xff and further bytes".to_vec(),
            frame(b""),
            frame(b"not json"),
            frame(&huge),
            frame(&deep),
            [greeting.clone(), frame(b"{\"join\":{}}")].concat(),
            [greeting.clone(), frame(&huge)].concat(),
            [greeting.clone(), frame(&deep)].concat(),
            [greeting.clone(), b"\x7f\xff\xff\xff".to_vec()].concat(),
        ] {
            let mut stream = peer.open_auth().await;
            write(&mut stream, &bytes).await;
            assert!(ended(&mut stream).await, "{:?}…", &bytes[..bytes.len().min(40)]);
        }
        // Unfinished handshakes time out.
        let (mut silent, mut slow) = (peer.open_auth().await, peer.open_auth().await);
        write(&mut slow, &greeting).await;
        assert!(read(&mut slow).await.is_some(), "the node sends its certificate first");
        write(&mut slow, b"\x00\x00\x10").await;
        let start = std::time::Instant::now();
        assert!(ended(&mut silent).await && ended(&mut slow).await);
        measured("a silent handshake ends after", start.elapsed());
    });
    fixture.assert_unchanged();
}

#[test]
fn a_peer_that_sends_a_megabyte_without_authenticating_is_disconnected() {
    let fixture = Fixture::new();
    let id = fixture.id();
    wait(async {
        for address in [fixture.address(), fixture.cluster.nodes[0].quic_address()] {
            let peer = TestPeer::unknown(&id, address).await.expect("connected");
            let padding = "x".repeat(MAX_AUTH_FRAME - 100);
            let hello = frame(json!({"version": 1, "padding": padding}).to_string().as_bytes());
            let user = json!({"user": {"token": "x", "padding": padding}}).to_string();
            let handshake = [hello, frame(user.as_bytes())].concat();
            let mut sent = 0;
            while let Ok(mut stream) = peer.open(AUTH_PROTOCOL).await {
                assert!(sent < 4 << 20, "{address}: {sent} bytes were taken");
                write(&mut stream, &handshake).await;
                assert!(ended(&mut stream).await);
                sent += handshake.len();
            }
        }
    });
    fixture.assert_unchanged();
}

#[test]
fn forged_and_stolen_credentials_are_refused() {
    let fixture = Fixture::new();
    let id = fixture.id();
    let cluster: ClusterId = id.parse().expect("a cluster's id");
    let (root, thief) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let me = NodeId::of(&thief.public()).expect("ed25519");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as u64;
    let own = issue_certificate(&root, me, NodeRole::Server, now).expect("signed");
    let issuer = Issuer { cluster, key: &thief, certificate: &own };
    let user =
        issuer.issue(Scope::User(UserRole::Admin), "eve", vec![], 1, now, 60_000).expect("signed");
    let join =
        issuer.issue(Scope::Join(NodeRole::Server), "eve", vec![], 2, now, 60_000).expect("signed");
    wait(async {
        let seed = thief.clone().try_into_ed25519().expect("ed25519").secret();
        let key =
            libp2p::identity::Keypair::ed25519_from_bytes(seed.as_ref().to_vec()).expect("a seed");
        let peer = TestPeer::connect(key, &id, fixture.address()).await.expect("connected");
        // The node's own certificate, which it sends to every peer.
        let mut stream = peer.open_auth().await;
        write(&mut stream, &frame(br#"{"version":1}"#)).await;
        let proof = read(&mut stream).await.expect("its certificate");
        let ServerHello { certificate: stolen, .. } =
            serde_json::from_slice(&proof).expect("a proof");
        for hello in [
            json!({"member": {"certificate": stolen}}),
            json!({"member": {"certificate": own}}),
            json!({"user": {"token": user}}),
            json!({"user": {"token": stolen}}),
            json!({"join": {"token": join, "name": "eve"}}),
            json!({"join": {"token": stolen, "name": "eve"}}),
            json!({"join": {"token": own, "name": "eve"}}),
        ] {
            let mut stream = peer.open_auth().await;
            write(&mut stream, &frame(br#"{"version":1}"#)).await;
            read(&mut stream).await.expect("its certificate");
            write(&mut stream, &frame(hello.to_string().as_bytes())).await;
            let answer = read(&mut stream).await.expect("an answer");
            let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
            assert!(answer["refused"]["reason"].is_string(), "{hello} was answered with {answer}");
        }
        // A client of a version that the node does not speak.
        let mut stream = peer.open_auth().await;
        write(&mut stream, &frame(br#"{"version":9,"oldest":8}"#)).await;
        let hello = read(&mut stream).await.expect("a hello");
        let hello: ServerHello = serde_json::from_slice(&hello).expect("a hello");
        assert_eq!(hello.versions, ProtocolVersions::OURS);
        let credentials = json!({"user": {"token": user}});
        write(&mut stream, &frame(credentials.to_string().as_bytes())).await;
        let answer = read(&mut stream).await.expect("an answer");
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        let reason = answer["refused"]["reason"].as_str().expect("a reason");
        assert!(reason.contains("versions 8 to 9") && reason.contains("upgrade"), "{reason}");
        assert_eq!(
            peer.open("/vc/sync/1").await.err(),
            Some(true),
            "the peer is still unauthenticated"
        );
    });
    assert_eq!(fixture.cluster.rows(0, &["nodes"]).len(), 2, "no node has joined");
    fixture.assert_unchanged();
}

#[test]
fn unauthenticated_peers_that_exhaust_their_limits_do_not_lock_users_out() {
    let fixture = Fixture::new();
    let id = fixture.id();
    wait(async {
        // One peer with many streams.
        let peer = TestPeer::unknown(&id, fixture.address()).await.expect("connected");
        let mut held = join_all((0..300).map(|_| peer.open(AUTH_PROTOCOL))).await;
        fixture.cluster.vc(0, &["nodes"]).done();
        held.retain(Result::is_ok);
        println!("measured: one peer has {} open streams", held.len());
        // Many peers with one connection each.
        let many = join_all((0..300).map(|_| TestPeer::unknown(&id, fixture.address()))).await;
        let many: Vec<TestPeer> = many.into_iter().filter_map(Result::ok).collect();
        println!("measured: {} unauthenticated peers are connected", many.len());
        fixture.cluster.vc(0, &["nodes"]).done();
        let streams = join_all(many.iter().map(|peer| peer.open(AUTH_PROTOCOL))).await;
        println!(
            "measured: {} of them have a stream",
            streams.iter().filter(|stream| stream.is_ok()).count()
        );
        fixture.cluster.vc(0, &["nodes"]).done();
    });
    fixture.assert_unchanged();
}
