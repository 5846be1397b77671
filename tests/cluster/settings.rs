//! Settings of a node, which it remembers.

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::fixtures::with;
use crate::harness::{DEADLINE, running, until};

/// A cluster of n1 and n2, of which n2 has the label `disk=ssd` and runs both replicas of `shop/web`, which need it.
fn cluster() -> Cluster {
    let mut cluster = Cluster::found();
    let mut labelled = cluster.outsider("n2");
    labelled.options.extend(["--label", "disk=ssd"].map(str::to_owned));
    labelled.start(&["join", &cluster.node_token(0, "server")]);
    cluster.nodes.push(labelled);
    cluster.all_up();
    let needs = "    deploy: {placement: {constraints: [node.labels.disk == ssd]}}\n";
    cluster.deploy(0, &with("shop", "web", 2, needs));
    cluster
}

/// Returns the row of n2.
fn labelled(cluster: &Cluster) -> Value {
    let rows = cluster.rows(0, &["nodes"]);
    rows.into_iter().find(|row| row["name"] == "n2").expect("n2 is a member")
}

#[test]
fn a_node_restarted_with_its_data_directory_alone_keeps_settings_and_instances() {
    let mut cluster = cluster();
    let (before, processes) = (labelled(&cluster), cluster.nodes[1].processes());
    assert_eq!(processes.len(), 2);
    for how in ["stopped", "killed"] {
        if how == "stopped" {
            cluster.nodes[1].stop();
        } else {
            cluster.nodes[1].kill();
        }
        cluster.nodes[1].rerun(&[]);
        cluster.all_up();
        until("all instances run", DEADLINE, || running(&cluster.ps(0), "shop/web", 2));
        let row = labelled(&cluster);
        for field in ["labels", "addresses", "cpu_millis", "memory_bytes", "runtime"] {
            assert_eq!(row[field], before[field], "{how}: {field}");
        }
        assert_eq!(cluster.nodes[1].processes(), processes, "{how}: no instance was restarted");
    }
}

#[test]
fn a_change_that_ends_instances_is_refused_until_it_is_confirmed() {
    let mut cluster = cluster();
    let processes = cluster.nodes[1].processes();
    let file = cluster.nodes[1].dir.join("node.json");
    let remembered = std::fs::read_to_string(&file).expect("read");
    cluster.nodes[1].stop();
    let refusal = "would end shop/web.1, shop/web.2: nothing was changed; repeat with --yes";
    let refused = cluster.nodes[1].attempt_rerun(&["--label", "disk=hdd"]);
    assert!(refused.err.contains("instance would end on this node: shop/web.1"), "{}", refused.err);
    assert!(!refused.err.contains("setting changes"), "{}", refused.err);
    refused.refused_with(refusal);
    cluster.nodes[1].attempt_rerun(&["--unset", "label"]).refused_with(refusal);
    assert_eq!(std::fs::read_to_string(&file).expect("read"), remembered);

    // A change that ends none needs no confirmation.
    cluster.nodes[1].rerun(&["--memory", "2g", "--label", "disk=ssd", "--label", "zone=a"]);
    cluster.all_up();
    assert_eq!(cluster.nodes[1].processes(), processes);
    assert!(cluster.nodes[1].log().contains("setting changes: memory: 4096m -> 2048m"));

    cluster.nodes[1].stop();
    cluster.nodes[1].rerun(&["--unset", "label", "--yes"]);
    until("the instances have ended", DEADLINE, || match cluster.nodes[1].processes() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    cluster.nodes[1].stop();
    cluster.nodes[1].rerun(&[]);
    cluster.all_up();
    let row = labelled(&cluster);
    assert_eq!(
        (&row["labels"], &row["memory_bytes"]),
        (&serde_json::json!({}), &(2_u64 << 30).into())
    );
}

#[test]
fn the_resources_of_a_node_are_counted() {
    let mut cluster = Cluster::found();
    let mut licensed = cluster.outsider("n2");
    licensed.options.extend(["--resource", "licence=2"].map(str::to_owned));
    licensed.start(&["join", &cluster.node_token(0, "server")]);
    cluster.nodes.push(licensed);
    cluster.all_up();
    let needs = "    deploy: {resources: {reservations: {generic_resources: \
                 [{discrete_resource_spec: {kind: licence, value: 1}}]}}}\n";
    cluster.deploy(0, &with("shop", "solver", 2, needs));
    let row = labelled(&cluster);
    assert_eq!(row["generic_resources"], serde_json::json!({"licence": 2}));
    assert_eq!(row["generic_reserved"], serde_json::json!({"licence": 2}));

    let file = cluster.file("three.yaml", &with("shop", "solver", 3, needs));
    let planned = cluster.vc(0, &["plan", &file]).done();
    for reason in ["n1: has no licence, 1 required", "n2: has 0 of 2 licence free, 1 required"] {
        assert!(planned.contains(reason), "{planned}");
    }
    cluster.nodes[1].stop();
    let refusal = "would end shop/solver.1, shop/solver.2: nothing was changed; repeat with --yes";
    cluster.nodes[1].attempt_rerun(&["--unset", "resource"]).refused_with(refusal);
    cluster.nodes[1].rerun(&["--resource", "licence=3"]);
    cluster.all_up();
    cluster.deploy(0, &with("shop", "solver", 3, needs));
    assert_eq!(labelled(&cluster)["generic_reserved"], serde_json::json!({"licence": 3}));
}

#[test]
fn another_runtime_starts_after_the_instances_in_the_present_one_have_ended() {
    let mut cluster = cluster();
    assert_eq!(cluster.nodes[1].processes().len(), 2);
    cluster.nodes[1].stop();
    let docker = ["--runtime", "docker", "--docker-host", "unix:///nonexistent/docker.sock"];
    let refusal = "would end shop/web.1, shop/web.2: nothing was changed; repeat with --yes";
    cluster.nodes[1].attempt_rerun(&docker).refused_with(refusal);
    assert_eq!(cluster.nodes[1].processes().len(), 2, "a refused change ends nothing");
    cluster.nodes[1].rerun(&[&docker[..], &["--yes"]].concat());
    assert_eq!(cluster.nodes[1].processes(), []);
}
