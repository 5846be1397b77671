//! Two processes with the identity of one node: copies of a data directory.

use std::path::Path;

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, running, sleeping_service, until};

/// Copies the files of a data directory, without those of instances: on another host there are none.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        if entry.file_type().expect("a type").is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

#[test]
fn a_copy_of_a_running_node_stops_and_names_it() {
    let mut cluster = Cluster::of(3);
    cluster.deploy(0, &sleeping_service("shop", "web", 3));
    until("all instances run", DEADLINE, || running(&cluster.ps(0), "shop/web", 3));
    let twin = cluster.outsider("copy");
    cluster.nodes[2].stop();
    copy(&cluster.nodes[2].dir, &twin.dir);
    cluster.nodes[2].rerun(&[]);
    cluster.all_up();
    let processes: Vec<_> = cluster.nodes.iter().map(|node| node.processes()).collect();

    let refused = twin.attempt(&["run"]).refused();
    assert!(refused.contains("runs with the identity of this one: n3 at "), "{refused}");
    cluster.all_up();
    until("all instances run", DEADLINE, || running(&cluster.ps(0), "shop/web", 3));
    let after: Vec<_> = cluster.nodes.iter().map(|node| node.processes()).collect();
    assert_eq!(after, processes, "no instance of the cluster was restarted");
    let log = cluster.nodes[2].log();
    assert!(log.contains("another process has written this node's document"), "{log}");
}
