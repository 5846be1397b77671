//! Volumes with copies on several nodes: a service goes on elsewhere with its data when its node is lost, and loses nothing when it is
//! moved.

use std::time::Instant;

use serde_json::Value;

use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, measured, until};

/// Appends a line with its epoch every 20 ms, and syncs; the healthcheck runs more rarely than snapshots are taken.
const COMPOSE: &str = "
name: shop
services:
  db:
    image: vc-test:1
    command: [sh, -c, 'n=$$(wc -l </data/log || echo 0); while :; do n=$$((n+1)); echo $$VC_EPOCH $$n >>/data/log; usleep 20000; done']
    volumes: ['data:/data']
    stop_grace_period: 1s
    healthcheck: {test: [CMD, test, -e, /data/log], interval: 12s, retries: 2}
volumes:
  data:
";

/// Returns the row of the volume.
fn volume(lab: &Lab, host: usize) -> Value {
    lab.rows(host, &["volume", "ls"]).pop().unwrap_or_default()
}

/// Returns the host in a name such as `h2`.
fn host_of(name: &Value) -> usize {
    name.as_str().and_then(|name| name.strip_prefix('h')?.parse().ok()).unwrap_or_default()
}

/// Waits until a replica has a snapshot not older than those that are there now. Returns the host of the primary and that of the
/// replica.
fn replicated(lab: &Lab, host: usize) -> (usize, usize) {
    let before = volume(lab, host)["snapshot"].clone();
    let ((primary, replica), _) = until("a replica has a new snapshot", DEADLINE, || {
        let row = volume(lab, host);
        let found = &row["replicas"][0];
        let is_new = found["snapshot"].is_string() && found["snapshot"] != before;
        if is_new && found["lag_ms"].is_number() && row["up"] == true {
            Ok((host_of(&row["primary"]), host_of(&found["node_name"])))
        } else {
            Err(row.to_string())
        }
    });
    (primary, replica)
}

/// Returns the lines that the service has written, as numbers after epochs.
fn lines(lab: &Lab) -> Vec<(u64, u64)> {
    let (host, container) = lab.only("shop/db");
    let text = lab.inside(host, &container, &["cat", "/data/log"]).done();
    let line = |line: &str| {
        let (epoch, number) = line.split_once(' ')?;
        Some((epoch.parse().ok()?, number.parse().ok()?))
    };
    text.lines().map(|it| line(it).unwrap_or_else(|| panic!("a torn line: {it:?}"))).collect()
}

/// Waits until the service runs on another host than `not`, and has written in a new epoch. Returns the host.
fn moved(lab: &Lab, asked: usize, not: usize) -> usize {
    let start = Instant::now();
    let (host, _) = until("the service runs elsewhere", DEADLINE, || {
        let rows = lab.rows(asked, &["ps", "db"]);
        let running = rows.iter().find(|row| {
            let at = host_of(&row["node_name"]);
            at != not
                && matches!(row["state"].as_str(), Some("running" | "healthy" | "starting"))
                && !row["address"].as_str().unwrap_or_default().is_empty()
        });
        running.map(|row| host_of(&row["node_name"])).ok_or(format!("{rows:?}"))
    });
    measured("the service runs elsewhere", start.elapsed());
    host
}

#[test]
fn a_service_goes_on_elsewhere_with_its_data_and_late_writes_of_the_lost_node_are_kept() {
    let mut lab = Lab::cluster(3);
    lab.expect_errors("the watchdog");
    lab.deploy(1, COMPOSE, &[]).done();
    let (primary, replica) = replicated(&lab, 1);
    // Snapshots do not keep the healthcheck from running.
    lab.row(1, "the healthcheck has run", "db", |row| row["state"] == "healthy");

    // A planned move loses nothing.
    let asked = if primary == 1 { 2 } else { 1 };
    replicated(&lab, asked);
    let before = lines(&lab);
    lab.vc(asked, &["drain", &format!("h{primary}")]).done();
    let second = moved(&lab, asked, primary);
    assert_eq!(second, replica, "where the data is");
    let after = lines(&lab);
    let numbers: Vec<u64> = after.iter().map(|(_, number)| *number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "nothing is missing");
    assert!(after.starts_with(&before), "{} then {}", before.len(), after.len());
    lab.vc(asked, &["undrain", &format!("h{primary}")]).done();

    // Its host loses power.
    let asked = if second == 1 { 2 } else { 1 };
    let (at, replica) = replicated(&lab, asked);
    assert_eq!(at, second);
    let before = lines(&lab);
    let killed = Instant::now();
    lab.host("kill", second);
    let third = moved(&lab, asked, second);
    measured("failover after a power cut", killed.elapsed());
    assert_eq!(third, replica, "where the data is");
    let after = lines(&lab);
    let epoch = before.last().expect("lines").0;
    let kept = after.iter().take_while(|line| line.0 <= epoch).count();
    let lost = before.len().saturating_sub(kept);
    println!("measured: {lost} of {} lines lost", before.len());
    // 50 lines a second at most, and an old snapshot is no older than two intervals and the time to copy it.
    assert!(after.starts_with(&before[..before.len() - lost]) && lost < 1500, "{lost} lines");
    assert!(after.last().expect("lines").0 > epoch, "a new epoch");

    // The lost node returns: what it wrote last is kept aside, and it becomes a replica.
    lab.host("start", second);
    lab.node(second, &["run"]);
    lab.all_up(&[1, 2, 3]);
    until("the late writes are listed as a conflict", DEADLINE, || {
        let row = volume(&lab, asked);
        if row["conflicts"] == 1 { Ok(()) } else { Err(row.to_string()) }
    });
    let again = lines(&lab);
    assert!(again.starts_with(&after), "the running service is not touched");
}
