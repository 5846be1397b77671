//! `vc logs` through any node.

use std::collections::BTreeSet;

use crate::harness::cluster::Cluster;
use crate::harness::fixtures::logging_service;
use crate::harness::{DEADLINE, running, until};

#[test]
fn logs_of_all_instances_are_read_through_a_node_that_runs_none() {
    let cluster = Cluster::of(3);
    cluster.deploy(0, &logging_service("shop", "talk", 2));
    let idle = (0..3)
        .find(|&at| cluster.nodes[at].processes().is_empty())
        .expect("a node without instances");

    until("the node reports both instances running", DEADLINE, || {
        running(&cluster.ps(idle), "shop/talk", 2)
    });
    until("both instances have logged two lines", DEADLINE, || {
        let rows = cluster.log_rows(idle, &["talk"]);
        let lines: BTreeSet<&str> = rows.iter().filter_map(|row| row["line"].as_str()).collect();
        let both = lines.contains("line 2 of 1") && lines.contains("line 2 of 2");
        if both { Ok(()) } else { Err(format!("{lines:?}")) }
    });
    let rows = cluster.log_rows(idle, &["shop/talk.2", "--tail", "1"]);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        (&rows[0]["service"], &rows[0]["replica"]),
        (&"shop/talk".into(), &2.into()),
        "{rows:?}"
    );
    assert!(rows[0]["line"].as_str().is_some_and(|line| line.ends_with("of 2")), "{rows:?}");
    cluster.vc(idle, &["logs", "nothing"]).refused_with("nothing");
    cluster.vc(idle, &["logs", "talk", "--replica", "9"]).refused_with("vc ps");
}

#[test]
fn logs_are_followed_through_another_node() {
    let cluster = Cluster::of(2);
    cluster.deploy(0, &logging_service("shop", "talk", 1));
    let idle = (0..2)
        .find(|&at| cluster.nodes[at].processes().is_empty())
        .expect("a node without instances");
    until("the node reports the instance running", DEADLINE, || {
        running(&cluster.ps(idle), "shop/talk", 1)
    });
    let follower =
        cluster.vc_running(idle, &["--output", "json", "logs", "--follow", "--tail", "1", "talk"]);
    let number = || -> u64 {
        let line = follower.next_line(DEADLINE).expect("the stream continues");
        let row: serde_json::Value = serde_json::from_str(&line).expect("each line is JSON");
        let words = row["line"].as_str().expect("a line").to_owned();
        words.split(' ').nth(1).and_then(|number| number.parse().ok()).expect("a number")
    };
    let first = number();
    let next: Vec<u64> = (0..4).map(|_| number()).collect();
    assert_eq!(
        next,
        [first + 1, first + 2, first + 3, first + 4],
        "each line is printed once and in order"
    );

    // The stream ends when the instance is removed.
    cluster.vc(0, &["rm", "talk"]).done();
    until("the stream ends", DEADLINE, || match follower.next_line(DEADLINE) {
        None => Ok(()),
        Some(line) => Err(line),
    });
}
