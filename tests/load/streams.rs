//! Keeps connections open that carry lines.

use std::future::Future;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::LoadError;
use crate::{TIMEOUT, now};

/// The result of a connection.
#[derive(Debug, Serialize)]
pub struct Stream {
    /// Its first line, which names the instance.
    first: String,
    lines: usize,
    /// The longest time without a line, milliseconds.
    silence_ms: u128,
    /// When and how it ended before `stop`, milliseconds since 1970.
    ended: Option<(u64, String)>,
}

/// Keeps `count` connections open until `stop`, then reads one more line from each that is still open, as proof that it
/// works. Returns a [`Stream`] for each.
pub async fn watch(
    address: &str,
    count: u32,
    stop: impl Future<Output = ()>,
) -> Result<Value, LoadError> {
    let (stop_sender, stopped) = watch::channel(false);
    let mut open = JoinSet::new();
    for _ in 0..count {
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            let mut lines = BufReader::new(stream).lines();
            Ok((lines.next_line().await?, lines))
        };
        let opened: Result<_, std::io::Error> = timeout(TIMEOUT, connect).await?;
        let (first, mut lines) = opened?;
        let first = first.ok_or(LoadError::NoFirstLine)?;
        println!("open {first}");
        let mut stopped = stopped.clone();
        open.spawn(async move {
            let (mut stream, mut last) =
                (Stream { first, lines: 1, silence_ms: 0, ended: None }, Instant::now());
            loop {
                let line = tokio::select! {
                    line = lines.next_line() => Some(line),
                    _ = stopped.wait_for(|stop| *stop) => None,
                };
                let stopping = line.is_none();
                let line = match line {
                    Some(line) => line,
                    None => timeout(TIMEOUT, lines.next_line()).await.map_err(Into::into).flatten(),
                };
                stream.silence_ms = stream.silence_ms.max(last.elapsed().as_millis());
                last = Instant::now();
                match line {
                    Ok(Some(_)) => stream.lines += 1,
                    Ok(None) => stream.ended = Some((now(), "closed".to_owned())),
                    Err(error) => stream.ended = Some((now(), error.to_string())),
                }
                if stream.ended.is_some() {
                    println!("ended {}", stream.first);
                }
                if stopping || stream.ended.is_some() {
                    return stream;
                }
            }
        });
    }
    println!("ready");
    stop.await;
    stop_sender.send_replace(true);
    Ok(serde_json::to_value(open.join_all().await)?)
}
