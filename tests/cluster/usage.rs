//! What instances use, asked through any node.

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, until};

/// A service whose instances use all of a processor that they get.
const BUSY: &str = "\
name: shop
services:
  busy:
    image: vc-test:1
    command: [sh, -c, 'while true; do :; done']
    stop_grace_period: 1s
    scale: 2
    deploy: {update_config: {monitor: 500ms}}
";

/// Returns what instances use, as node `at` answers, by the name of their node.
fn stats(cluster: &Cluster, at: usize, options: &[&str]) -> Vec<Value> {
    cluster.rows(at, &[&["stats", "--no-stream"], options].concat())
}

fn nodes_of(rows: &[Value]) -> Vec<&str> {
    rows.iter().filter_map(|row| row["node_name"].as_str()).collect()
}

#[test]
fn every_node_tells_what_the_instances_of_all_nodes_use() {
    let mut cluster = Cluster::of(2);
    cluster.deploy(0, BUSY);
    until("both instances are seen to use a processor", DEADLINE, || {
        let rows = stats(&cluster, 0, &["busy"]);
        let uses = |row: &Value| row["cpu_millis"].as_u64().is_some_and(|cpu| cpu > 10);
        if rows.len() == 2 && rows.iter().all(uses) { Ok(()) } else { Err(rows) }
    });
    let rows = stats(&cluster, 1, &[]);
    let mut nodes = nodes_of(&rows);
    nodes.sort_unstable();
    assert_eq!(nodes, ["n1", "n2"], "{rows:#?}");
    for row in &rows {
        assert!(
            row["memory_bytes"].as_u64() > Some(0) && row["cpu_ms"].as_u64() > Some(0),
            "{row}"
        );
        assert!(
            row["network_sent_bytes"].is_null(),
            "a process has the network of its host: {row}"
        );
    }
    assert_eq!(nodes_of(&stats(&cluster, 0, &["--node", "n2"])), ["n2"]);
    assert_eq!(stats(&cluster, 0, &["busy.1"]).len(), 1);
    cluster.vc(0, &["stats", "--no-stream", "nothing"]).refused_with("nothing");
    let listed = cluster.ps(1);
    assert!(listed.iter().all(|row| row["memory_bytes"].as_u64() > Some(0)), "{listed:#?}");

    // A user of another project sees nothing of them.
    let token = cluster.limited_token(0, "eve", "viewer", &["--project", "bank"]);
    let arguments = ["stats", "--no-stream", "--output", "json"];
    assert_eq!(cluster.vc_as(&token, 0, &arguments).json(), Value::Array(Vec::new()));

    cluster.nodes[1].cut_power();
    until("what runs on the node that is left is measured", DEADLINE, || {
        let listed = cluster.ps(0);
        let is_measured = |row: &Value| row["node_name"] == "n1" && row["memory_bytes"].is_u64();
        if listed.len() == 2 && listed.iter().all(is_measured) { Ok(()) } else { Err(listed) }
    });
}
