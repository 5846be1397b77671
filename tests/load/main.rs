//! A client to put load on a published port, and to see what it suffers. It prints one line of JSON; where nothing
//! else is said, after SIGTERM.
//!
//! - `vc-load http ADDRESS RATE`: so many GET requests a second, each on a connection of its own, begun when they are
//!   due however long the others take. Prints a [`http::Report`].
//! - `vc-load streams ADDRESS COUNT`: keeps connections open to a service that writes lines. Prints what
//!   [`streams::Stream`] says of each.
//! - `vc-load idle ADDRESS COUNT`: keeps connections open that carry nothing. Prints how many are open at the end.
//! - `vc-load datagrams ADDRESS COUNT`: sends so many, each when the one before was answered; ends by itself. Prints the
//!   answers.
//! - `vc-load fetch ADDRESS PATH`: one GET, as fast as it comes; ends by itself. Prints bytes and seconds.
//!
//! Those that run until SIGTERM first print `ready`: the first request was answered, or all connections are open.

mod datagrams;
mod fetch;
mod http;
mod idle;
mod streams;

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

/// How long a connection, or a request, may take: longer is a failure.
const PATIENCE: Duration = Duration::from_secs(5);
const USAGE: &str =
    "usage: vc-load http ADDRESS RATE | streams|idle|datagrams ADDRESS COUNT | fetch ADDRESS PATH";

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

async fn run(words: &[&str]) -> Result<Value, String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let stop = async move {
        terminate.recv().await;
    };
    match *words {
        ["http", address, rate] => http::load(address, number(rate)?, stop).await,
        ["streams", address, count] => streams::watch(address, number(count)?, stop).await,
        ["idle", address, count] => idle::hold(address, number(count)?, stop).await,
        ["datagrams", address, count] => datagrams::send(address, number(count)?).await,
        ["fetch", address, path] => fetch::get(address, path).await,
        _ => Err(USAGE.to_owned()),
    }
}

fn number(word: &str) -> Result<u32, String> {
    match word.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(USAGE.to_owned()),
    }
}

/// Milliseconds since 1970: whoever reads the report has the same clock.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
