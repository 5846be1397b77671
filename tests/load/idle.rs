//! Keeps idle connections open.

use std::future::Future;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::TIMEOUT;
use crate::error::LoadError;

/// Keeps `count` connections open until `stop`. Returns how many are still open then.
pub async fn hold(
    address: &str,
    count: u32,
    stop: impl Future<Output = ()>,
) -> Result<Value, LoadError> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(timeout(TIMEOUT, TcpStream::connect(address)).await??);
    }
    println!("ready");
    stop.await;
    // A closed connection has an end of stream to read.
    let open = connections.iter().filter(|stream| {
        matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    });
    Ok(json!({ "open": open.count() }))
}
