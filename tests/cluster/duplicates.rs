//! Two processes on copies of one data directory.

use std::process::Command;

use crate::harness::cluster::Cluster;
use crate::harness::fixtures::with;
use crate::harness::log_check::entries;
use crate::harness::{DEADLINE, Node, running, sleeping_service, until};

/// How often each scenario is repeated.
const RUNS: usize = 5;
/// What an older process, and a member that is connected to both, say.
const FOUND: &str = "two vc-nodes were started with the identity of node n3";

/// A cluster of n1, n2 and n3, whose services run, and a copy of n3's data directory, with other ports.
fn copied() -> (Cluster, Node) {
    let mut cluster = Cluster::of(3);
    cluster.deploy(0, &sleeping_service("shop", "web", 6));
    cluster.nodes[2].stop();
    let mut copy = cluster.outsider("copy");
    let from = cluster.nodes[2].dir.join(".");
    let status = Command::new("cp").arg("-a").arg(&from).arg(&copy.dir).status().expect("cp runs");
    assert!(status.success());
    copy.name = "n3".to_owned();
    (cluster, copy)
}

/// Returns the events of node `at` that say that a node went down.
fn downs(cluster: &Cluster, at: usize) -> usize {
    cluster.event_rows(at).iter().filter(|row| row.to_string().contains("is down")).count()
}

/// Waits until `vc status` at a node shows the duplicate of n3, with this address.
fn shown(cluster: &Cluster, at: usize, address: &str) {
    until("vc status shows the duplicate", DEADLINE, || {
        let problems =
            cluster.vc(at, &["--output", "json", "status"]).json()["problems"].to_string();
        let shown = problems.contains(FOUND) && problems.contains(address);
        if shown { Ok(()) } else { Err(problems) }
    });
}

#[test]
fn a_copy_is_refused_at_its_start_while_the_original_runs() {
    let (mut cluster, copy) = copied();
    cluster.nodes[2].start(&["run"]);
    cluster.all_up();
    until("all instances run", DEADLINE, || running(&cluster.ps(0), "shop/web", 6));
    let before: Vec<_> = cluster.nodes.iter().map(Node::processes).collect();
    let downs_before = downs(&cluster, 0);
    let address = cluster.nodes[2].address().split("/p2p/").next().expect("an address");
    let refusal =
        format!("another vc-node runs with the identity of this one: n3 at {address}: stop");
    for _ in 0..RUNS {
        copy.attempt(&["run"]).refused_with(&refusal);
    }
    // It alone has seen that, and the others say so too.
    for at in [2, 0] {
        shown(&cluster, at, "one of them at /ip4/127.0.0.1/tcp/");
    }
    assert_eq!(entries(&cluster.nodes[2], FOUND).len(), 1);
    cluster.all_up();
    let after: Vec<_> = cluster.nodes.iter().map(Node::processes).collect();
    assert_eq!((before, downs_before), (after, downs(&cluster, 0)), "nothing was restarted");
}

#[test]
fn members_find_the_younger_of_two_processes_that_do_not_reach_each_other() {
    let (mut cluster, mut copy) = copied();
    copy.start(&["run"]);
    cluster.nodes.push(copy);
    let up = |cluster: &Cluster, at: usize| {
        until("three nodes are up", DEADLINE, || {
            let rows = cluster.rows(at, &["nodes"]);
            let up = rows.iter().filter(|row| row["state"] == "up").count();
            if up == 3 { Ok(()) } else { Err(rows) }
        });
    };
    (0..2).for_each(|at| up(&cluster, at));
    // Once this is available, the copy has run for long enough to be the older one.
    let monitored = "    deploy: {update_config: {monitor: 1500ms}}\n";
    cluster.deploy(0, &with("shop", "api", 1, monitored));
    until("all instances run", DEADLINE, || running(&cluster.ps(0), "shop/web", 6));
    let before: Vec<_> = cluster.nodes[..2].iter().map(Node::processes).collect();
    let downs_before = downs(&cluster, 0);
    // Over TCP or QUIC, whichever connected first.
    let copied_at = format!("/{}", cluster.nodes[3].port.number);
    for _ in 0..RUNS {
        // It finds nothing at the addresses in its document, which are its own.
        cluster.nodes[2].launch(&["run"]);
        cluster.nodes[2].ends_with(1);
        let end = cluster.nodes[2].last_lines(1);
        let named = "another vc-node runs with the identity of this one: n3 at /ip4/127.0.0.1/";
        assert!(end.contains(named) && end.contains(&copied_at), "{end}");
    }
    let port = cluster.nodes[2].port.number;
    // Members have seen both, and it has seen the other one: that is one problem.
    for at in [3, 0] {
        shown(&cluster, at, &format!("/{port}"));
        let problems = cluster.vc(at, &["--output", "json", "status"]).json()["problems"].clone();
        let found = problems.as_array().expect("problems").iter();
        let found = found.filter(|it| it.as_str().is_some_and(|it| it.contains(FOUND)));
        assert_eq!(found.count(), 1, "{problems}");
    }
    assert_eq!(entries(&cluster.nodes[3], FOUND).len(), 1);
    (0..2).for_each(|at| up(&cluster, at));
    let after: Vec<_> = cluster.nodes[..2].iter().map(Node::processes).collect();
    assert_eq!((before, downs_before), (after, downs(&cluster, 0)), "nothing was restarted");
    cluster.expect_errors("another vc-node runs with the identity of this one");
}

#[test]
fn a_killed_node_that_starts_again_at_once_is_no_duplicate() {
    let mut cluster = Cluster::of(3);
    for _ in 0..RUNS {
        cluster.nodes[2].kill();
        cluster.nodes[2].start(&["run"]);
        cluster.all_up();
    }
    for node in &cluster.nodes {
        assert!(entries(node, "two vc-nodes").is_empty(), "{}", node.last_lines(5));
    }
}
