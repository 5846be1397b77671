//! Connections that carry nothing.

use std::future::Future;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::PATIENCE;

/// Keeps so many connections open until `stop`.
pub async fn hold(
    address: &str,
    count: u32,
    stop: impl Future<Output = ()>,
) -> Result<Value, String> {
    let mut held = Vec::new();
    for _ in 0..count {
        let opened = timeout(PATIENCE, TcpStream::connect(address)).await;
        let stream = opened.map_err(|_| "no connection in time".to_owned())?;
        held.push(stream.map_err(|error| error.to_string())?);
    }
    println!("ready");
    stop.await;
    // Whoever was closed has something to read: the end.
    let open = held.iter().filter(|stream| {
        matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    });
    Ok(json!({ "open": open.count() }))
}
