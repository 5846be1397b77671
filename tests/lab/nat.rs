//! Machines behind NAT: they dial out, and nobody dials them.

use crate::harness::command::Said;
use crate::harness::lab::Lab;
use crate::harness::{PATIENCE, measured, program, until};

/// Bytes of the file that is fetched.
const BIG: u64 = 32 << 20;
/// Its service, on a machine behind NAT.
const COMPOSE: &str = "name: shop
services:
  web:
    image: vc-test:1
    command: [sh, -c, 'head -c 33554432 /dev/zero >/www/big; echo here I am; exec httpd -f -h /www']
    healthcheck: {test: [CMD, wget, -q, -O, /dev/null, 'http://127.0.0.1/'], interval: 500ms, retries: 3}
    stop_grace_period: 2s
    ports: ['8080:80']
    deploy: {placement: {constraints: [node.name == h3]}}
";

/// A cluster of four, of which these are behind NAT from the beginning.
fn cluster(behind: &[usize]) -> Lab {
    let lab = Lab::up(4);
    behind.iter().for_each(|&host| lab.host("nat", host));
    lab.node(1, &["init"]);
    for host in 2..=4 {
        let token = lab.vc(1, &["token", "create", "--machine"]).done();
        lab.node(host, &["join", token.trim()]);
    }
    lab
}

/// `vc` on a host, asking the node there.
fn vc_on(lab: &Lab, host: usize, words: &[&str]) -> Said {
    lab.vc_anywhere(host, &[&["--peer", &Lab::ip(host)], words].concat())
}

/// Waits until a host sees these up and no other.
fn sees_up(lab: &Lab, host: usize, up: &[usize]) {
    until(&format!("h{host} sees {up:?} up"), PATIENCE, || {
        let rows = vc_on(lab, host, &["--output", "json", "nodes"]).json();
        let mut seen: Vec<&str> = rows
            .as_array()
            .into_iter()
            .flatten()
            .filter(|row| row["state"] == "up")
            .filter_map(|row| row["name"].as_str())
            .collect();
        seen.sort_unstable();
        let wanted: Vec<String> = up.iter().map(|host| format!("h{host}")).collect();
        if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

/// What the port of the service at a host answers, asked on that host.
fn asked(lab: &Lab, host: usize) -> Result<(), String> {
    let said = lab.get(host, &format!("http://{}:8080/", Lab::ip(host)));
    if said.out.trim() == "vc-test:1" { Ok(()) } else { Err(said.err) }
}

/// Fetches the file at h2's port. Returns how many bytes other hosts than the two passed on.
fn relayed(lab: &Lab) -> u64 {
    let passed = || lab.sent(1) + lab.sent(4);
    let before = passed();
    let load = program("vc-load").display().to_string();
    let words = ["exec", "2", "--", &load, "fetch", &format!("{}:8080", Lab::ip(2)), "/big"];
    let report = lab.run(&words).json();
    assert!(report["bytes"].as_u64() > Some(BIG), "{report}");
    println!("measured: {report}");
    passed() - before
}

#[test]
fn two_machines_behind_nat_reach_each_other_through_any_that_is_not() {
    let lab = cluster(&[2, 3]);
    for host in 1..=4 {
        sees_up(&lab, host, &[1, 2, 3, 4]);
    }
    lab.deploy(1, COMPOSE, &["--wait"]).done();
    let url = format!("http://{}:8080/", Lab::ip(3));
    let direct = ["exec", "2", "--", "busybox", "wget", "-T", "1", "-q", "-O", "-", &url];
    assert_ne!(lab.run(&direct).code, Some(0), "nobody reaches h3");
    for host in [1, 2, 4] {
        let (_, took) = until("its port answers", PATIENCE, || asked(&lab, host));
        measured(&format!("a service behind NAT answers at h{host} after"), took);
    }
    assert!(vc_on(&lab, 2, &["logs", "web"]).done().contains("here I am"));
    let said = vc_on(&lab, 2, &["exec", "web", "--", "cat", "/www/index.html"]).done();
    assert_eq!(said.trim(), "vc-test:1");
    assert!(relayed(&lab) > BIG, "it went through h1 or h4");

    // Whichever it was, another takes over; without any, a connection fails; and it comes back by itself.
    lab.host("kill", 1);
    let (_, took) = until("through h4", PATIENCE, || asked(&lab, 2));
    measured("a service behind NAT answers when a relay died after", took);
    lab.host("kill", 4);
    sees_up(&lab, 2, &[2]);
    assert!(asked(&lab, 2).is_err(), "h3 is out of reach");
    lab.host("start", 1);
    lab.node(1, &["run"]);
    let (_, took) = until("through h1 again", PATIENCE, || asked(&lab, 2));
    measured("a service behind NAT answers when a relay is back after", took);
}

#[test]
fn machines_that_come_to_reach_each_other_need_no_relay_any_more() {
    let lab = cluster(&[2, 3]);
    sees_up(&lab, 2, &[1, 2, 3, 4]);
    lab.deploy(1, COMPOSE, &["--wait"]).done();
    until("its port answers", PATIENCE, || asked(&lab, 2));
    assert!(relayed(&lab) > BIG, "it went through h1 or h4");

    lab.host("unnat", 3);
    let (_, took) = until("it comes directly", PATIENCE, || match relayed(&lab) {
        bytes if bytes < BIG / 4 => Ok(()),
        bytes => Err(format!("{bytes} bytes were passed on")),
    });
    measured("connected directly after", took);
}
