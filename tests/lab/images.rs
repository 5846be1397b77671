//! Images without a registry: from the operator to one node, and from there to those that need it.

use std::process::Command;

use crate::harness::command::run;
use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, measured, until};

/// Megabytes of random bytes, in two layers.
fn megabytes() -> usize {
    std::env::var("VC_TEST_IMAGE_MB")
        .map_or(60, |text| text.parse().expect("VC_TEST_IMAGE_MB is a number"))
}

/// Makes an image with the operator's engine; its id.
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

/// One replica on each of these hosts.
fn compose(hosts: &[usize]) -> String {
    let constraints: Vec<String> = (1..=3)
        .filter(|host| !hosts.contains(host))
        .map(|host| format!("node.name != h{host}"))
        .collect();
    format!(
        "name: shop\nservices:\n  big:\n    image: big:1\n    stop_grace_period: 1s\n    deploy:\n      \
         replicas: {}\n      placement: {{constraints: [{}]}}\n",
        hosts.len(),
        constraints.join(", ")
    )
}

#[test]
fn an_image_that_was_pushed_to_one_node_runs_on_all_even_when_that_one_dies() {
    let lab = Lab::cluster_and_operator(3);
    let pushed = make(&lab, 4, "big:1", megabytes());
    let bytes = u64::try_from(megabytes()).expect("a number") << 20;
    lab.operator(1, &["image", "push", "big:1"]).done();
    let rows = lab.rows(2, &["image", "ls"]);
    let row = rows.iter().find(|row| row["reference"] == "big:1").expect("it is listed");
    assert_eq!(row["id"], pushed.as_str());
    assert_eq!(row["nodes"], serde_json::json!(["h1"]), "{row}");

    // To the second node, once.
    let (sent, start) = (lab.sent(1), std::time::Instant::now());
    lab.deploy(3, &compose(&[1, 2]), &["--wait"]).done();
    measured(&format!("{} MB fetched by another node", megabytes()), start.elapsed());
    let sent = lab.sent(1) - sent;
    assert!(sent > bytes && sent < bytes + bytes / 4, "{sent} bytes sent of {bytes}");
    for host in [1, 2] {
        assert_eq!(id(&lab, host, "big:1"), pushed);
    }

    // To the third; its source dies on the way.
    lab.deploy(2, &compose(&[1, 2, 3]), &[]).done();
    lab.row(2, "the third fetches it", "big", |row| {
        row["node_name"] == "h3"
            && matches!(row["state"].as_str(), Some("pulling" | "starting" | "running"))
    });
    lab.host("node-kill", 1);
    lab.row(2, "the third runs it", "big", |row| {
        row["node_name"] == "h3" && row["state"] == "running"
    });
    assert_eq!(id(&lab, 3, "big:1"), pushed, "the same bytes");
}

#[test]
fn a_disk_that_is_full_stops_the_transfer_and_nothing_else() {
    let mut lab = Lab::cluster_and_operator(2);
    // An engine with little room. It keeps the mount in a namespace of its own, so that this one can go at once.
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

    let other = "name: other\nservices:\n  calm:\n    image: vc-test:1\n    command: [sleep, '900']\n    scale: 2\n";
    lab.deploy(1, other, &["--wait"]).done();
    let before = lab.all_containers(&[1, 2]);
    make(&lab, 3, "big:1", 80);
    lab.operator(1, &["image", "push", "big:1"]).done();
    lab.deploy(1, &compose(&[2]), &[]).done();
    let row = lab.row(1, "it says that there is no room", "big", |row| {
        let reason = row["reason"].as_str().unwrap_or_default();
        matches!(row["state"].as_str(), Some("pending" | "failed" | "pulling"))
            && reason.to_lowercase().contains("no space left")
    });
    assert_eq!(row["node_name"], "h2", "{row}");
    assert_eq!(lab.all_containers(&[1, 2]), before, "nothing else is disturbed");
    lab.vc(2, &["rm", "big"]).done();
    until("nothing is left of it", DEADLINE, || {
        let rows = lab.rows(2, &["ps", "shop/"]);
        if rows.is_empty() { Ok(()) } else { Err(format!("{rows:?}")) }
    });
}
