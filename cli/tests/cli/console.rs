//! `vc console`: serves the console, or links to one hosted elsewhere.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use vc_protocol::control::{NodeRow, Reply, Request};

use crate::node::{Node, OURS, member, node_id, node_row};
use crate::{CommandOutput, Home};

/// A node that browsers can dial, and its address.
fn node() -> (NodeRow, String) {
    let hash = "uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g";
    let address = format!("/ip4/10.0.0.1/udp/4778/webrtc-direct/certhash/{hash}");
    let mut row = node_row(10, "attic");
    row.addresses =
        [&address, "/ip4/10.0.0.1/tcp/4777"].map(|text| text.parse().expect("an address")).to_vec();
    (row, format!("{address}/p2p/{}", node_id(10).peer_id()))
}

/// A home with a token, a node that lists one node, and the fragment of a link to it.
fn home() -> (Home, Node, String) {
    let (row, address) = node();
    let (home, node) = (Home::new(), Node::start(member(OURS, 10, vec![Reply::Nodes(vec![row])])));
    let token = OURS.token(&[&node.address]);
    home.vc(&["login", &token]).ok();
    (home, node, format!("#token={token}&peer={address}"))
}

/// Returns the status line and the body that a server on this port sends for this host.
fn get(port: &str, host: &str) -> (String, String) {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("connected");
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().expect("a line").to_owned(), body.to_owned())
}

#[test]
fn the_console_is_served_until_ctrl_c_with_a_link_that_signs_in() {
    let (home, node, fragment) = home();
    let mut child = home.command(&["console"]).spawn().expect("started");
    let mut link = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut link).expect("read");
    let (console, rest) = link.trim_end().split_once("/#").expect("a fragment");
    assert_eq!(format!("#{rest}"), fragment);
    assert_eq!(node.requests(), [Request::Nodes]);
    let port = console.strip_prefix("http://127.0.0.1:").expect("on this node");

    let (status, body) = get(port, &format!("127.0.0.1:{port}"));
    // A program built without npm answers 503.
    let is_there = status.contains(" 200 ") && body.contains("<html");
    assert!(is_there || status.contains(" 503 ") && body.contains("npm"), "{status}: {body}");
    assert!(get(port, "evil.example").0.contains(" 421 "));

    let pid = child.id().to_string();
    std::process::Command::new("kill").args(["-INT", &pid]).status().expect("signalled");
    let out = CommandOutput::from(child.wait_with_output().expect("ended"));
    assert_eq!(out.code, Some(130));
    let start = "anyone with this link has the rights of 'ada' (admin) until ";
    assert!(out.stderr.starts_with(start) && out.stderr.ends_with(" UTC\n"), "{}", out.stderr);
}

#[test]
fn a_link_to_a_console_hosted_elsewhere_is_printed() {
    let (home, _node, fragment) = home();
    let out = home.vc(&["console", "--url", "https://console.example", "--qr"]);
    let mut lines = out.stdout.lines();
    let link = format!("https://console.example/{fragment}");
    assert_eq!((out.code, lines.next()), (Some(0), Some(link.as_str())), "{}", out.stderr);
    let code: Vec<&str> = lines.collect();
    assert!(code.len() > 20, "{}", out.stdout);
    assert!(code.iter().flat_map(|line| line.chars()).all(|c| "█▀▄ ".contains(c)));

    let out = home.vc(&["console", "--url", "https://console.example/", "--output", "json"]);
    let row: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
    assert_eq!(row["link"], link);
    assert!(row["expires"].as_u64().expect("a time") > crate::node::now());
}

#[test]
fn a_qr_code_of_a_loopback_address_is_a_usage_error() {
    let (home, node, _) = home();
    let out = home.vc(&["console", "--qr"]);
    assert_eq!((out.code, out.stdout.as_str()), (Some(2), ""));
    assert!(out.stderr.contains("--qr requires --url"));
    assert!(node.requests().is_empty());
}

#[test]
fn a_port_in_use_is_reported_before_connecting() {
    let (home, node, _) = home();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let error = home.vc(&["console", "--listen", &address]).error();
    assert!(
        error.starts_with(&format!("cannot listen on {address}: address in use; choose another")),
        "{error}"
    );
    assert!(node.requests().is_empty());
}

#[test]
fn addresses_are_listed_one_per_line() {
    let (home, _node, _) = home();
    let out = home.vc(&["nodes", "--addresses"]).ok();
    let lines: Vec<Vec<&str>> = out.lines().map(|it| it.split_whitespace().collect()).collect();
    let (row, _) = node();
    let addresses: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            ["NAME", "STATE", "ADDRESS"],
            ["attic", "up", &addresses[0]],
            ["attic", "up", &addresses[1]],
        ]
    );
}
