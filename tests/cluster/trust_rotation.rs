//! The rotation of the signing key, with what a removed server can do before and after it.

use std::path::Path;

use serde_json::{Value, json};
use vc_protocol::auth::ServerHello;
use vc_protocol::change::{
    Actor, Batch, ChangeBody, Checkpoint, ClusterVersions, DocumentId, SignedChange,
};
use vc_protocol::gossip::SyncMessage;
use vc_protocol::token::{
    Issuer, NodeRole, Scope, Signer, UserRole, decode_unverified, endorse, issue_certificate,
};
use vc_protocol::wire::encode;
use vc_protocol::{ClusterId, Keypair, NodeId};

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, running, sleeping_service, until};
use crate::unauthenticated_peer::{TestPeer, frame, read, write};

/// It needs Docker, so nothing of it runs here.
const VAULT: &str = "
name: vault
services:
  bank: {image: 'bank:1', secrets: [password]}
secrets:
  password: {file: ./password}
";
const SERVER: Scope = Scope::Member(NodeRole::Server);

/// What a server leaves with: its keys and those of the cluster.
struct Thief {
    cluster: ClusterId,
    root: Keypair,
    node: Keypair,
    certificate: String,
}

fn keypair(dir: &Path, name: &str) -> Keypair {
    let text = std::fs::read_to_string(dir.join(name)).expect("a key");
    let seed = data_encoding::BASE64.decode(text.trim().as_bytes()).expect("base64");
    Keypair::ed25519_from_bytes(seed).expect("a seed")
}

fn certificate(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("membership.json")).expect("a membership");
    let file: Value = serde_json::from_str(&text).expect("JSON");
    file["certificate"].as_str().expect("a certificate").to_owned()
}

fn id(key: &Keypair) -> NodeId {
    NodeId::of(&key.public()).expect("ed25519")
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_millis() as u64
}

impl Thief {
    fn of(dir: &Path) -> Self {
        let root = keypair(dir, "cluster.key");
        let cluster = ClusterId::of(&root.public()).expect("ed25519");
        Self { cluster, root, node: keypair(dir, "node.key"), certificate: certificate(dir) }
    }

    /// Returns an admin's token that a made-up server has issued.
    fn token(&self, server: &Keypair, certificate: &str) -> String {
        let issuer = Issuer { cluster: self.cluster, key: server, certificate };
        issuer
            .issue(Scope::User(UserRole::Admin), "eve", vec![], 7, now(), 3_600_000)
            .expect("signed")
    }

    /// Returns the certificate that a made-up signing key has signed.
    fn by_signing_key(&self, epoch: u32, server: &Keypair) -> String {
        let key = Keypair::generate_ed25519();
        let endorsement = endorse(&self.root, &key.public(), epoch, None, now()).expect("signed");
        let signer = Signer::endorsed(self.cluster, &key, &endorsement).expect("a signer");
        signer.certify(id(server), SERVER, now()).expect("signed")
    }

