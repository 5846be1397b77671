//! Secrets are handed over to the nodes that run their services, and to no other member.

use vc_protocol::file::{FileRequest, FileResponse};
use vc_protocol::spec::{FileId, FileKind, ServiceSpec};
use vc_protocol::{InstanceId, Stored};

use crate::byzantine_member::key_of;
use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, until};
use crate::unauthenticated_peer::{TestPeer, frame, read, write};

const SECRET: &str = "seventeen-grey-herons";
const COMPOSE: &str = "
name: shop
services:
  bank: {image: 'bank:1', secrets: [password]}
secrets:
  password: {file: ./password}
";

/// Asks for a secret with the key of a node. Errors: the protocol is closed to it.
async fn ask(cluster: &Cluster, at: usize, request: &FileRequest) -> Result<FileResponse, bool> {
    let status = cluster.vc(0, &["--output", "json", "status"]).json();
    let id = status["cluster"].as_str().expect("an id").to_owned();
    let peer = TestPeer::connect(key_of(cluster, at), &id, cluster.nodes[0].address())
        .await
        .expect("connected");
    let mut stream = peer.open("/vc/files/1").await?;
    write(&mut stream, &frame(&serde_json::to_vec(request).expect("plain data"))).await;
    let answer = read(&mut stream).await.ok_or(false)?;
    Ok(serde_json::from_slice(&answer).expect("an answer"))
}

#[test]
fn a_worker_has_no_file_key_and_gets_no_secret_of_a_service_that_it_does_not_run() {
    let mut cluster = Cluster::found();
    cluster.join(0, &["worker"]);
    cluster.all_up();
    let key = cluster.nodes[1].dir.join("files.key");
    assert!(cluster.nodes[0].dir.join("files.key").exists() && !key.exists());
    // An earlier version has given it the key.
    cluster.nodes[1].stop();
    std::fs::copy(cluster.nodes[0].dir.join("files.key"), &key).expect("copied");
    cluster.nodes[1].start(&["run"]);
    assert!(!key.exists(), "an upgraded worker deletes the key");
    cluster.all_up();

    // Through the worker, which cannot seal it. Nothing in this cluster can run it: it needs Docker.
    cluster.file("password", SECRET);
    let file = cluster.file("bank.yaml", COMPOSE);
    cluster.vc(1, &["deploy", &file]).done();
    let detail = cluster.vc(0, &["--output", "json", "inspect", "bank"]).json();
    let spec: Stored<ServiceSpec> = serde_json::from_value(detail["spec"].clone()).expect("a spec");
    let slot = "shop/bank.1".parse().expect("a slot");
    let request = FileRequest {
        instance: InstanceId { slot, digest: spec.container_digest() },
        file: FileId { kind: FileKind::Secret, name: "password".to_owned() },
        version: spec.container.files[0].version.clone(),
    };
    cluster.nodes[1].cut_power();
    // Its connections are closed once it counts as down: its key is free for the test.
    cluster.all_up();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let asks = || runtime.block_on(ask(&cluster, 1, &request));
    let refusal = "the plan does not give shop/bank.1 to the node".to_owned();
    assert_eq!(asks(), Ok(FileResponse::Refused(refusal)));
    until("the refusal is logged", DEADLINE, || {
        let log = cluster.nodes[0].log();
        if log.contains("refused to hand over a secret") { Ok(()) } else { Err(log) }
    });
    cluster.vc(0, &["node", "revoke", "n2"]).done();
    until("the protocol is closed to a node that was removed", DEADLINE, || match asks() {
        Err(true) => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    assert!(!cluster.nodes[0].log().contains(SECRET) && !cluster.nodes[1].log().contains(SECRET));
}
