//! Logs of nodes. All tests also check that logs have no unexpected error, panic or secret.

use crate::harness::cluster::Cluster;
use crate::harness::log_check::entries;
use crate::harness::{DEADLINE, sleeping_service, until};

#[test]
fn each_state_change_is_one_log_line_that_names_its_subject() {
    let mut cluster = Cluster::of(2);
    cluster.deploy(0, &sleeping_service("shop", "web", 2));
    for node in &cluster.nodes {
        let lines: Vec<_> = entries(node, "instance")
            .into_iter()
            .filter(|line| line["level"] == "INFO" && line["to"] == "running")
            .collect();
        assert_eq!(lines.len(), 1, "{}: one line for each change: {lines:#?}", node.name);
        assert_eq!(lines[0]["service"], "shop/web");
        assert!(
            lines[0]["instance"].as_str().is_some_and(|id| id.starts_with("shop/web.")),
            "{:?}",
            lines[0]
        );
        assert!(lines[0]["timestamp"].is_string());
    }
    cluster.nodes[1].cut_power();
    let id = cluster.nodes[1].id().to_owned();
    until("the death is logged in one line", DEADLINE, || {
        let lines = entries(&cluster.nodes[0], "node is down");
        let correct = lines.len() == 1 && lines[0]["node"] == id && lines[0]["name"] == "n2";
        if correct { Ok(()) } else { Err(format!("{lines:?}")) }
    });
    cluster.nodes[1].start(&["run"]);
    until("the return is logged", DEADLINE, || {
        let lines = entries(&cluster.nodes[0], "node is up");
        if lines.last().is_some_and(|line| line["node"] == id) {
            Ok(())
        } else {
            Err(format!("{lines:?}"))
        }
    });
}
