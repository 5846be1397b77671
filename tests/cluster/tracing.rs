//! One id in the logs of all nodes, from the command to the instances.

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, Node, sleeping_service, until};

/// Returns the log entries of a node that name an id, in a field or in one of their spans.
fn traced(node: &Node, trace: &str) -> Vec<Value> {
    let log = node.log();
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let has = |entry: &Value| {
        let spans = entry["spans"].as_array().cloned().unwrap_or_default();
        entry["trace"] == trace || spans.iter().any(|span| span["trace"] == trace)
    };
    entries.filter(has).collect()
}

#[test]
fn a_deployment_is_followed_by_one_id_through_the_logs_of_all_nodes() {
    let cluster = Cluster::of(3);
    let file = cluster.file("compose.yaml", &sleeping_service("shop", "web", 3));
    let changes = cluster.vc(1, &["deploy", &file, "--output", "json"]).json();
    let last = changes.as_array().and_then(|it| it.last()).expect("changes");
    assert_eq!(last["change"], "traced", "{changes}");
    let trace = last["trace"].as_str().expect("an id").to_owned();

    // The node that took the command says so within the spans of the session and of the request.
    let entries = traced(&cluster.nodes[1], &trace);
    let asked = entries.iter().find(|it| it["message"] == "deployment requested");
    let spans = &asked.unwrap_or_else(|| panic!("{entries:#?}"))["spans"];
    assert_eq!((&spans[0]["name"], &spans[1]["name"]), (&"session".into(), &"request".into()));
    assert_eq!((&spans[0]["user"], &spans[1]["op"]), (&"admin".into(), &"deploy".into()));
    assert!(entries.iter().any(|it| it["message"] == "command"), "{entries:#?}");
    // Every node learns of the deployment, and starts its instance of it.
    for node in &cluster.nodes {
        until("the node logs the deployment and its instance", DEADLINE, || {
            let entries = traced(node, &trace);
            let is = |message: &str, service: &str| {
                entries.iter().any(|it| it["message"] == message && it["service"] == service)
            };
            let runs = entries.iter().any(|it| it["to"] == "running");
            let seen = is("deployment", "shop/web") && is("instance changed", "shop/web") && runs;
            if seen { Ok(()) } else { Err(format!("{}: {entries:#?}", node.name)) }
        });
    }
    // A deployment that changes nothing leaves the services what they were given.
    let again = cluster.vc(2, &["deploy", &file, "--output", "json"]).json();
    assert_eq!(again.as_array().map(Vec::len), Some(1), "{again}");
    assert_eq!(again[0]["change"], "unchanged");
}
