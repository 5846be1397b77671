//! Containers that fail to start, crash, ignore SIGTERM or log too much; logs and exec.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;

use crate::SHORT_MONITOR;
use crate::harness::fixtures::{logging_service, web};
use crate::harness::lab::{Container, Lab};
use crate::harness::load::Load;
use crate::harness::{DEADLINE, measured, until};

/// Returns a Compose file with one service that runs a shell script.
fn service(name: &str, script: &str, more: &str) -> String {
    format!(
        "name: shop\nservices:\n  {name}:\n    image: vc-test:1\n    command: [sh, -c, '{script}']\n    \
         stop_grace_period: 1s\n{SHORT_MONITOR}{more}"
    )
}

/// Returns the reason in a row of `vc ps`.
fn reason(row: &Value) -> &str {
    row["reason"].as_str().unwrap_or_default()
}

#[test]
fn failing_containers_are_reported_and_leave_other_services_unchanged() {
    let lab = Lab::cluster(2);
    lab.deploy(1, &web("calm", "web", 2, "    ports: ['8080:80']\n"), &["--wait"]).done();
    let calm = |container: &Container| container.service() == "calm/web";
    let before: Vec<Container> =
        lab.all_containers(&[1, 2]).into_values().flatten().filter(calm).collect();
    let load = Load::requests(&lab, 1, "10.77.0.11:8080", 50);

    // An image that no node and no registry has.
    lab.deploy(1, "name: shop\nservices:\n  no:\n    image: nowhere.invalid/no:1\n", &["--force"])
        .done();
    let row = lab.row(2, "the reason names the image", "no", |row| {
        matches!(row["state"].as_str(), Some("pending" | "failed"))
            && reason(row).contains("nowhere.invalid/no:1")
    });
    println!("measured: reason for an image that does not exist: {}", reason(&row));

    // A crash loop.
    lab.deploy(1, &service("crash", "echo no till; exit 4", ""), &[]).done();
    lab.row(2, "a crash loop shows the exit code and the last log lines", "crash", |row| {
        row["restarts"].as_u64() >= Some(2)
            && reason(row).contains('4')
            && reason(row).contains("no till")
    });

    // A container that ignores SIGTERM.
    lab.deploy(2, &service("deaf", "trap : TERM; while true; do sleep 1; done", ""), &["--wait"])
        .done();
    let (host, deaf) = lab.only("shop/deaf");
    let start = Instant::now();
    lab.vc(1, &["rm", "deaf"]).done();
    until("the container is removed after its grace period", DEADLINE, || {
        let left = lab.containers(host);
        if left.contains(&deaf) { Err(format!("{left:?}")) } else { Ok(()) }
    });
    measured(
        "a container that ignores SIGTERM is removed, with a grace period of 1 s",
        start.elapsed(),
    );

    // A log line of 100 MB, and another line.
    let script = "head -c 104857600 /dev/zero | tr \"\\\\0\" x; echo; echo done; exec sleep 900";
    lab.deploy(1, &service("wordy", script, ""), &["--wait"]).done();
    until("the last line alone is the tail of the logs", DEADLINE, || {
        let output = lab.vc(2, &["logs", "--tail", "1", "wordy"]);
        let (is_there, bytes) = (output.out.contains("done"), output.out.len());
        // It may be written while what was the last line before is read.
        if output.code == Some(0) && is_there && bytes < 1000 {
            Ok(())
        } else {
            Err(format!("{bytes} bytes, {}", output.err))
        }
    });
    for host in [1, 2] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", lab.pid(host, "node.pid")));
        let status = status.expect("the node runs");
        let peak = status.lines().find(|line| line.starts_with("VmHWM:")).expect("its peak");
        let peak: u64 = peak.split_whitespace().nth(1).expect("a number").parse().expect("kB");
        assert!(peak < 200_000, "peak memory of the node of h{host}: {peak} kB");
    }

    load.end_requests().all_answered(100);
    let after: Vec<Container> =
        lab.all_containers(&[1, 2]).into_values().flatten().filter(calm).collect();
    assert_eq!(after, before, "the same containers");
}

#[test]
fn logs_of_all_nodes_are_merged_and_exec_reaches_instances_on_any_node() {
    let lab = Lab::cluster(3);
    lab.deploy(1, &logging_service("shop", "talk", 3), &["--wait"]).done();
    let (rows, _) = until("each replica has written three lines", DEADLINE, || {
        let rows = lab.log_rows(1, &["talk"]);
        let of = |replica: u64| rows.iter().filter(|row| row["replica"] == replica).count();
        if (1..=3).all(|replica| of(replica) >= 3) { Ok(rows) } else { Err(format!("{rows:?}")) }
    });
    let times: Vec<u64> = rows.iter().map(|row| row["time"].as_u64().expect("a time")).collect();
    assert!(times.is_sorted(), "merged by time: {times:?}");
    let nodes: BTreeSet<&str> = rows.iter().filter_map(|row| row["node"].as_str()).collect();
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    let tail = lab.log_rows(2, &["--tail", "1", "talk"]);
    assert_eq!(tail.len(), 3, "one line of each replica: {tail:?}");

    // Each row names the stream of its line.
    let both = "echo out; echo err >&2; exec sleep 900";
    lab.deploy(1, &service("both", both, ""), &["--wait"]).done();
    let (rows, _) = until("both lines are in the logs", DEADLINE, || {
        let rows = lab.log_rows(3, &["both"]);
        if rows.len() == 2 { Ok(rows) } else { Err(format!("{rows:?}")) }
    });
    for (line, stream) in [("out", "stdout"), ("err", "stderr")] {
        let row = rows.iter().find(|row| row["line"] == line).expect("the line");
        assert_eq!(row["stream"], stream);
    }

    // Exec in each replica, from each node.
    for (at, replica) in [(1, "1"), (2, "2"), (3, "3")] {
        let output = lab.vc(
            at,
            &["exec", "--replica", replica, "talk", "--", "sh", "-c", "echo $VC_REPLICA; exit 7"],
        );
        assert_eq!((output.out.trim(), output.code), (replica, Some(7)), "{output:?}");
    }
    let output = lab.vc(1, &["exec", "talk", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((output.out.as_str(), output.code), ("out\n", Some(0)));
    let (note, err) = output.err.split_once('\n').expect("a line that names the replica");
    assert!(note.starts_with("using shop/talk.1 on h"), "{output:?}");
    assert_eq!(err, "err\n");
    // The exit codes of shells and Docker for a missing program.
    let output = lab.vc(1, &["exec", "talk", "--", "no-such-program"]);
    assert!(matches!(output.code, Some(126 | 127)), "{output:?}");
    assert!(format!("{}{}", output.out, output.err).contains("no-such-program"), "{output:?}");

    // An instance that has exited refuses exec.
    lab.deploy(1, &service("once", "echo bye", "    restart: \"no\"\n"), &[]).done();
    lab.row(1, "the instance has exited", "once", |row| {
        !matches!(row["state"].as_str(), Some("running" | "starting" | "pending" | "pulling"))
    });
    let error = lab.vc(2, &["exec", "once", "--", "true"]).failed();
    assert!(error.contains("once"), "{error}");
}