    /// Shows a certificate to a node. Returns its answer.
    async fn show(&self, key: &Keypair, certificate: &str, address: &str) -> Value {
        let peer = connect(key, self.cluster, address).await;
        let mut stream = peer.open_auth().await;
        write(&mut stream, &frame(br#"{"version":1}"#)).await;
        // Connections of a node that was removed are closed.
        let Some(hello) = read(&mut stream).await else {
            return json!({"refused": {"reason": "the connection was closed"}});
        };
        let _: ServerHello = serde_json::from_slice(&hello).expect("a hello");
        let credentials = json!({"member": {"certificate": certificate}});
        write(&mut stream, &frame(credentials.to_string().as_bytes())).await;
        match read(&mut stream).await {
            Some(answer) => serde_json::from_slice(&answer).expect("JSON"),
            None => json!({"refused": {"reason": "the connection was closed"}}),
        }
    }
}

async fn connect(key: &Keypair, cluster: ClusterId, address: &str) -> TestPeer {
    let seed = key.clone().try_into_ed25519().expect("ed25519").secret();
    let key = libp2p::identity::Keypair::ed25519_from_bytes(seed.as_ref().to_vec());
    TestPeer::connect(key.expect("a seed"), &cluster.to_string(), address).await.expect("connected")
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(future)
}

/// Waits until these nodes, and no others, use certificates of this epoch, as seen by node `at`.
fn all_present(cluster: &Cluster, at: usize, epoch: u32, names: &[&str]) {
    until("every member has its certificate", DEADLINE, || {
        let report = cluster.vc(at, &["--output", "json", "trust", "show"]).json();
        let nodes = report["nodes"].as_array().expect("nodes").clone();
        let present: Vec<&str> = nodes
            .iter()
            .filter(|row| row["certificate"] == "present" && row["up"] == true)
            .map(|row| row["name"].as_str().expect("a name"))
            .collect();
        let mut present = present;
        present.sort_unstable();
        let is_complete =
            report["epoch"] == epoch && present == names && nodes.len() == names.len();
        if is_complete { Ok(()) } else { Err(report.to_string()) }
    });
}

#[test]
fn a_rotation_ends_what_a_removed_server_can_do() {
    // n3 leaves with its keys; n4 is a worker.
    let mut cluster = Cluster::of(3);
    cluster.join(0, &["worker"]);
    cluster.all_up();
    cluster.deploy(0, &sleeping_service("shop", "web", 2));
    cluster.file("password", "seventeen-grey-herons");
    let vault = cluster.file("vault.yaml", VAULT);
    cluster.vc(0, &["deploy", &vault]).done();
    let present = cluster.user_token(1, "ada", "admin");
    let by_thief = cluster.user_token(2, "bob", "admin");
    let thief = Thief::of(&cluster.nodes[2].dir);
    let addresses: Vec<String> =
        cluster.nodes.iter().map(|node| node.address().to_owned()).collect();
    let old = certificate(&cluster.nodes[0].dir);

    let made_up = Keypair::generate_ed25519();
    let by_root = issue_certificate(&thief.root, id(&made_up), NodeRole::Server, now());
    let by_root = by_root.expect("signed");
    let forged = thief.token(&made_up, &by_root);

    let revoked = cluster.vc(0, &["node", "revoke", "n3"]);
    assert!(revoked.err.contains("vc trust rotate"), "{}", revoked.err);
    revoked.done();
    cluster.nodes[2].ends();
    // Its node is gone, and yet it is an admin, and any number of servers.
    cluster.vc_as(&forged, 0, &["nodes"]).done();
    wait(async {
        let answer = thief.show(&made_up, &by_root, &addresses[0]).await;
        assert_eq!(answer["member"]["known"], false, "{answer}");
        let answer = thief.show(&made_up, &by_root, &addresses[0]).await;
        assert_eq!(answer["member"]["known"], true, "{answer}");
    });

    // One member is down during the rotation.
    cluster.nodes[1].kill();
    until("n2 is down", DEADLINE, || {
        let rows = cluster.rows(0, &["nodes"]);
        let down = rows.iter().any(|row| row["name"] == "n2" && row["state"] == "down");
        if down { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    let processes = [0, 3].map(|at| cluster.nodes[at].pid());
    let refused = cluster.vc(0, &["trust", "rotate"]);
    assert!(refused.err.contains("--yes"), "{}", refused.err);
    let rotated = cluster.vc(0, &["trust", "rotate", "--yes"]);
    assert!(rotated.err.contains("n2 does not use its new certificate yet"), "{}", rotated.err);
    let text = rotated.done();
    assert!(text.contains("epoch 1, 3 certificates issued"), "{text}");
    assert!(text.contains("1 secrets and configs sealed again"), "{text}");

    cluster.nodes[1].start(&["run"]);
    for at in [0, 1, 3] {
        all_present(&cluster, at, 1, &["n1", "n2", "n4"]);
    }
    assert_eq!(processes, [0, 3].map(|at| cluster.nodes[at].pid()), "nothing was restarted");
    assert_ne!(certificate(&cluster.nodes[0].dir), old);
    until("both generations from before are dropped", DEADLINE, || {
        let logs = [0, 1].map(|at| cluster.nodes[at].log());
        let count = |log: &String| log.matches("new generation of the cluster document").count();
        let begun: usize = logs.iter().map(count).sum();
        if begun >= 2 { Ok(()) } else { Err(format!("{begun} new generations")) }
    });

    // Nothing that the keys of n3 make is accepted.
    let another = Keypair::generate_ed25519();
    let made = issue_certificate(&thief.root, id(&another), NodeRole::Server, now());
    let made = made.expect("signed");
    for address in [&addresses[0], &cluster.nodes[1].address().to_owned(), &addresses[3]] {
        // A member from before is one until its node has read the new generation.
        until("the made-up server is no member any more", DEADLINE, || {
            let answer = wait(async { thief.show(&made_up, &by_root, address).await });
            if answer["refused"]["reason"].is_string() { Ok(()) } else { Err(answer.to_string()) }
        });
        let shown = [
            (&made_up, by_root.clone()),
            (&another, made.clone()),
            (&another, thief.by_signing_key(1, &another)),
            (&another, thief.by_signing_key(2, &another)),
            (&thief.node, thief.certificate.clone()),
            (&thief.node, thief.by_signing_key(1, &thief.node)),
        ];
        wait(async {
            for (key, certificate) in shown {
                let answer = thief.show(key, &certificate, address).await;
                assert!(answer["refused"]["reason"].is_string(), "{answer}");
            }
            let peer = connect(&made_up, thief.cluster, address).await;
            assert_eq!(peer.open("/vc/sync/1").await.err(), Some(true));
            assert_eq!(peer.open("/vc/trust/1").await.err(), Some(true));
        });
    }
    for at in [0, 1, 3] {
        cluster.vc_as(&by_thief, at, &["nodes"]).refused_with("removed from the cluster");
        let by_signing_key = thief.by_signing_key(1, &another);
        for token in [
            forged.clone(),
            thief.token(&another, &made),
            // The key of no rotation, in the present epoch.
            thief.token(&another, &by_signing_key),
        ] {
            cluster.vc_as(&token, at, &["nodes"]).refused();
        }
        // What a present server had issued stays valid.
        cluster.vc_as(&present, at, &["nodes"]).done();
    }
    cluster.vc_as(&forged, 0, &["nodes"]).refused_with("no server of the cluster");

    // A secret that is sealed with another key is the same secret, on every server.
    for at in [0, 1] {
        let text = cluster.vc(at, &["deploy", &vault]).done();
        assert!(text.contains("vault/bank unchanged"), "{text}");
    }

    // A client with a token from after the rotation sends it to no server of the root key alone.
    let fresh = cluster.user_token(0, "cleo", "viewer");
    for at in [0, 1, 3] {
        cluster.vc_as(&fresh, at, &["nodes"]).done();
    }

    // A member relays: n4 is the worker, whose key the test takes.
    let worker = keypair(&cluster.nodes[3].dir, "node.key");
    cluster.nodes[3].cut_power();
    until("n4 is down", DEADLINE, || {
        let rows = cluster.rows(0, &["nodes"]);
        let down = rows.iter().any(|row| row["name"] == "n4" && row["state"] == "down");
        if down { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    let change = |author: &Keypair, generation: u64| {
        let checkpoint = Checkpoint { covers: ClusterVersions::new(), parts: 1 };
        let body = ChangeBody {
            cluster: thief.cluster,
            document: DocumentId::Cluster { generation },
            actor: Actor::new(id(author), 7),
            seq: 1,
            author: id(author),
            on_behalf_of: None,
            timestamp: 0,
            checkpoint: Some(checkpoint),
            payload: vec![1, 2, 3],
        };
        SignedChange::sign(&body, author)
    };
    wait(async {
        let peer = connect(&worker, thief.cluster, cluster.nodes[0].address()).await;
        let mut stream = peer.open("/vc/sync/1").await.expect("open to members");
        let changes = vec![change(&made_up, 9 << 40), change(&thief.node, 9 << 40)];
        let certificates = vec![by_root.clone(), thief.certificate.clone()];
        let batch = SyncMessage::Changes(Batch { certificates, changes });
        write(&mut stream, &frame(&encode(&batch))).await;
        until("the changes are refused", DEADLINE, || {
            let log = cluster.nodes[0].log();
            let unknown = format!("change by {}, which is not a member", id(&made_up));
            let removed = format!("{} may not write this document", id(&thief.node));
            if log.contains(&unknown) && log.contains(&removed) { Ok(()) } else { Err(log) }
        });
        // Nor does it get the key.
        let mut stream = peer.open("/vc/trust/1").await.expect("open to members");
        let report = cluster.vc(0, &["--output", "json", "trust"]).json();
        let request = json!({"signing_key": report["key"]}).to_string();
        write(&mut stream, &frame(request.as_bytes())).await;
        let answer = read(&mut stream).await.expect("an answer");
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(answer["refused"]["reason"], "only servers get the signing key");
    });
    cluster.nodes[3].start(&["run"]);

    // A node joins through the server that was down, which has got the key from the other.
    until("n2 has the signing key", DEADLINE, || {
        let keys = cluster.nodes[1].dir.join("signing.keys");
        if keys.exists() { Ok(()) } else { Err("no signing.keys") }
    });
    cluster.join(1, &["server"]);
    assert!(cluster.nodes[4].dir.join("signing.keys").exists());
    // A restart uses what was saved.
    cluster.nodes[0].stop();
    cluster.nodes[0].start(&["run"]);
    let names = ["n1", "n2", "n4", "n5"];
    for at in [0, 1, 3, 4] {
        all_present(&cluster, at, 1, &names);
    }

    // Another rotation, through the new server.
    cluster.vc(4, &["trust", "rotate", "--yes"]).done();
    for at in [0, 1, 3, 4] {
        all_present(&cluster, at, 2, &names);
        cluster.vc_as(&present, at, &["nodes"]).done();
        cluster.vc_as(&fresh, at, &["nodes"]).done();
        cluster.vc_as(&forged, at, &["nodes"]).refused();
    }
    let claims = decode_unverified(&certificate(&cluster.nodes[0].dir)).expect("a certificate");
    assert_eq!(claims.iss.to_string(), cluster.vc(0, &["--output", "json", "trust"]).json()["key"]);
    cluster.vc(0, &["scale", "web=3"]).done();
    until("shop/web runs", DEADLINE, || running(&cluster.ps(4), "shop/web", 3));
}

#[test]
fn two_rotations_at_the_same_time_lock_no_member_out() {
    let mut cluster = Cluster::of(3);
    let mut running = [0, 1].map(|at| cluster.vc_running(at, &["trust", "rotate", "--yes"]));
    // One of them may be refused, as the other was faster.
    let done = running.iter_mut().filter_map(|command| command.end()).filter(|code| *code == 0);
    assert!(done.count() >= 1, "a rotation succeeds");
    let report = |at: usize| cluster.vc(at, &["--output", "json", "trust", "show"]).json();
    until("all nodes follow one key", DEADLINE, || {
        let keys = [0, 1, 2].map(|at| report(at)["key"].to_string());
        if keys.iter().all(|key| *key == keys[0]) { Ok(()) } else { Err(format!("{keys:?}")) }
    });
    let epoch = report(0)["epoch"].as_u64().expect("an epoch") as u32;
    for at in [0, 1, 2] {
        all_present(&cluster, at, epoch, &["n1", "n2", "n3"]);
        until("every server has the key", DEADLINE, || {
            let output = cluster.vc(at, &["token", "create", "--node"]);
            if output.code == Some(0) { Ok(()) } else { Err(output) }
        });
    }
    for at in [0, 1, 2] {
        until("a node joins through every server", DEADLINE, || {
            let token = cluster.node_token(at, "worker");
            let claims = decode_unverified(&token).expect("a token");
            let issuer = decode_unverified(claims.issuer.as_deref().expect("a certificate"));
            let by = issuer.expect("a certificate").iss.to_string();
            if report(at)["key"] == by { Ok(()) } else { Err(by) }
        });
    }
    cluster.join(2, &["worker"]);
    all_present(&cluster, 1, epoch, &["n1", "n2", "n3", "n4"]);
}
