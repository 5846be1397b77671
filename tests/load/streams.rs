//! Connections that live long and carry lines.

use std::future::Future;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{PATIENCE, now};

/// What became of a connection.
#[derive(Debug, Serialize)]
pub struct Stream {
    /// Its first line: the service says there who it is.
    first: String,
    lines: usize,
    /// The longest time without a line, milliseconds.
    silence_ms: u128,
    /// When it ended by itself, milliseconds since 1970, and how.
    ended: Option<(u64, String)>,
}

/// Keeps so many connections open until `stop`.
pub async fn watch(
    address: &str,
    count: u32,
    stop: impl Future<Output = ()>,
) -> Result<Value, String> {
    let (tell, told) = watch::channel(false);
    let mut open = JoinSet::new();
    for _ in 0..count {
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            let mut lines = BufReader::new(stream).lines();
            Ok((lines.next_line().await?, lines))
        };
        let opened: Result<_, std::io::Error> =
            timeout(PATIENCE, connect).await.map_err(|_| "no line comes".to_owned())?;
        let (first, mut lines) = opened.map_err(|error| error.to_string())?;
        let first = first.ok_or("closed before the first line")?;
        let mut told = told.clone();
        open.spawn(async move {
            let (mut stream, mut last) =
                (Stream { first, lines: 1, silence_ms: 0, ended: None }, Instant::now());
            loop {
                let line = tokio::select! {
                    line = lines.next_line() => line,
                    _ = told.wait_for(|stop| *stop) => {
                        stream.silence_ms = stream.silence_ms.max(last.elapsed().as_millis());
                        return stream;
                    }
                };
                stream.silence_ms = stream.silence_ms.max(last.elapsed().as_millis());
                last = Instant::now();
                match line {
                    Ok(Some(_)) => stream.lines += 1,
                    Ok(None) => stream.ended = Some((now(), "closed".to_owned())),
                    Err(error) => stream.ended = Some((now(), error.to_string())),
                }
                if stream.ended.is_some() {
                    return stream;
                }
            }
        });
    }
    println!("ready");
    stop.await;
    tell.send_replace(true);
    serde_json::to_value(open.join_all().await).map_err(|error| error.to_string())
}
