//! Metrics, as Prometheus scrapes them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, until};

/// Returns the head and the body of what a node serves.
fn scrape(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: application/openmetrics-text\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_node_serves_its_metrics_where_the_console_is() {
    let cluster = Cluster::of(1);
    let port = cluster.nodes[0].port.number + 2;
    until("the disk of the node is measured", DEADLINE, || {
        let answer = scrape(port).map_err(|error| error.to_string())?;
        let free = answer.lines().find_map(|it| it.strip_prefix("vc_volume_store_free_bytes "));
        match free.and_then(|it| it.parse::<u64>().ok()) {
            Some(1..) => Ok(()),
            _ => Err(answer),
        }
    });
    let answer = scrape(port).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    // Each metric says what it means.
    let names = body.lines().filter_map(|it| it.strip_prefix("# TYPE ")?.split(' ').next());
    for name in names {
        assert!(body.contains(&format!("# HELP {name} ")), "{name}");
    }
}
