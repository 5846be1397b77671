//! Failures and returns of nodes and instances.

use std::collections::BTreeSet;

use crate::harness::cluster::Cluster;
use crate::harness::processes::Process;
use crate::harness::rows::InstanceExt as _;
use crate::harness::{DEADLINE, Node, measured, running, sleeping_service, until};

/// Returns the processes of a node's instances.
fn processes(node: &Node) -> BTreeSet<Process> {
    node.processes().into_iter().collect()
}

/// Waits until node `at` reports `count` running instances, all on nodes with these names. Prints the time.
fn all_on(cluster: &Cluster, at: usize, count: usize, names: &[&str]) {
    let ((), took) = until("all instances run on the remaining nodes", DEADLINE, || {
        let nodes = running(&cluster.ps(at), "shop/web", count)?;
        let expected = nodes.keys().all(|name| names.contains(&name.as_str()));
        if expected { Ok(()) } else { Err(format!("{nodes:?}")) }
    });
    measured(&format!("{count} instances run on {names:?}"), took);
}

/// Waits until the cluster has exactly one process for each of `count` slots.
fn no_duplicates(cluster: &Cluster, count: usize) {
    until("each slot has one process", DEADLINE, || {
        let all: Vec<Process> = cluster.nodes.iter().flat_map(|node| node.processes()).collect();
        let slots: BTreeSet<&str> = all.iter().map(|process| process.slot.as_str()).collect();
        if all.len() == count && slots.len() == count { Ok(()) } else { Err(format!("{all:?}")) }
    });
}

#[test]
fn replicas_on_dead_nodes_are_rescheduled_until_one_of_three_nodes_is_left() {
    let mut cluster = Cluster::of(3);
    cluster.deploy(0, &sleeping_service("shop", "web", 6));
    let (first, second) = (processes(&cluster.nodes[0]), processes(&cluster.nodes[1]));

    cluster.nodes[2].cut_power();
    all_on(&cluster, 0, 6, &["n1", "n2"]);
    assert!(
        first.is_subset(&processes(&cluster.nodes[0])),
        "instances on remaining nodes keep running"
    );
    assert!(
        second.is_subset(&processes(&cluster.nodes[1])),
        "instances on remaining nodes keep running"
    );

    cluster.nodes[1].cut_power();
    all_on(&cluster, 0, 6, &["n1"]);
    let six = processes(&cluster.nodes[0]);
    assert!(first.is_subset(&six), "instances on remaining nodes keep running");
    assert_eq!(six.len(), 6);
    // A deploy is accepted although most nodes are down.
    cluster.deploy(0, &sleeping_service("shop", "api", 1));

    // The returning node does not know that the other node died; it must not mark that node up.
    cluster.nodes[2].start(&["run"]);
    cluster.all_up();
    assert!(
        six.is_subset(&processes(&cluster.nodes[0])),
        "a returning node moves and restarts nothing"
    );
    cluster.nodes[1].start(&["run"]);
    cluster.all_up();
    no_duplicates(&cluster, 7);
    all_on(&cluster, 1, 6, &["n1"]);
    assert!(
        six.is_subset(&processes(&cluster.nodes[0])),
        "a returning node moves and restarts nothing"
    );
    let rows = cluster.ps(2);
    assert!(rows.iter().all(|row| row["restarts"] == 0), "{rows:?}");
}

#[test]
fn duplicates_stop_when_a_node_returns_whose_instances_kept_running() {
    let mut cluster = Cluster::of(3);
    cluster.deploy(0, &sleeping_service("shop", "web", 6));
    let before: Vec<_> = cluster.nodes.iter().map(processes).collect();

    // Only the node dies: its instances keep running, and are rescheduled nevertheless.
    cluster.nodes[2].kill();
    all_on(&cluster, 0, 6, &["n1", "n2"]);
    assert_eq!(processes(&cluster.nodes[2]), before[2], "its instances keep running");
    let survivors: Vec<_> = cluster.nodes[..2].iter().map(processes).collect();

    cluster.nodes[2].start(&["run"]);
    cluster.all_up();
    no_duplicates(&cluster, 6);
    until("every node reports six running instances", DEADLINE, || {
        (0..3).try_for_each(|at| running(&cluster.ps(at), "shop/web", 6).map(drop))
    });
    for at in 0..2 {
        assert!(
            before[at].is_subset(&processes(&cluster.nodes[at])),
            "instances on the other nodes keep running"
        );
        assert!(
            processes(&cluster.nodes[at]).is_subset(&survivors[at]),
            "no instance was restarted"
        );
    }
}

#[test]
fn a_node_restarted_at_once_keeps_its_instances() {
    let mut cluster = Cluster::of(3);
    cluster.deploy(0, &sleeping_service("shop", "web", 6));
    let before: Vec<_> = cluster.nodes.iter().map(processes).collect();
    let rows = cluster.ps(0);
    cluster.nodes[1].stop();
    cluster.nodes[1].start(&["run"]);
    cluster.nodes[2].kill();
    cluster.nodes[2].start(&["run"]);
    cluster.all_up();
    until("all instances run", DEADLINE, || running(&cluster.ps(0), "shop/web", 6));
    let after: Vec<_> = cluster.nodes.iter().map(processes).collect();
    assert_eq!(before, after, "the same processes");
    for (was, is) in rows.iter().zip(cluster.ps(0)) {
        assert_eq!((was.slot(), was.node()), (is.slot(), is.node()));
        assert_eq!((&was["restarts"], &was["since"]), (&is["restarts"], &is["since"]), "{is}");
    }
}

#[test]
fn a_killed_instance_is_restarted_on_its_node() {
    let cluster = Cluster::of(2);
    cluster.deploy(0, &sleeping_service("shop", "web", 2));
    let victim = cluster.nodes[1].processes().remove(0);
    crate::harness::command::signal(victim.pid.unsigned_abs(), rustix::process::Signal::KILL);
    until("the instance is restarted", DEADLINE, || {
        let rows = cluster.ps(0);
        running(&rows, "shop/web", 2)?;
        let row = rows.iter().find(|row| row.slot() == victim.slot).ok_or("no row")?;
        let restarted = row["restarts"] == 1 && row.node() == "n2";
        if restarted { Ok(()) } else { Err(row.to_string()) }
    });
    assert_ne!(cluster.nodes[1].processes()[0].pid, victim.pid);
}
