//! Events that `vc events` lists and follows.

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, sleeping_service, until};

/// Returns the events that node `at` lists, as `subject: text`, oldest first.
fn events(cluster: &Cluster, at: usize) -> Vec<String> {
    let rows = cluster.event_rows(at);
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
