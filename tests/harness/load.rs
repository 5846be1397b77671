//! Clients inside of hosts, and what they suffer. `tests/load` is the program.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::DEADLINE;
use super::command::Running;
use super::lab::Lab;

/// What became of requests. Times are milliseconds since 1970.
#[derive(Debug, Deserialize)]
pub struct Requests {
    pub requests: usize,
    pub failures: Vec<Failure>,
    /// How often each body was the answer.
    pub bodies: BTreeMap<String, usize>,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

#[derive(Debug, Deserialize)]
pub struct Failure {
    pub begun: u64,
    pub failed: u64,
    pub error: String,
}

impl Requests {
    /// Every one was answered, and there were enough of them to tell.
    #[track_caller]
    pub fn all_answered(&self, at_least: usize) {
        let few: Vec<&Failure> = self.failures.iter().take(5).collect();
        assert!(
            self.failures.is_empty(),
            "{} of {} requests failed: {few:?}",
            self.failures.len(),
            self.requests
        );
        assert!(self.requests >= at_least, "only {} requests", self.requests);
        println!(
            "measured: {} requests, none failed; p50 {:.1} ms, p99 {:.1} ms, max {:.0} ms",
            self.requests, self.p50_ms, self.p99_ms, self.max_ms
        );
    }
}

/// What became of a connection that a service writes lines to.
#[derive(Debug, Deserialize)]
pub struct Stream {
    /// Its first line.
    pub first: String,
    pub lines: usize,
    /// The longest time without a line, milliseconds.
    pub silence_ms: u64,
    /// When and how it ended by itself.
    pub ended: Option<(u64, String)>,
}

/// A client that runs.
pub struct Load(Running);

impl Load {
    /// Requests, so many a second, from a host to an address. Returns when the first was answered.
    pub fn requests(lab: &Lab, from: usize, address: &str, rate: u32) -> Self {
        Self::start(lab, from, &["http", address, &rate.to_string()])
    }

    /// Connections from a host that stay open. Returns when the service has written a line to each.
    pub fn streams(lab: &Lab, from: usize, address: &str, count: u32) -> Self {
        Self::start(lab, from, &["streams", address, &count.to_string()])
    }

    fn start(lab: &Lab, from: usize, words: &[&str]) -> Self {
        let program = env!("CARGO_BIN_EXE_vc-load");
        let running = Running::start(
            lab.command(&[&["exec", &from.to_string(), "--", program], words].concat()),
        );
        let line = running.next_line(DEADLINE);
        assert_eq!(line.as_deref(), Some("ready"), "{words:?}");
        Self(running)
    }

    /// Ends it, and reads what it has to say.
    fn end<T: DeserializeOwned>(mut self) -> T {
        assert_eq!(self.0.terminate(), Some(0));
        let line = self.0.next_line(DEADLINE).expect("its report");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    pub fn end_requests(self) -> Requests {
        self.end()
    }

    pub fn end_streams(self) -> Vec<Stream> {
        self.end()
    }
}

/// What an echo answers to datagrams from a host, one after another; what was said instead.
pub fn datagrams(
    lab: &Lab,
    from: usize,
    address: &str,
    count: usize,
) -> Result<Vec<String>, String> {
    let program = env!("CARGO_BIN_EXE_vc-load");
    let words =
        ["exec", &from.to_string(), "--", program, "datagrams", address, &count.to_string()];
    let said = lab.run(&words);
    serde_json::from_str(said.out.trim()).map_err(|_| format!("{said:?}"))
}

/// Milliseconds since 1970, by the clock that the clients have.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 500 million")
}

/// From one time to another, zero when it is before.
pub fn between(from: u64, to: u64) -> Duration {
    Duration::from_millis(to.saturating_sub(from))
}
