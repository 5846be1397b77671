//! Nodes behind NAT: they can dial out but cannot be dialled.

use crate::harness::command::CommandOutput;
use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, measured, program, until};

/// Hosts that are not behind NAT and act as relays.
const RELAYS: [usize; 2] = [1, 4];
/// Size of the fetched file in bytes.
const BIG: u64 = 32 << 20;
/// A service that serves a file of [`BIG`] bytes, on a node behind NAT.
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

/// Starts a cluster of four nodes; h2 and h3 are behind NAT from the start.
fn cluster() -> Lab {
    let lab = Lab::up(4);
    lab.host("nat", 2);
    lab.host("nat", 3);
    lab.node(1, &["init"]);
    for host in 2..=4 {
        let token = lab.vc(1, &["token", "create", "--node"]).done();
        lab.node(host, &["join", token.trim()]);
    }
    lab
}

/// Runs `vc` on a host against the node there.
fn vc_on(lab: &Lab, host: usize, words: &[&str]) -> CommandOutput {
    lab.vc_anywhere(host, &[&["--peer", &Lab::ip(host)], words].concat())
}

/// Waits until the node of a host considers exactly these nodes up.
fn sees_up(lab: &Lab, host: usize, up: &[usize]) {
    until(&format!("h{host} sees {up:?} up"), DEADLINE, || {
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

/// Requests the service's port on a host, from that host. Errors: no answer.
fn port_answers(lab: &Lab, host: usize) -> Result<(), CommandOutput> {
    let output = lab.get(host, &format!("http://{}:8080/", Lab::ip(host)));
    if output.out.trim() == "vc-test:1" { Ok(()) } else { Err(output) }
}

/// Why a fetch was not a complete one over a direct connection.
#[derive(Debug)]
#[allow(dead_code, reason = "shown by Debug")]
enum NotDirect {
    /// The connection was closed before the end of the file.
    ClosedEarly,
    /// A host relayed most of it.
    Relayed { relay: usize, bytes: u64 },
}

/// Fetches the file at h2's port. Returns the host that relayed most, and how many bytes. Errors: the connection was
/// closed early.
fn relayed(lab: &Lab) -> Result<(usize, u64), NotDirect> {
    let sent = || RELAYS.map(|host| lab.sent(host));
    let before = sent();
    let load = program("vc-load").display().to_string();
    let words = ["exec", "2", "--", &load, "fetch", &format!("{}:8080", Lab::ip(2)), "/big"];
    let output = lab.run(&words);
    println!("measured: fetched from h3 at h2: {}", output.out.trim());
    let whole = output.code == Some(0) && output.json()["bytes"].as_u64() > Some(BIG);
    let passed = sent().into_iter().zip(before).map(|(now, before)| now - before);
    let most = RELAYS.into_iter().zip(passed).max_by_key(|&(_, bytes)| bytes);
    if whole { Ok(most.expect("two hosts")) } else { Err(NotDirect::ClosedEarly) }
}

#[test]
fn two_nodes_behind_nat_reach_each_other_through_any_relay() {
    let lab = cluster();
    for host in 1..=4 {
        sees_up(&lab, host, &[1, 2, 3, 4]);
    }
    lab.deploy(1, COMPOSE, &["--wait"]).done();
    let url = format!("http://{}:8080/", Lab::ip(3));
    let direct = ["exec", "2", "--", "busybox", "wget", "-T", "1", "-q", "-O", "-", &url];
    assert_ne!(lab.run(&direct).code, Some(0), "h3 cannot be dialled");
    for host in [1, 2, 4] {
        let (_, took) = until("the port answers", DEADLINE, || port_answers(&lab, host));
        measured(&format!("a service behind NAT answers at h{host} after"), took);
    }
    assert!(vc_on(&lab, 2, &["logs", "web"]).done().contains("here I am"));
    let output = vc_on(&lab, 2, &["exec", "web", "--", "cat", "/www/index.html"]).done();
    assert_eq!(output.trim(), "vc-test:1");
    let (relay, bytes) = relayed(&lab).expect("the whole file");
    assert!(bytes > BIG, "h{relay} relayed {bytes} bytes only");

    // The relay dies: the other one takes over. Both die: connections fail. One returns: connections work again.
    let other = if relay == 1 { 4 } else { 1 };
    lab.host("kill", relay);
    let (_, took) =
        until("the port answers through the other relay", DEADLINE, || port_answers(&lab, 2));
    measured("a service behind NAT answers when its relay died after", took);
    assert!(vc_on(&lab, 2, &["logs", "web"]).done().contains("here I am"));
    lab.host("kill", other);
    sees_up(&lab, 2, &[2]);
    assert!(port_answers(&lab, 2).is_err(), "h3 is not reachable");
    lab.host("start", relay);
    lab.node(relay, &["run"]);
    let (_, took) =
        until("the port answers through the first relay again", DEADLINE, || port_answers(&lab, 2));
    measured("a service behind NAT answers when a relay is back after", took);
}

#[test]
fn a_direct_connection_replaces_the_relay_when_nat_ends() {
    let lab = cluster();
    sees_up(&lab, 2, &[1, 2, 3, 4]);
    lab.deploy(1, COMPOSE, &["--wait"]).done();
    until("the port answers", DEADLINE, || port_answers(&lab, 2));
    assert!(relayed(&lab).expect("the whole file").1 > BIG, "the file was relayed");

    lab.host("unnat", 3);
    // Connections in the circuit are closed with it and do not hang.
    let (_, took) = until("the file is fetched directly", DEADLINE, || match relayed(&lab)? {
        (_, bytes) if bytes < BIG / 4 => Ok(()),
        (relay, bytes) => Err(NotDirect::Relayed { relay, bytes }),
    });
    measured("connected directly after", took);
}
