//! Events that `vc events` lists and follows.

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, sleeping_service, until};

/// Returns the events that node `at` lists, as `subject: text`, oldest first.
fn events(cluster: &Cluster, at: usize) -> Vec<String> {
    selected(cluster, at, &[])
}

/// Returns those that `vc events` selects with these options.
fn selected(cluster: &Cluster, at: usize, options: &[&str]) -> Vec<String> {
    let rows = cluster.selected_event_rows(at, options);
    let text = |row: &Value, key: &str| row[key].as_str().expect("text").to_owned();
    rows.iter().map(|row| format!("{}: {}", text(row, "subject"), text(row, "text"))).collect()
}

/// Waits until node `at` lists events that contain these texts, in this order.
fn await_events(cluster: &Cluster, at: usize, expected: &[&str]) {
    until(&format!("events {expected:?}"), DEADLINE, || {
        let events = events(cluster, at);
        let mut rest = events.iter();
        let all = expected.iter().all(|text| rest.any(|event| event.contains(text)));
        if all { Ok(()) } else { Err(format!("{events:#?}")) }
    });
}

#[test]
fn events_of_a_node_death_and_rescheduling_are_listed_in_order() {
    let mut cluster = Cluster::of(2);
    cluster.deploy(0, &sleeping_service("shop", "web", 2));
    await_events(&cluster, 0, &["n2: joined the cluster", "shop/web: deployed by admin: 2 of"]);
    await_events(&cluster, 0, &["shop/web: deployed", "shop/web.1: runs on n"]);
    await_events(&cluster, 0, &["shop/web: deployed", "shop/web.2: runs on n"]);
    let on_second = |row: &&Value| row["node_name"] == "n2";
    let row = cluster.ps(0).iter().find(on_second).expect("an instance on n2").clone();
    let slot = format!("shop/web.{}", row["replica"]);

    cluster.nodes[1].cut_power();
    let moves = format!("{slot}: moves from n2 to n1");
    let runs = format!("{slot}: runs on n1");
    await_events(&cluster, 0, &["n2: is down", &moves, &runs]);
    cluster.vc(0, &["scale", "web=1"]).done();
    await_events(&cluster, 0, &["shop/web: scaled from 2 to 1", "shop/web.2: stopped on n1"]);

    // The death is listed once, as an error; all events have times in ascending order.
    let rows = cluster.event_rows(0);
    let down: Vec<&Value> =
        rows.iter().filter(|row| row["subject"] == "n2" && row["level"] == "error").collect();
    assert_eq!(down.len(), 1, "{rows:#?}");
    let times: Vec<u64> = rows.iter().map(|row| row["time"].as_u64().expect("a time")).collect();
    assert!(times.is_sorted() && times[0] > 1_700_000_000_000, "{times:?}");
}

#[test]
fn following_events_prints_past_and_new_ones() {
    let cluster = Cluster::found();
    cluster.deploy(0, &sleeping_service("shop", "web", 1));
    await_events(&cluster, 0, &["shop/web.1: runs on n1"]);
    let following = cluster.vc_running(0, &["events", "-f", "--output", "json"]);
    let next_with = |text: &str| loop {
        let line = following.next_line(DEADLINE).expect("the stream continues");
        let row: Value = serde_json::from_str(&line).expect("a row");
        if row["text"] == text {
            return row;
        }
    };
    assert_eq!(next_with("runs on n1")["subject"], "shop/web.1");
    cluster.vc(0, &["rm", "web"]).done();
    assert_eq!(next_with("removed")["level"], "info");
    next_with("stopped on n1");
}

#[test]
fn events_survive_restarts_and_a_node_learns_of_those_that_it_has_missed() {
    let mut cluster = Cluster::of(2);
    cluster.deploy(0, &sleeping_service("shop", "web", 1));
    await_events(&cluster, 1, &["shop/web: deployed by admin", "shop/web.1: runs on n"]);
    cluster.nodes[1].cut_power();
    await_events(&cluster, 0, &["n2: is down"]);
    cluster.deploy(0, &sleeping_service("shop", "api", 1));
    await_events(&cluster, 0, &["shop/api: deployed by admin", "shop/api.1: runs on n1"]);

    cluster.nodes[1].launch(&["run"]);
    cluster.nodes[1].ready();
    cluster.all_up();
    let expected = [
        "shop/web: deployed by admin",
        "n2: is down",
        "shop/api: deployed by admin",
        "shop/api.1: runs on n1",
        "n2: is up again",
    ];
    await_events(&cluster, 1, &expected);
    let once = |of: &str| {
        let listed = events(&cluster, 1);
        assert_eq!(listed.iter().filter(|it| it.starts_with(of)).count(), 1, "{listed:#?}");
    };
    once("shop/api: deployed");
    once("shop/web: deployed");

    // A node that joins later knows the past too.
    cluster.join(0, &["server"]);
    await_events(&cluster, 2, &expected);
    let filtered = |options: &[&str]| selected(&cluster, 2, options);
    let of_api = filtered(&["--service", "api"]);
    assert!(!of_api.is_empty() && of_api.iter().all(|it| it.contains("shop/api")), "{of_api:?}");
    assert!(filtered(&["--node", "n2"]).iter().any(|it| it.contains("is down")));
    assert_eq!(filtered(&["--since", "1h", "--tail", "2"]).len(), 2);
    let errors = filtered(&["--level", "error"]);
    assert!(errors.iter().any(|it| it.contains("is down")), "{errors:?}");
    assert!(!errors.iter().any(|it| it.contains("deployed")), "{errors:?}");
}
