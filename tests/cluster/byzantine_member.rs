//! A byzantine member: a peer with a member's key that violates the protocols.

use futures::future::join_all;
use libp2p::gossipsub::IdentTopic;
use libp2p::identity::Keypair;
use vc_protocol::gossip::{Gossip, Heartbeat, SyncMessage};
use vc_protocol::node::Usage;
use vc_protocol::wire::{MAX_FRAME, encode};

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, running, sleeping_service, until};
use crate::unauthenticated_peer::{TestPeer, ended, frame, write};

/// The key of a node, from its disk.
fn key_of(cluster: &Cluster, at: usize) -> Keypair {
    let text = std::fs::read_to_string(cluster.nodes[at].dir.join("node.key")).expect("a key");
    let seed = data_encoding::BASE64.decode(text.trim().as_bytes()).expect("base64");
    Keypair::ed25519_from_bytes(seed).expect("a seed")
}

#[test]
fn a_member_that_sends_malformed_messages_does_not_disturb_the_cluster() {
    let mut cluster = Cluster::of(3);
    cluster.deploy(0, &sleeping_service("shop", "web", 4));
    cluster.nodes[2].cut_power();
    until("its work is taken over", DEADLINE, || {
        running(&cluster.ps(0), "shop/web", 4).and_then(|nodes| {
            if nodes.contains_key("n3") { Err(format!("{nodes:?}")) } else { Ok(()) }
        })
    });
    let spread = running(&cluster.ps(0), "shop/web", 4);
    let id = cluster.vc(0, &["--output", "json", "status"]).json()["cluster"]
        .as_str()
        .expect("an id")
        .to_owned();
    let memory = cluster.nodes[0].memory();

    let key = key_of(&cluster, 2);
    let victim: vc_protocol::NodeId = cluster.nodes[1].id().parse().expect("an id");
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let byzantine =
            TestPeer::connect(key, &id, cluster.nodes[0].address()).await.expect("connected");
        // Frames that are none, of all sizes, on streams of members.
        let mut streams = Vec::new();
        for bytes in [
            b"\xff\xff\xff\xff".to_vec(),
            frame(b""),
            frame(&[0x9f; 100_000]),
            frame(&[0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            frame(&vec![0xa1; MAX_FRAME]),
            frame(&vec![0x81; 5000]),
        ] {
            for protocol in ["/vc/sync/1", "/vc/logs/1"] {
                let mut stream = byzantine.open(protocol).await.expect("it is a member's");
                write(&mut stream, &bytes).await;
                assert!(
                    ended(&mut stream).await,
                    "{protocol}: {:x?}…",
                    &bytes[..bytes.len().min(16)]
                );
            }
        }
        // Members relay for each other: garbage there too, and no end of it.
        for protocol in ["/libp2p/circuit/relay/0.2.0/hop", "/libp2p/circuit/relay/0.2.0/stop"] {
            let mut stream = byzantine.open(protocol).await.expect("it is a member's");
            write(&mut stream, &[0xff; 10_000]).await;
            streams.extend(join_all((0..100).map(|_| byzantine.open(protocol))).await);
        }
        // Streams that are opened and left, and questions without end.
        streams.extend(join_all((0..200).map(|_| byzantine.open("/vc/sync/1"))).await);
        let summary =
            frame(&encode(&SyncMessage::Summary(vc_protocol::change::VersionVector::default())));
        let mut asking = byzantine.open("/vc/sync/1").await.expect("it is a member's");
        for _ in 0..2000 {
            write(&mut asking, &summary).await;
        }
        // Gossip: garbage, and heartbeats in another's name.
        let topic = IdentTopic::new(format!("vc/{id}"));
        let subscribed = topic.clone();
        byzantine
            .order(move |swarm| {
                swarm.behaviour_mut().gossip.subscribe(&subscribed).expect("subscribed")
            })
            .await;
        let lie = Heartbeat {
            node: victim,
            incarnation: u64::MAX,
            seq: u64::MAX,
            fingerprint: 7,
            usage: Usage::default(),
        };
        let lie = encode(&Gossip::Heartbeat(lie));
        let deadline = std::time::Instant::now() + DEADLINE;
        loop {
            let (topic, lie) = (topic.clone(), lie.clone());
            let heard = byzantine.order(move |swarm| {
                let gossip = &mut swarm.behaviour_mut().gossip;
                let heard = gossip.publish(topic.clone(), lie).is_ok();
                for i in 0..100_u32 {
                    let _ = gossip.publish(topic.clone(), i.to_be_bytes().repeat(250));
                }
                heard
            });
            if heard.await {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "a member's gossip is heard");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        cluster.vc(0, &["nodes"]).done();
    });
    let after = running(&cluster.ps(0), "shop/web", 4);
    assert_eq!(after, spread);
    let now = cluster.nodes[0].memory();
    println!("measured: memory of the node: {} MiB before, {} MiB after", memory >> 20, now >> 20);
    assert!(now < memory + (96 << 20), "memory grew from {memory} to {now}");

    // The real one comes back, and what was lied about is told from what is.
    cluster.nodes[2].start(&["run"]);
    cluster.all_up();
    cluster.nodes[1].cut_power();
    until("the death of the one lied about is noticed", DEADLINE, || {
        let rows = cluster.rows(0, &["nodes"]);
        let down = rows.iter().any(|row| row["name"] == "n2" && row["state"] == "down");
        if down { Ok(()) } else { Err(format!("{rows:?}")) }
    });
}
