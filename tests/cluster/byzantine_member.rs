//! A byzantine member: a peer with a member's key that violates the protocols.

use futures::future::join_all;
use libp2p::gossipsub::IdentTopic;
use libp2p::identity::Keypair;
use serde_json::json;
use vc_protocol::ErrorCode;
use vc_protocol::auth::Delegated;
use vc_protocol::change::{Actor, Batch, ChangeBody, DocumentId, SignedChange};
use vc_protocol::control::{ExecRequest, Reply};
use vc_protocol::exec::InstanceRequest;
use vc_protocol::gossip::{Gossip, Heartbeat, SyncMessage, topic};
use vc_protocol::log::InstanceLogRequest;
use vc_protocol::node::Usage;
use vc_protocol::wire::{MAX_FRAME, encode};

use crate::audit::records;
use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, running, sleeping_service, until};
use crate::unauthenticated_peer::{TestPeer, ended, frame, read, write};

/// Returns the key of a node, from its data directory.
pub fn key_of(cluster: &Cluster, at: usize) -> Keypair {
    let text = std::fs::read_to_string(cluster.nodes[at].dir.join("node.key")).expect("a key");
    let seed = data_encoding::BASE64.decode(text.trim().as_bytes()).expect("base64");
    Keypair::ed25519_from_bytes(seed).expect("a seed")
}

#[test]
fn a_member_that_sends_malformed_messages_does_not_disturb_the_cluster() {
    let mut cluster = Cluster::of(3);
    cluster.deploy(0, &sleeping_service("shop", "web", 4));
    cluster.nodes[2].cut_power();
    until("its instances are rescheduled", DEADLINE, || {
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
        // Malformed frames of all sizes, on the protocols of members.
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
                let mut stream = byzantine.open(protocol).await.expect("open to members");
                write(&mut stream, &bytes).await;
                assert!(
                    ended(&mut stream).await,
                    "{protocol}: {:x?}…",
                    &bytes[..bytes.len().min(16)]
                );
            }
        }
        // Garbage and many streams on the relay protocols, which members provide to each other.
        for protocol in ["/libp2p/circuit/relay/0.2.0/hop", "/libp2p/circuit/relay/0.2.0/stop"] {
            let mut stream = byzantine.open(protocol).await.expect("open to members");
            write(&mut stream, &[0xff; 10_000]).await;
            streams.extend(join_all((0..100).map(|_| byzantine.open(protocol))).await);
        }
        // Idle streams, and more requests than a node answers.
        streams.extend(join_all((0..200).map(|_| byzantine.open("/vc/sync/1"))).await);
        let summary =
            frame(&encode(&SyncMessage::Summary(vc_protocol::change::VersionVector::default())));
        let mut requests = byzantine.open("/vc/sync/1").await.expect("open to members");
        for _ in 0..2000 {
            write(&mut requests, &summary).await;
        }
        // Gossip: a forged heartbeat of another node, and garbage.
        let topic = IdentTopic::new(topic(id.parse().expect("a cluster id")));
        let subscribed = topic.clone();
        byzantine
            .order(move |swarm| {
                swarm.behaviour_mut().gossip.subscribe(&subscribed).expect("subscribed")
            })
            .await;
        let forged = Heartbeat {
            node: victim,
            incarnation: u64::MAX,
            seq: u64::MAX,
            fingerprint: 7,
            settled: 0,
            usage: Usage::default(),
            at: 0,
        };
        let forged = encode(&Gossip::Heartbeat(forged));
        // Publishing fails until the node's subscription has arrived.
        let garbage = topic.clone();
        byzantine
            .order_until(move |swarm| {
                swarm.behaviour_mut().gossip.publish(topic.clone(), forged.clone()).ok()
            })
            .await;
        byzantine
            .order(move |swarm| {
                for i in 0..100_u32 {
                    let data = i.to_be_bytes().repeat(250);
                    let _ = swarm.behaviour_mut().gossip.publish(garbage.clone(), data);
                }
            })
            .await;
        cluster.vc(0, &["nodes"]).done();
    });
    let after = running(&cluster.ps(0), "shop/web", 4);
    assert_eq!(after, spread);
    let now = cluster.nodes[0].memory();
    println!("measured: memory of the node: {} MiB before, {} MiB after", memory >> 20, now >> 20);
    assert!(now < memory + (96 << 20), "memory grew from {memory} to {now}");

    // The member with that key returns, and the forged heartbeats do not hide the death of the node that they named.
    cluster.nodes[2].start(&["run"]);
    cluster.all_up();
    cluster.nodes[1].cut_power();
    until("the death of the node with forged heartbeats is detected", DEADLINE, || {
        let rows = cluster.rows(0, &["nodes"]);
        let down = rows.iter().any(|row| row["name"] == "n2" && row["state"] == "down");
        if down { Ok(()) } else { Err(format!("{rows:?}")) }
    });
}

