//! Sends requests at a fixed rate.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::LoadError;
use crate::{TIMEOUT, now};

/// The results of the requests.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    requests: usize,
    failures: Vec<Failure>,
    /// The number of answers with each body.
    bodies: BTreeMap<String, usize>,
    /// Milliseconds from the start of connecting to the last byte of the answer, of the answered requests.
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

#[derive(Debug, Serialize)]
struct Failure {
    /// When the request began and when it failed, milliseconds since 1970.
    begun: u64,
    failed: u64,
    error: String,
}

/// Sends `rate` requests per second until `stop`, then waits for the outstanding answers.
pub async fn load(
    address: &str,
    rate: u32,
    stop: impl Future<Output = ()>,
) -> Result<Value, LoadError> {
    let mut report = Report::default();
    let mut took = Vec::new();
    let mut under_way = JoinSet::new();
    let mut due = tokio::time::interval(Duration::from_secs(1) / rate);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = due.tick() => {
                under_way.spawn(request(address.to_owned()));
            }
            Some(ended) = under_way.join_next() => record(ended, &mut report, &mut took)?,
        }
    }
    while let Some(ended) = under_way.join_next().await {
        record(ended, &mut report, &mut took)?;
    }
    took.sort_unstable();
    let at = |share: usize| {
        let last = took.len().saturating_sub(1);
        took.get(last * share / 100).map_or(0.0, |took: &Duration| took.as_secs_f64() * 1000.0)
    };
    (report.p50_ms, report.p99_ms, report.max_ms) = (at(50), at(99), at(100));
    Ok(serde_json::to_value(report)?)
}

type RequestResult = Result<(String, Duration), Failure>;

fn record(
    ended: Result<RequestResult, tokio::task::JoinError>,
    report: &mut Report,
    took: &mut Vec<Duration>,
) -> Result<(), LoadError> {
    report.requests += 1;
    match ended? {
        Ok((body, duration)) => {
            if took.is_empty() {
                println!("ready");
            }
            took.push(duration);
            if took.len().is_multiple_of(100) {
                println!("answered {}", took.len());
            }
            *report.bodies.entry(body).or_default() += 1;
        }
        Err(failure) => report.failures.push(failure),
    }
    Ok(())
}

async fn request(address: String) -> RequestResult {
    let (begun, start) = (now(), Instant::now());
    let answer = timeout(TIMEOUT, exchange(&address)).await.map_err(LoadError::from).flatten();
    match answer {
        Ok(body) => Ok((body, start.elapsed())),
        Err(error) => Err(Failure { begun, failed: now(), error: error.to_string() }),
    }
}

/// Returns the body of a complete answer with status 200.
async fn exchange(address: &str) -> Result<String, LoadError> {
    let step = |what: &'static str| {
        move |error: std::io::Error| LoadError::Response(format!("{what}: {error}"))
    };
    let mut stream = TcpStream::connect(address).await.map_err(step("connect"))?;
    let request = format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(step("write"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(step("read"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| {
        LoadError::Response(format!("closed after {} bytes of an answer", answer.len()))
    })?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(LoadError::Response(head.lines().next().unwrap_or_default().to_owned()));
    }
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find_map(|(name, value)| {
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
        })
        .transpose()
        .map_err(|error| LoadError::Response(error.to_string()))?;
    match length {
        Some(length) if length != body.len() => {
            Err(LoadError::Response(format!("closed after {} of {length} bytes", body.len())))
        }
        _ => Ok(body.trim().to_owned()),
    }
}
