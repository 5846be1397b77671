//! Puts load on a published port and measures the effect. Prints one line of JSON, after SIGTERM unless stated otherwise.
//!
//! - `vc-load http ADDRESS RATE`: RATE GET requests per second, each on a new connection, at fixed times however long
//!   others take (open loop). Prints a [`http::Report`].
//! - `vc-load streams ADDRESS COUNT`: keeps connections open to a service that writes lines. Prints a
//!   [`streams::Stream`] for each.
//! - `vc-load idle ADDRESS COUNT`: keeps idle connections open. Prints how many are open at the end.
//! - `vc-load datagrams ADDRESS COUNT`: sends COUNT datagrams, each after the answer to the one before, then exits. Prints the
//!   answers.
//! - `vc-load fetch ADDRESS PATH`: one GET, as fast as possible, then exits. Prints bytes and seconds.
//!
//! Those that run until SIGTERM first print `ready`, when the first request is answered or all connections are open. Before
//! it, `streams` prints `open LINE` for each connection, with the first line that it received. After it, `http` prints
//! `answered N` after every 100th answer, and `streams` prints `ended LINE` for each connection that ends.

mod datagrams;
mod error;
mod fetch;
mod http;
mod idle;
mod streams;

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::LoadError;

/// The longest time that a connection or a request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words).await {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[&str]) -> Result<Value, LoadError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        terminate.recv().await;
    };
    match *words {
        ["http", address, rate] => http::load(address, number(rate)?, stop).await,
        ["streams", address, count] => streams::watch(address, number(count)?, stop).await,
        ["idle", address, count] => idle::hold(address, number(count)?, stop).await,
        ["datagrams", address, count] => datagrams::send(address, number(count)?).await,
        ["fetch", address, path] => fetch::get(address, path).await,
        _ => Err(LoadError::Usage),
    }
}

fn number(word: &str) -> Result<u32, LoadError> {
    match word.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(LoadError::Usage),
    }
}

/// Returns milliseconds since 1970; the reader of the report has the same clock.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
