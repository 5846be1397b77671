//! Images without a registry: pushed to one node, fetched from there by the nodes that need them.

use std::process::Command;

use crate::harness::command::run;
use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, measured, until};

/// Returns the size of the test image in MB: random bytes in two layers.
fn megabytes() -> usize {
    std::env::var("VC_TEST_IMAGE_MB")
        .map_or(60, |text| text.parse().expect("VC_TEST_IMAGE_MB is a number"))
}

/// Makes an image with a host's engine and returns its id.
fn make(lab: &Lab, host: usize, name: &str, megabytes: usize) -> String {
    for (from, layer) in [("vc-test:1", "one"), (name, "two")] {
        let count = format!("count={}", megabytes / 2);
        let file = format!("of=/{layer}");
        lab.docker(
            host,
            &[
                "run",
                "--name",
                layer,
                "--network",
                "none",
                from,
                "dd",
                "if=/dev/urandom",
                "bs=1M",
                &count,
                &file,
            ],
        )
        .done();
        lab.docker(host, &["commit", "--change", "CMD [\"sleep\", \"900\"]", layer, name]).done();
        lab.docker(host, &["rm", layer]).done();
    }
    id(lab, host, name)
}

fn id(lab: &Lab, host: usize, name: &str) -> String {
    lab.docker(host, &["image", "inspect", "--format", "{{.Id}}", name]).done().trim().to_owned()
}

/// Returns a Compose file with one replica on each of these hosts.
fn compose(hosts: &[usize]) -> String {
    let constraints: Vec<String> = (1..=3)
        .filter(|host| !hosts.contains(host))
        .map(|host| format!("node.name != h{host}"))
        .collect();
    format!(
        "name: shop\nservices:\n  big:\n    image: big:1\n    stop_grace_period: 1s\n    deploy:\n      \
         update_config: {{monitor: 500ms}}\n      replicas: {}\n      placement: {{constraints: [{}]}}\n",
        hosts.len(),
        constraints.join(", ")
    )
}

#[test]
fn a_pushed_image_runs_on_all_nodes_even_when_its_first_node_dies() {
    let lab = Lab::cluster_and_operator(3);
    let pushed = make(&lab, 4, "big:1", megabytes());
    let bytes = u64::try_from(megabytes()).expect("a number") << 20;
    lab.operator(1, &["image", "push", "big:1"]).done();
    let rows = lab.rows(2, &["image", "ls"]);
    let row = rows.iter().find(|row| row["reference"] == "big:1").expect("it is listed");
    assert_eq!(row["id"], pushed.as_str());
    assert_eq!(row["nodes"], serde_json::json!(["h1"]), "{row}");

    // The second node fetches each byte once.
    let (sent, start) = (lab.sent(1), std::time::Instant::now());
    lab.deploy(3, &compose(&[1, 2]), &["--wait"]).done();
    measured(&format!("{} MB fetched by another node", megabytes()), start.elapsed());
    let sent = lab.sent(1) - sent;
    assert!(sent > bytes && sent < bytes + bytes / 4, "{sent} bytes sent of {bytes}");
    for host in [1, 2] {
        assert_eq!(id(&lab, host, "big:1"), pushed);
    }

    // The third node fetches it; its source dies during the transfer.
    lab.deploy(2, &compose(&[1, 2, 3]), &[]).done();
    lab.row(2, "the third node fetches the image", "big", |row| {
        row["node_name"] == "h3"
            && matches!(row["state"].as_str(), Some("pulling" | "starting" | "running"))
    });
    lab.host("node-kill", 1);
    lab.row(2, "the third node runs the image", "big", |row| {
        row["node_name"] == "h3" && row["state"] == "running"
    });
    assert_eq!(id(&lab, 3, "big:1"), pushed, "the same image");
}

#[test]
fn a_full_disk_fails_the_transfer_and_leaves_other_services_unchanged() {
    let mut lab = Lab::cluster_and_operator(2);
    // A Docker engine with a disk of 40 MB. It keeps the mount in its own namespace, so that it can be unmounted here.
    lab.host("kill", 2);
    let docker = lab.files_of(2).join("docker").display().to_string();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=40m", "tmpfs", &docker]);
    run(mount).done();
    lab.host("start", 2);
    let mut unmount = Command::new("umount");
    unmount.args(["--lazy", &docker]);
    run(unmount).done();
    lab.expect_errors("no space left");
    lab.node(2, &["run"]);
    lab.all_up(&[1, 2]);

    let other = "name: other\nservices:\n  calm:\n    image: vc-test:1\n    command: [sleep, '900']\n    scale: 2\n    deploy: {update_config: {monitor: 500ms}}\n";
    lab.deploy(1, other, &["--wait"]).done();
    let before = lab.all_containers(&[1, 2]);
    make(&lab, 3, "big:1", 80);
    lab.operator(1, &["image", "push", "big:1"]).done();
    lab.deploy(1, &compose(&[2]), &[]).done();
    let row = lab.row(1, "the reason says that the disk is full", "big", |row| {
        let reason = row["reason"].as_str().unwrap_or_default();
        matches!(row["state"].as_str(), Some("pending" | "failed" | "pulling"))
            && reason.to_lowercase().contains("no space left")
    });
    assert_eq!(row["node_name"], "h2", "{row}");
    assert_eq!(lab.all_containers(&[1, 2]), before, "other containers are unchanged");
    lab.vc(2, &["rm", "big"]).done();
    until("the service is removed", DEADLINE, || {
        let rows = lab.rows(2, &["ps", "shop/"]);
        if rows.is_empty() { Ok(()) } else { Err(format!("{rows:?}")) }
    });
}

#[test]
fn a_service_goes_on_elsewhere_when_the_node_dies_that_its_image_was_pushed_to() {
    let lab = Lab::cluster_and_operator(3);
    let pushed = make(&lab, 4, "big:1", 2);
    lab.operator(1, &["image", "push", "big:1"]).done();
    lab.deploy(1, &compose(&[1]), &["--wait"]).done();
    until("another node has a copy of the image", DEADLINE, || {
        let rows = lab.rows(1, &["image", "ls"]);
        let row = rows.iter().find(|row| row["reference"] == "big:1").expect("it is listed");
        match row["nodes"].as_array().expect("a list") {
            nodes if nodes.len() > 1 => Ok(()),
            nodes => Err(format!("{nodes:?}")),
        }
    });
    // It may run anywhere from now on. Nothing but the constraint changes, so it is not started anew.
    lab.deploy(1, &compose(&[1, 2, 3]).replace("replicas: 3", "replicas: 1"), &[]).done();
    lab.host("kill", 1);
    lab.row(2, "another node runs the image", "big", |row| {
        row["node_name"] != "h1" && row["state"] == "running"
    });
    let rows = lab.rows(2, &["ps", "shop/big"]);
    let runs_on = if rows.iter().any(|row| row["node_name"] == "h2") { 2 } else { 3 };
    assert_eq!(id(&lab, runs_on, "big:1"), pushed);
}
