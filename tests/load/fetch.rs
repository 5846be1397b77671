//! Fetches one large answer.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::error::LoadError;

/// Reads an answer to its end and discards it. Returns its size in bytes and the seconds it took.
pub async fn get(address: &str, path: &str) -> Result<Value, LoadError> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = stream.read(&mut buffer).await?;
    if !buffer[..bytes].starts_with(b"HTTP/1") || buffer.get(9..12) != Some(b"200") {
        let line = String::from_utf8_lossy(&buffer[..bytes.min(80)]).into_owned();
        return Err(LoadError::Response(format!("the answer is: {line}")));
    }
    let start = Instant::now();
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            more => bytes += more,
        }
    }
    Ok(json!({ "bytes": bytes, "seconds": start.elapsed().as_secs_f64() }))
}
