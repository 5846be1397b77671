//! The drill: all nodes are lost, and the cluster is founded anew from its backup on empty ones.

use std::path::Path;

use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, until};

const SECRET: &str = "seventeen-grey-herons";
const COMPOSE: &str = "
name: shop
services:
  db:
    image: vc-test:1
    command: [sh, -c, 'test -e /data/state || echo new >/data/state; exec sleep 900']
    volumes: ['data:/data', 'cache:/cache']
    secrets: [password]
    stop_grace_period: 1s
  web:
    image: vc-test:1
    command: [httpd, -f, -h, /www]
    ports: ['8080:80']
    stop_grace_period: 1s
volumes:
  data:
  cache:
secrets:
  password: {file: ./password}
";
const LOOK: &str = "stat -c '%n %u:%g %a' /data/state; cat /data/state /run/secrets/password";
const EXPECTED: &str = "/data/state 1234:5678 640\nkept\nseventeen-grey-herons";

/// Cuts the power of all hosts, and replaces what `vc-node` had on them by nothing.
fn lose_all(lab: &Lab, hosts: usize) {
    for host in 1..=hosts {
        lab.host("kill", host);
        let dir = lab.files_of(host).join("node");
        std::fs::remove_dir_all(&dir).expect("removed");
        std::fs::create_dir(&dir).expect("made");
        lab.host("start", host);
    }
}

/// Waits until `shop/db` runs, and returns what the script prints in it.
fn look(lab: &Lab) -> String {
    let (text, _) = until("the service runs with its data", DEADLINE, || {
        let rows = lab.rows(1, &["ps", "db"]);
        if !rows.iter().any(|row| row["state"] == "running") {
            return Err(format!("{rows:?}"));
        }
        let (host, container) = lab.only("shop/db");
        let output = lab.inside(host, &container, &["sh", "-c", LOOK]);
        if output.code == Some(0) { Ok(output.out) } else { Err(output.err) }
    });
    text
}

#[test]
fn a_cluster_whose_nodes_are_all_lost_is_founded_anew_on_empty_ones_with_its_data_and_secrets() {
    let lab = Lab::cluster(3);
    lab.file("password", SECRET);
    lab.deploy(1, COMPOSE, &["--wait"]).done();
    let ann = lab.vc(1, &["token", "create", "--user", "ann", "--role", "deployer"]).done();
    let (host, container) = lab.only("shop/db");
    let write = "echo kept >/data/state; chown 1234:5678 /data/state; chmod 0640 /data/state; sync";
    lab.inside(host, &container, &["sh", "-c", write]).done();
    let copy = lab.file("copy", "");
    until("a snapshot has what was written", DEADLINE, || {
        let output = lab.vc(1, &["volume", "cp", "shop/data:/state", &copy]);
        let text = std::fs::read_to_string(&copy).unwrap_or_default();
        if text == "kept\n" { Ok(()) } else { Err(output.err) }
    });
    let passphrase = lab.file("passphrase", "correct horse");
    let file = Path::new(&passphrase).with_file_name("cluster.vcb").display().to_string();
    let with = ["--passphrase-file", passphrase.as_str()];
    let backup = [&["backup", file.as_str(), "--volumes=data"], with.as_slice()].concat();
    let shown = lab.vc(2, &backup).done();
    assert!(shown.contains("the data of 1 of 2 volumes"), "{shown}");

    // Without the data of a volume its service waits, so that the data can be brought.
    lose_all(&lab, 3);
    lab.node(1, &[&["restore", file.as_str()], with.as_slice()].concat());
    let rows = lab.rows(1, &["services"]);
    let db = rows.iter().find(|row| row["service"] == "shop/db").expect("it is there");
    assert_eq!(db["replicas"], 0, "{db}");
    lab.vc(1, &["scale", "shop/db=1"]).done();
    assert_eq!(look(&lab), EXPECTED);

    // The others join, get a copy, and everything works on.
    for host in [2, 3] {
        let token = lab.vc(1, &["token", "create", "--node"]).done();
        lab.node(host, &["join", token.trim()]);
    }
    lab.all_up(&[1, 2, 3]);
    until("another node has a copy of the data", DEADLINE, || {
        let rows = lab.rows(2, &["volume", "ls"]);
        let row = rows.iter().find(|row| row["volume"] == "shop/data").cloned().unwrap_or_default();
        let replica = &row["replicas"][0]["snapshot"];
        if replica.is_string() && *replica == row["snapshot"] { Ok(()) } else { Err(row) }
    });
    until("each node publishes the port", DEADLINE, || {
        let output = lab.get(3, &format!("http://{}:8080/", Lab::ip(2)));
        if output.out == "vc-test:1\n" { Ok(()) } else { Err(output.err) }
    });

    // The token of before is of another cluster; the user has a new one.
    let old = ["--token", ann.trim(), "services"];
    lab.vc(1, &old).refused_with("another cluster");
    let tokens = lab.files_of(1).join("node/user-tokens");
    let new = std::fs::read_dir(&tokens).expect("listed").next().expect("one").expect("an entry");
    lab.vc(1, &["--token", &new.path().display().to_string(), "restart", "shop/web"]).done();

    // A backup of the new cluster, with all data, is restored in turn: nothing waits.
    until("both volumes have a snapshot", DEADLINE, || {
        let backup = ["backup", file.as_str(), "--volumes", "--force"];
        let output = lab.vc(3, &[&backup, with.as_slice()].concat());
        if output.out.contains("the data of 2 of 2 volumes") { Ok(()) } else { Err(output) }
    });
    lose_all(&lab, 3);
    lab.node(3, &[&["restore", file.as_str()], with.as_slice()].concat());
    std::fs::create_dir_all(lab.files_of(1).join("node")).expect("made");
    std::fs::copy(lab.files_of(3).join("node/admin.token"), lab.files_of(1).join("admin.token"))
        .expect("copied");
    let admin = lab.files_of(1).join("admin.token").display().to_string();
    until("the service runs on the one node", DEADLINE, || {
        let rows = lab.vc(3, &["--token", &admin, "--output", "json", "ps", "db"]).json();
        let is_running =
            rows.as_array().is_some_and(|it| it.iter().any(|row| row["state"] == "running"));
        if is_running { Ok(()) } else { Err(rows) }
    });
    let container = lab.containers(3).into_iter().find(|it| it.service() == "shop/db");
    let output = lab.inside(3, &container.expect("it runs"), &["sh", "-c", LOOK]);
    assert_eq!(output.done(), EXPECTED);
}
