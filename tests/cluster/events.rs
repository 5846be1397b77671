//! `vc events`.

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, sleeping_service, until};

/// `subject: text` of what node `at` tells, oldest first.
fn told(cluster: &Cluster, at: usize) -> Vec<String> {
    let rows = cluster.event_rows(at);
    let text = |row: &Value, key: &str| row[key].as_str().expect("text").to_owned();
    rows.iter().map(|row| format!("{}: {}", text(row, "subject"), text(row, "text"))).collect()
}

/// Waits until node `at` tells these, in this order.
fn tells(cluster: &Cluster, at: usize, story: &[&str]) {
    until(&format!("{story:?}"), DEADLINE, || {
        let told = told(cluster, at);
        let mut rest = told.iter();
        let all = story.iter().all(|line| rest.any(|it| it.contains(line)));
        if all { Ok(()) } else { Err(format!("{told:#?}")) }
    });
}

#[test]
fn events_of_a_node_death_and_rescheduling_are_listed_in_order() {
    let mut cluster = Cluster::of(2);
    cluster.deploy(0, &sleeping_service("shop", "web", 2));
    tells(&cluster, 0, &["n2: joined the cluster", "shop/web: deployed by admin: 2 of"]);
    tells(&cluster, 0, &["shop/web: deployed", "shop/web.1: runs on n"]);
    tells(&cluster, 0, &["shop/web: deployed", "shop/web.2: runs on n"]);
    let on_second = |row: &&Value| row["node_name"] == "n2";
    let row = cluster.ps(0).iter().find(on_second).expect("each has one").clone();
    let slot = format!("shop/web.{}", row["replica"]);

    cluster.nodes[1].cut_power();
    let moves = format!("{slot}: moves from n2 to n1");
    let runs = format!("{slot}: runs on n1");
    tells(&cluster, 0, &["n2: is down", &moves, &runs]);
    cluster.vc(0, &["scale", "web=1"]).done();
    tells(&cluster, 0, &["shop/web: scaled from 2 to 1", "shop/web.2: stopped on n1"]);

    // Each fact once, with when it was and how much it matters.
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
    tells(&cluster, 0, &["shop/web.1: runs on n1"]);
    let following = cluster.vc_running(0, &["events", "-f", "--output", "json"]);
    let hear = |text: &str| loop {
        let line = following.next_line(DEADLINE).expect("it goes on");
        let row: Value = serde_json::from_str(&line).expect("a row");
        if row["text"] == text {
            return row;
        }
    };
    assert_eq!(hear("runs on n1")["subject"], "shop/web.1");
    cluster.vc(0, &["rm", "web"]).done();
    assert_eq!(hear("removed")["level"], "info");
    hear("stopped on n1");
}
