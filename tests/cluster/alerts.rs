//! Alerts of nodes to receivers outside the cluster.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, until};

/// A receiver on loopback, which keeps what it gets.
struct Receiver {
    port: u16,
    got: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    /// Starts it; it answers the first `refused` requests with an error.
    fn start(refused: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let got = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&got);
        std::thread::spawn(move || {
            for (stream, number) in listener.incoming().zip(0..) {
                let stream = stream.expect("a connection");
                let body = read_body(&stream);
                let status = if number < refused { "500 Broken" } else { "204 No Content" };
                if number >= refused {
                    kept.lock().expect("no panic").push(body);
                }
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                (&stream).write_all(answer.as_bytes()).expect("answered");
            }
        });
        Self { port, got }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook?key=hunter2", self.port)
    }

    /// Returns how often each alert came, by status and summary.
    fn counts(&self, name: &str) -> BTreeMap<(String, String), usize> {
        let mut counts = BTreeMap::new();
        for body in self.got.lock().expect("no panic").iter() {
            for alert in body["alerts"].as_array().expect("alerts") {
                if alert["labels"]["alertname"] == name {
                    let text = |value: &Value| value.as_str().expect("text").to_owned();
                    let key = (text(&alert["status"]), text(&alert["fingerprint"]));
                    *counts.entry(key).or_default() += 1;
                }
            }
        }
        counts
    }
}

fn read_body(stream: &TcpStream) -> Value {
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        if line.trim().is_empty() {
            break;
        }
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    serde_json::from_slice(&body).expect("JSON")
}

#[test]
fn an_alert_arrives_once_when_a_node_dies_and_once_more_when_it_returns() {
    let mut cluster = Cluster::of(3);
    let receiver = Receiver::start(0);
    cluster.vc(0, &["notify", "add", "ops", "webhook", &receiver.url()]).done();
    cluster.vc(0, &["notify", "test", "ops"]).done();
    assert_eq!(receiver.counts("Test").len(), 1);

    let (rows, _) = until("another node knows the receiver", DEADLINE, || {
        let rows = cluster.rows(2, &["notify", "ls"]);
        if rows.is_empty() { Err("none yet") } else { Ok(rows) }
    });
    assert_eq!(rows[0]["target"], format!("http://127.0.0.1:{}/***", receiver.port));
    // The one that sends dies.
    let sender = rows[0]["sender"].as_str().expect("a sender").to_owned();
    let victim = cluster.nodes.iter().position(|node| node.name == sender).expect("a node");
    let other = (victim + 1) % 3;
    cluster.nodes[victim].cut_power();
    let (firing, _) = until("the death is sent", DEADLINE, || {
        let counts = receiver.counts("NodeDown");
        if counts.is_empty() { Err("nothing yet") } else { Ok(counts) }
    });
    assert_eq!(firing.values().collect::<Vec<_>>(), [&1], "{firing:?}");
    until("another node has sent it", DEADLINE, || {
        let rows = cluster.rows(other, &["notify", "ls"]);
        // Without its vote leases may be a problem, too.
        let is_sent = rows[0]["firing"] != 0 && rows[0]["sender"] != sender.as_str();
        if is_sent { Ok(()) } else { Err(rows) }
    });

    cluster.nodes[victim].start(&["run"]);
    cluster.all_up();
    let is_over = |counts: &BTreeMap<(String, String), usize>| {
        counts.keys().any(|(status, _)| status == "resolved")
    };
    let (both, _) = until("its return is sent", DEADLINE, || {
        let counts = receiver.counts("NodeDown");
        if is_over(&counts) { Ok(counts) } else { Err(counts) }
    });
    assert_eq!(both.values().collect::<Vec<_>>(), [&1, &1], "{both:?}");
    let fingerprints: Vec<&String> = both.keys().map(|(_, fingerprint)| fingerprint).collect();
    assert_eq!(fingerprints[0], fingerprints[1]);
    for node in &cluster.nodes {
        assert!(!node.log().contains("hunter2"), "{} logs the URL", node.name);
    }
}

#[test]
fn a_receiver_that_refuses_gets_the_alert_later() {
    let mut cluster = Cluster::of(2);
    let receiver = Receiver::start(2);
    let add = ["notify", "add", "ops", "webhook", &receiver.url(), "--kind", "node-down"];
    cluster.vc(0, &add).done();
    cluster.nodes[1].cut_power();
    until("the death is sent at last", DEADLINE, || {
        let counts = receiver.counts("NodeDown");
        if counts.is_empty() { Err("nothing yet") } else { Ok(()) }
    });
}

#[test]
fn only_admins_add_receivers() {
    let cluster = Cluster::of(1);
    let add = ["notify", "add", "ops", "webhook", "http://127.0.0.1:1/"];
    let deployer = cluster.user_token(0, "ann", "deployer");
    let limited = cluster.limited_token(0, "eve", "deployer", &["--project", "shop"]);
    for token in [&deployer, &limited] {
        for request in [&add[..], &["notify", "ls"], &["notify", "test", "ops"]] {
            cluster.vc_as(token, 0, request).refused_with("admin");
        }
    }
    for url in ["file:///etc/passwd", "gopher://127.0.0.1/", "ftp://127.0.0.1/x"] {
        cluster.vc(0, &["notify", "add", "ops", "webhook", url]).refused_with("http or https");
    }
}

#[test]
fn commands_run_where_the_operator_allows_them() {
    let mut cluster = Cluster::of(1);
    let file = cluster.path("alerts.json");
    let script = format!("cat >> {}", file.display());
    cluster.vc(0, &["notify", "add", "pager", "command", "--", "sh", "-c", &script]).done();
    cluster.vc(0, &["notify", "test", "pager"]).refused_with("--allow-notify-commands");
    cluster.nodes[0].stop();
    cluster.nodes[0].start(&["run", "--allow-notify-commands"]);
    cluster.vc(0, &["notify", "test", "pager"]).done();
    let written = std::fs::read_to_string(&file).expect("the command has run");
    let body: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(body["receiver"], "pager");
    assert_eq!(body["alerts"][0]["labels"]["alertname"], "Test");
}