#[test]
fn a_worker_alone_changes_nothing_and_reaches_no_instance_of_others() {
    let mut cluster = Cluster::found();
    cluster.join(0, &["worker"]);
    cluster.nodes[1].cut_power();
    // Its connections are closed once it counts as down: the worker's key is free for the test.
    cluster.all_up();
    cluster.deploy(0, &sleeping_service("shop", "web", 1));
    until("shop/web runs", DEADLINE, || running(&cluster.ps(0), "shop/web", 1));
    let status = cluster.vc(0, &["--output", "json", "status"]).json();
    let id = status["cluster"].as_str().expect("an id").to_owned();
    let viewer = cluster.user_token(0, "vera", "viewer");
    let other = cluster.limited_token(0, "ann", "deployer", &["--project", "bank"]);
    let exec = |token: &str| {
        let slot = "shop/web.1".parse().expect("a slot");
        let instance = vc_protocol::InstanceId { slot, digest: String::new() };
        let exec = ExecRequest {
            service: "shop/web".to_owned(),
            replica: None,
            command: vec!["id".to_owned()],
            tty: false,
            stdin: false,
            environment: Vec::new(),
            user: None,
            working_dir: None,
            size: None,
            attach: false,
        };
        Delegated::new(token.to_owned(), None, InstanceRequest::Exec { instance, exec })
    };
    let logs = InstanceLogRequest {
        slot: "shop/web.1".parse().expect("a slot"),
        digest: None,
        follow: false,
        tail: None,
        since: None,
        batched: false,
    };
    let key = key_of(&cluster, 1);
    let node = vc_protocol::NodeId::of(&key.public()).expect("ed25519");
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let worker = TestPeer::connect(key.clone(), &id, cluster.nodes[0].address())
            .await
            .expect("connected");
        // Requests about instances need a user's token with the role, not only a member's connection.
        let framed = |value: serde_json::Result<Vec<u8>>| frame(&value.expect("plain data"));
        let requests = [
            ("/vc/exec/1", framed(serde_json::to_vec(&exec("").request))),
            ("/vc/exec/1", framed(serde_json::to_vec(&exec("")))),
            ("/vc/exec/1", framed(serde_json::to_vec(&exec(&viewer)))),
            ("/vc/exec/1", framed(serde_json::to_vec(&exec(&other)))),
            ("/vc/logs/1", framed(serde_json::to_vec(&logs))),
            (
                "/vc/logs/1",
                framed(serde_json::to_vec(&Delegated {
                    address: None,
                    token: String::new(),
                    request: logs.clone(),
                })),
            ),
            (
                "/vc/logs/1",
                framed(serde_json::to_vec(&Delegated {
                    token: viewer.clone(),
                    address: None,
                    request: logs.clone(),
                })),
            ),
            (
                "/vc/logs/1",
                framed(serde_json::to_vec(&Delegated {
                    token: other.clone(),
                    address: None,
                    request: logs.clone(),
                })),
            ),
        ];
        for (protocol, request) in requests {
            let mut stream = worker.open(protocol).await.expect("open to members");
            write(&mut stream, &request).await;
            // One without a token is no request at all.
            let Some(answer) = read(&mut stream).await else { continue };
            match serde_json::from_slice(&answer).expect("a reply") {
                Reply::Error(error) => assert_eq!(error.code, ErrorCode::PermissionDenied),
                reply => panic!("{protocol}: {reply:?}"),
            }
        }
        // A change of the cluster document that only its role forbids.
        let body = ChangeBody {
            cluster: id.parse().expect("an id"),
            document: DocumentId::Cluster { generation: 0 },
            actor: Actor::new(node, 7),
            seq: 1,
            author: node,
            on_behalf_of: None,
            timestamp: 0,
            checkpoint: None,
            payload: vec![1, 2, 3],
        };
        let changes = vec![SignedChange::sign(&body, &key)];
        let batch = SyncMessage::Changes(Batch { certificates: Vec::new(), changes });
        let mut stream = worker.open("/vc/sync/1").await.expect("open to members");
        write(&mut stream, &frame(&encode(&batch))).await;
        until("the change is refused", DEADLINE, || {
            let log = cluster.nodes[0].log();
            if log.contains("may not write this document") { Ok(()) } else { Err(log) }
        });
        // Records of others, and of changes, that it makes up; the last is its own.
        let made_up = |action: &str, text: &str| {
            let node = cluster.nodes[0].id();
            json!({"time": 1, "action": action, "text": text, "user": "admin", "node": node,
                   "node_name": "n1", "event": 7})
        };
        let rows = [
            made_up("service_removed", "removed shop/web"),
            made_up("exec", "ran rm in shop/web.1 on n1"),
        ];
        let report = json!({"op": "report", "rows": rows}).to_string();
        let mut stream = worker.open("/vc/audit/1").await.expect("open to members");
        write(&mut stream, &frame(report.as_bytes())).await;
        let answer = read(&mut stream).await.expect("an answer");
        assert_eq!(answer, br#"{"reply":"ready"}"#);
        // It cannot read, without the token of an admin.
        for token in ["", &viewer] {
            let request = json!({"op": "read", "token": token}).to_string();
            let mut stream = worker.open("/vc/audit/1").await.expect("open to members");
            write(&mut stream, &frame(request.as_bytes())).await;
            let answer = read(&mut stream).await.expect("an answer");
            match serde_json::from_slice(&answer).expect("a reply") {
                Reply::Error(error) => assert_eq!(error.code, ErrorCode::PermissionDenied),
                reply => panic!("{reply:?}"),
            }
        }
    });
    assert_eq!(cluster.rows(0, &["services"])[0]["replicas"], 1);
    // The audit log has its attempts, under its name.
    let rows = records(&cluster, 0, &[]);
    let texts = |action: &str, field: &str| -> Vec<&str> {
        let of = rows.iter().filter(|row| row["action"] == action && row[field] == "n2");
        of.filter_map(|row| row["text"].as_str()).collect()
    };
    let refused = texts("refused", "via_name");
    for words in [
        "not a token of a Virtual Cluster",
        "'vera' has the role viewer",
        "may not write this document",
    ] {
        assert!(refused.iter().any(|text| text.contains(words)), "{words}: {refused:?}");
    }
    assert_eq!(texts("exec", "node_name"), ["ran rm in shop/web.1 on n1"]);
    assert!(rows.iter().all(|row| row["action"] != "service_removed"), "{rows:?}");
}
