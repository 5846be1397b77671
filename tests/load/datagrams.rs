//! Sends datagrams one after another.

use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::TIMEOUT;
use crate::error::LoadError;

/// Sends `0`, `1`, … up to `count`, each after the answer to the one before. Returns the answers.
pub async fn send(address: &str, count: u32) -> Result<Value, LoadError> {
    let exchange = async {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        socket.connect(address).await?;
        let (mut answers, mut buffer) = (Vec::new(), [0; 1500]);
        for number in 0..count {
            socket.send(number.to_string().as_bytes()).await?;
            let length = socket.recv(&mut buffer).await?;
            answers.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        Ok(json!(answers))
    };
    timeout(TIMEOUT, exchange).await?
}
