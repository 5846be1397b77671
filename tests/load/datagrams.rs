//! Datagrams, and what comes back.

use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::PATIENCE;

/// Sends `0`, `1`, …, each when the one before was answered.
pub async fn send(address: &str, count: u32) -> Result<Value, String> {
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
    let answers: std::io::Result<Value> =
        timeout(PATIENCE, exchange).await.map_err(|_| "no answer in time".to_owned())?;
    answers.map_err(|error| error.to_string())
}
