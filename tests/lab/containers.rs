//! What only containers have: images, ports of the host, logs with times.

use crate::harness::lab::Lab;
use crate::harness::{PATIENCE, until};

const WEB: &str = "
name: shop
services:
  web:
    image: vc-test:1
    command: [httpd, -f, -h, /www]
    ports: ['8080:80']
    healthcheck: {test: [CMD, wget, -q, -O, /dev/null, 'http://127.0.0.1/'], interval: 1s, retries: 3}
    stop_grace_period: 1s
    deploy: {replicas: 2}
";

#[test]
fn a_published_port_is_reached_from_another_host_and_given_once_a_host() {
    let lab = Lab::cluster(3);
    lab.deploy(1, WEB, &["--wait"]).done();
    let rows = lab.rows(1, &["ps"]);
    assert!(rows.iter().all(|row| row["state"] == "healthy"), "{rows:?}");
    let hosts: Vec<usize> = (1..=3).filter(|&host| !lab.containers(host).is_empty()).collect();
    assert_eq!(hosts.len(), 2, "two instances with one port are on two hosts");
    let idle = (1..=3).find(|host| !hosts.contains(host)).expect("one is left").to_string();
    let fetch = |host: usize| {
        let url = format!("http://{}:8080/", Lab::ip(host));
        lab.run(&["exec", &idle, "--", "busybox", "wget", "-q", "-O", "-", &url]).done()
    };
    for &host in &hosts {
        assert_eq!(fetch(host).trim(), "vc-test:1");
    }

    // Another version takes the place, port and all, of the first.
    lab.deploy(2, &WEB.replace("vc-test:1", "vc-test:2"), &["--wait"]).done();
    let hosts: Vec<usize> = (1..=3).filter(|&host| !lab.containers(host).is_empty()).collect();
    assert_eq!(fetch(hosts[0]).trim(), "vc-test:2");

    // More than there are hosts: the rest waits and says why.
    lab.vc(1, &["scale", "web=4"]).done();
    until("the fourth waits for a port", PATIENCE, || {
        let rows = lab.rows(1, &["ps"]);
        let waits = rows.iter().any(|row| {
            row["state"] == "pending"
                && row["reason"].as_str().is_some_and(|reason| reason.contains("8080"))
        });
        if waits && rows.len() == 4 { Ok(()) } else { Err(format!("{rows:?}")) }
    });
}

#[test]
fn an_image_that_is_not_there_fails_with_a_reason_and_logs_come_from_afar() {
    let lab = Lab::cluster(2);
    lab.deploy(1, "name: shop\nservices:\n  no:\n    image: nowhere.invalid/no:1\n", &[]).done();
    until("it says why", PATIENCE, || {
        let rows = lab.rows(2, &["ps"]);
        let reason =
            rows.first().and_then(|row| row["reason"].as_str()).unwrap_or_default().to_owned();
        let told = rows.first().is_some_and(|row| row["state"] == "failed")
            && reason.contains("nowhere.invalid/no:1");
        if told { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    lab.vc(1, &["rm", "no"]).done();

    let talk = "name: shop\nservices:\n  talk:\n    image: vc-test:1\n    \
                command: [sh, -c, 'echo out; echo err >&2; exec sleep 900']\n    stop_grace_period: 1s\n";
    lab.deploy(1, talk, &["--wait"]).done();
    let idle = (1..=2).find(|&host| lab.containers(host).is_empty()).expect("one runs it");
    let (rows, _) = until("both lines are there", PATIENCE, || {
        let said = lab.vc(idle, &["--output", "json", "logs", "talk"]);
        let row = |line| serde_json::from_str(line).unwrap_or_default();
        let rows: Vec<serde_json::Value> = said.out.lines().map(row).collect();
        if rows.len() == 2 { Ok(rows) } else { Err(format!("{said:?}")) }
    });
    for (line, stream) in [("out", "stdout"), ("err", "stderr")] {
        let row = rows.iter().find(|row| row["line"] == line).expect("the line");
        assert_eq!(row["stream"], stream);
        assert!(row["time"].is_u64(), "{row}");
    }
}
