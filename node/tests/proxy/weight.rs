//! Memory of idle connections.

use crate::nodes::{client, container, pair, place};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Returns the resident memory of this process in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = text.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("pages");
    pages * rustix::param::page_size()
}

#[tokio::test]
async fn a_thousand_idle_connections_take_less_than_20_mb() {
    let (here, there) = pair().await;
    let (listener, port) = container("127.0.19.1").await;
    place(&[&here, &there], &[(1, there.id, "127.0.19.1")]);
    let mut held = Vec::new();
    let mut before = 0;
    for count in 0..1100 {
        // The first connections allocate what all share.
        if count == 100 {
            before = resident();
        }
        let mut client = client(&here, port).await;
        let (mut served, _) = listener.accept().await.expect("accepted");
        // Forwarded bytes leave no buffer behind.
        client.write_all(&[7; 100_000]).await.expect("written");
        served.read_exact(&mut vec![0; 100_000]).await.expect("read");
        held.push((client, served));
    }
    let grown = resident().saturating_sub(before);
    // Both nodes, the clients and the containers are this one process.
    assert!(grown < 20_000_000, "1,000 connections took {grown} bytes");
    println!("1,000 connections through two nodes: {} KiB", grown / 1024);
}
