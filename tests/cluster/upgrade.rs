//! `vc upgrade`: another build of vc-node on running nodes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, Node, processes, program, running, sleeping_service, until};

/// A build for tests has hundreds of megabytes, which are sent to each node.
const LONG: Duration = Duration::from_secs(300);

/// A cluster of three nodes, each with a program of its own.
fn cluster() -> Cluster {
    let mut cluster = Cluster::of(3);
    give_programs(&mut cluster);
    cluster
}

/// Gives each node a program of its own, and restarts it with that.
fn give_programs(cluster: &mut Cluster) {
    let original = cluster.path("original");
    // Most of it is of no use here.
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&original).arg(program("vc-node"));
    assert!(strip.status().expect("binutils").success());
    for at in 0..cluster.nodes.len() {
        let name = format!("bin-{}", cluster.nodes[at].name);
        let directory = cluster.path(&name);
        fs::create_dir(&directory).expect("made");
        let binary = directory.join("vc-node");
        fs::copy(&original, &binary).expect("copied");
        let node = &mut cluster.nodes[at];
        node.binary = binary;
        node.stop();
        node.rerun(&[]);
    }
    cluster.all_up();
}

/// Writes a build made of the original one. Returns its path.
fn build(cluster: &Cluster, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = fs::read(cluster.path("original")).expect("read");
    change(&mut bytes);
    let path = cluster.path(name);
    fs::write(&path, bytes).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    path.display().to_string()
}

/// Replaces a text by another one of the same length.
fn replace(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut at = 0;
    while let Some(found) =
        bytes[at..].windows(from.len()).position(|window| window == from.as_bytes())
    {
        at += found;
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    assert!(at > 0, "it has {from}");
}

fn rows(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// Returns the steps with the names of their nodes: `planned n2`.
fn steps(rows: &[Value]) -> Vec<String> {
    let text = |row: &Value, key: &str| row[key].as_str().expect("a text").to_owned();
    rows.iter().map(|row| format!("{} {}", text(row, "step"), text(row, "node_name"))).collect()
}

/// Returns the program that runs in a process.
fn program_of(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).expect("it runs")
}

fn same(one: &Path, other: &str) -> bool {
    fs::read(one).expect("read") == fs::read(other).expect("read")
}

#[test]
fn every_node_gets_another_build_and_no_instance_restarts() {
    let cluster = cluster();
    cluster.deploy(0, &sleeping_service("shop", "web", 3));
    let instances = |nodes: &[Node]| nodes.iter().map(Node::processes).collect::<Vec<_>>();
    let (before, pids) =
        (instances(&cluster.nodes), cluster.nodes.iter().map(Node::pid).collect::<Vec<_>>());
    let newer = build(&cluster, "newer", |bytes| bytes.extend(b"another build"));

    let planned = cluster.vc(0, &["upgrade", &newer, "--dry-run", "--output", "json"]).done();
    assert_eq!(steps(&rows(&planned))[2..], ["planned n1"], "the attached one is last");
    let arguments = ["upgrade", &newer, "-y", "--pause", "1s", "--output", "json"];
    let out = cluster.vc_for(LONG, 0, &arguments).done();
    let done = steps(&rows(&out));
    let order: Vec<&str> = done[..3].iter().map(|it| it.trim_start_matches("planned ")).collect();
    assert_eq!(order.len(), 3, "{done:?}");
    for (at, name) in order.iter().enumerate() {
        let of_node = [format!("restarting {name}"), format!("upgraded {name}")];
        assert_eq!(done[3 + 2 * at..][..2], of_node, "{done:?}");
    }

    cluster.all_up();
    assert_eq!(instances(&cluster.nodes), before, "no instance was restarted");
    for (node, pid) in cluster.nodes.iter().zip(&pids) {
        assert_eq!(program_of(*pid), node.binary, "the process is the same");
        assert!(same(&node.binary, &newer), "{} has the build", node.name);
        let children = format!("/proc/{pid}/task/{pid}/children");
        for child in fs::read_to_string(children).expect("read").split_whitespace() {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            assert!(!stat.contains(") Z "), "{child} is a zombie");
        }
    }
    let audit = cluster.vc(0, &["audit", "--output", "json"]).done();
    for action in ["program_checked", "node_upgraded"] {
        let records = rows(&audit).iter().filter(|row| row["action"] == action).count();
        assert_eq!(records, 3, "{action}: {audit}");
    }
    let again = cluster.vc(0, &["upgrade", &newer, "-y", "--output", "json"]).done();
    assert!(steps(&rows(&again)).iter().all(|it| it.starts_with("skipped")), "{again}");

    // One returns to what it ran before.
    cluster.vc_for(LONG, 0, &["upgrade", "--back", "--node", "n2", "-y"]).done();
    assert!(same(&cluster.nodes[1].binary, &cluster.path("original").display().to_string()));
    assert!(same(&cluster.nodes[0].binary, &newer));
    until("all instances run", DEADLINE, || running(&cluster.ps(0), "shop/web", 3));
    assert_eq!(instances(&cluster.nodes), before);
}

#[test]
fn a_build_that_does_not_start_is_taken_back_and_the_others_are_left_alone() {
    let mut cluster = cluster();
    cluster.deploy(0, &sleeping_service("shop", "web", 3));
    let original = cluster.path("original").display().to_string();
    let instances = |nodes: &[Node]| nodes.iter().map(Node::processes).collect::<Vec<_>>();
    let before = instances(&cluster.nodes);
    // It says what it is, and does not find its membership then.
    let broken =
        build(&cluster, "broken", |bytes| replace(bytes, "membership.json", "membershix.json"));
    cluster.expect_errors("belongs to no cluster yet");
    let arguments = ["upgrade", &broken, "-y", "--output", "json"];
    let failed = cluster.vc_for(LONG, 0, &arguments);
    let steps = steps(&rows(&failed.out));
    let error: Value =
        serde_json::from_str(failed.err.lines().last().expect("an error")).expect("JSON");
    let (error, message) = (&error["error"], error["error"]["message"].as_str().expect("a text"));
    assert_eq!((failed.code, &error["code"]), (Some(1), &"aborted".into()), "{error}");
    assert!(message.contains("went back to vc-node"), "{message}");
    assert!(message.contains("it ended before it was ready"), "{message}");
    assert!(message.contains("no node is upgraded"), "{message}");
    assert_eq!(steps.len(), 5, "only the first was touched: {steps:?}");
    let first = steps[0].trim_start_matches("planned ").to_owned();
    assert_eq!(steps[3..], [format!("restarting {first}"), format!("failed {first}")]);

    for node in &cluster.nodes {
        assert!(same(&node.binary, &original), "{}", node.name);
        assert_eq!(processes::nodes_under(&node.dir).len(), 1, "{} runs", node.name);
    }
    until("all are up", DEADLINE, || {
        let rows = cluster.rows(0, &["nodes"]);
        let up = rows.iter().all(|row| row["state"] == "up" && row["restarting"] == false);
        if up { Ok(()) } else { Err(rows) }
    });
    until("all instances run", DEADLINE, || running(&cluster.ps(0), "shop/web", 3));
    assert_eq!(instances(&cluster.nodes), before, "no instance was restarted");
    let status = cluster.vc(0, &["status"]).done();
    assert!(status.contains(&format!("node {first}: the upgrade to vc-node")), "{status}");

    // The same again is tried again, and not taken for the first attempt.
    let dir = cluster.path(&first);
    let before = processes::nodes_under(&dir);
    let again = ["upgrade", &broken, "-y", "--node", &first];
    let again = cluster.vc_for(LONG, 0, &again).failed();
    assert!(again.contains("went back to vc-node"), "{again}");
    assert_ne!(processes::nodes_under(&dir), before, "the guard has started another process");
}

#[test]
fn only_admins_upgrade_nodes_and_only_where_their_operators_let_them() {
    let mut cluster = cluster();
    let newer = build(&cluster, "newer", |bytes| bytes.extend(b"another build"));
    let deployer = cluster.user_token(0, "ann", "deployer");
    let refused = cluster.vc_as(&deployer, 0, &["upgrade", &newer, "-y", "--output", "json"]);
    let steps = steps(&rows(&refused.out));
    assert!(steps.iter().all(|it| it.starts_with("skipped")), "{steps:?}");
    let named = ["upgrade", &newer, "-y", "--node", "n2"];
    cluster.vc_as(&deployer, 0, &named).failed();

    cluster.nodes[1].stop();
    cluster.nodes[1].rerun(&["--no-remote-upgrade"]);
    cluster.all_up();
    let error = cluster.vc(0, &named).failed();
    assert!(error.contains("n2 cannot be upgraded: this node takes no program"), "{error}");

    // A program that is none of a node is not run in its place.
    let mut other = fs::read("/bin/true").expect("read");
    other.extend(b"@(#)vc-node 9.9.9\n");
    let other_path = cluster.path("other");
    fs::write(&other_path, other).expect("written");
    let arguments = ["upgrade", other_path.to_str().expect("UTF-8"), "-y", "--node", "n3"];
    let error = cluster.vc(0, &arguments).failed();
    assert!(error.contains("n3 was not upgraded: the program cannot run this node"), "{error}");
    assert!(same(&cluster.nodes[2].binary, &cluster.path("original").display().to_string()));
    let audit = rows(&cluster.vc(0, &["audit", "--output", "json"]).done());
    let has = |action: &str, text: &str| {
        let is = |row: &Value| {
            row["action"] == action && row["text"].as_str().is_some_and(|it| it.contains(text))
        };
        audit.iter().any(is)
    };
    assert!(has("program_checked", "had this node run the program sha256:"), "{audit:?}");
    assert!(has("refused", "the program cannot run this node"), "{audit:?}");

    // One whose program cannot be replaced goes on with it, and says why.
    let kept = format!("vc-node.kept-{}", cluster.nodes[2].id());
    fs::create_dir(cluster.nodes[2].binary.with_file_name(kept)).expect("made");
    let arguments = ["upgrade", &newer, "-y", "--node", "n3"];
    let error = cluster.vc_for(LONG, 0, &arguments).failed();
    assert!(error.contains("n3 went back to vc-node"), "{error}");
    assert!(error.contains("cannot replace"), "{error}");
    assert!(same(&cluster.nodes[2].binary, &cluster.path("original").display().to_string()));
    let script = cluster.file("script", "#!/bin/sh\nexit 1\n");
    cluster.vc(0, &["upgrade", &script, "-y"]).refused_with("is no build of vc-node");
}

#[test]
fn systemd_sees_no_end_of_a_node_that_is_upgraded_and_starts_one_that_went_back() {
    let mut cluster = Cluster::found();
    let path = cluster.path("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(DEADLINE)).expect("set");
    let told = || loop {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("a message");
        let text = String::from_utf8_lossy(&bytes[..length]).trim().to_owned();
        // It comes in between.
        if text != "WATCHDOG=1" {
            return text;
        }
    };
    cluster.nodes[0].env.push(("NOTIFY_SOCKET".to_owned(), path.display().to_string()));
    cluster.nodes[0].env.push(("WATCHDOG_USEC".to_owned(), "80000000".to_owned()));
    give_programs(&mut cluster);
    assert_eq!(told(), "READY=1");
    let newer = build(&cluster, "newer", |bytes| bytes.extend(b"another build"));
    cluster.vc_for(LONG, 0, &["upgrade", &newer, "-y"]).done();
    assert_eq!(told(), "WATCHDOG=1\nWATCHDOG_USEC=90000000", "a program may start slowly");
    assert_eq!(told(), "READY=1", "it was not told that the node stops");
    assert_eq!(told(), "WATCHDOG=1\nWATCHDOG_USEC=80000000");

    let broken =
        build(&cluster, "broken", |bytes| replace(bytes, "membership.json", "membershix.json"));
    cluster.expect_errors("belongs to no cluster yet");
    let upgrade = cluster.vc_running(0, &["upgrade", &broken, "-y"]);
    cluster.nodes[0].ends_with(1);
    // Now the guard puts the program before back, and leaves the rest to systemd.
    until("the program before is back", DEADLINE, || {
        if same(&cluster.nodes[0].binary, &newer) { Ok(()) } else { Err("not yet") }
    });
    cluster.nodes[0].rerun(&[]);
    assert_eq!(told(), "WATCHDOG=1\nWATCHDOG_USEC=90000000");
    assert_eq!(told(), "READY=1");
    let ended = std::iter::from_fn(|| upgrade.next_line(DEADLINE)).last();
    assert!(ended.is_some_and(|line| line.starts_with("n1: failed: n1 went back")), "the reason");
    assert_eq!(processes::nodes_under(&cluster.nodes[0].dir).len(), 1, "nothing else started it");
}
