//! Load generators on hosts of the lab, and their reports. `tests/load` is the program.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::DEADLINE;
use super::command::Running;
use super::lab::Lab;

/// The results of the requests. Times are milliseconds since 1970.
#[derive(Debug, Deserialize)]
pub struct Requests {
    pub requests: usize,
    pub failures: Vec<Failure>,
    /// Number of answers with each body.
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
    /// Asserts that at least this many requests were sent and none failed. Prints the latencies.
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

/// The result of a connection on which a service writes lines.
#[derive(Debug, Deserialize)]
pub struct Stream {
    /// Its first line.
    pub first: String,
    pub lines: usize,
    /// The longest time without a line, milliseconds.
    pub silence_ms: u64,
    /// When it ended before the load did, in milliseconds since 1970, and how.
    pub ended: Option<(u64, String)>,
}

/// A running load generator.
pub struct Load {
    program: Running,
    /// The first line of each connection of [`Load::streams`].
    pub opened: Vec<String>,
}

impl Load {
    /// Sends `rate` requests per second from a host to an address. Returns when the first is answered.
    pub fn requests(lab: &Lab, from: usize, address: &str, rate: u32) -> Self {
        Self::start(lab, from, &["http", address, &rate.to_string()])
    }

    /// Keeps `count` connections from a host to an address open. Returns when each has received a line.
    pub fn streams(lab: &Lab, from: usize, address: &str, count: u32) -> Self {
        Self::start(lab, from, &["streams", address, &count.to_string()])
    }

    fn start(lab: &Lab, from: usize, words: &[&str]) -> Self {
        let program = env!("CARGO_BIN_EXE_vc-load");
        let running = Running::start(
            lab.command(&[&["exec", &from.to_string(), "--", program], words].concat()),
        );
        let mut opened = Vec::new();
        loop {
            let line = running.next_line(DEADLINE).unwrap_or_else(|| panic!("{words:?} ended"));
            match line.split_once(' ') {
                None if line == "ready" => return Self { program: running, opened },
                Some(("open", first)) => opened.push(first.to_owned()),
                _ => panic!("{words:?} printed: {line}"),
            }
        }
    }

    /// Waits until the requests of [`Load::requests`] have received `count` further answers.
    pub fn await_answers(&self, count: usize) {
        let total = || -> usize {
            let line = self.program.next_line(DEADLINE).expect("the load continues");
            let answered = line.strip_prefix("answered ").and_then(|total| total.parse().ok());
            answered.unwrap_or_else(|| panic!("unexpected line: {line}"))
        };
        self.program.discard_lines();
        let first = total();
        while total() < first + count {}
    }

    /// Waits until `count` connections of [`Load::streams`] whose first line was `first` have ended.
    pub fn await_ended(&self, first: &str, count: usize) {
        let line = format!("ended {first}");
        let mut ended = 0;
        while ended < count {
            let next = self.program.next_line(DEADLINE).expect("the load continues");
            ended += usize::from(next == line);
        }
    }

    /// Ends the load and returns its report.
    fn end<T: DeserializeOwned>(mut self) -> T {
        assert_eq!(self.program.terminate(), Some(0));
        loop {
            let line = self.program.next_line(DEADLINE).expect("its report");
            if line.starts_with(['{', '[']) {
                return serde_json::from_str(&line)
                    .unwrap_or_else(|error| panic!("{error}: {line}"));
            }
        }
    }

    /// Ends [`Load::requests`] and returns its report.
    pub fn end_requests(self) -> Requests {
        self.end()
    }

    /// Ends [`Load::streams`] and returns the result of each connection.
    pub fn end_streams(self) -> Vec<Stream> {
        self.end()
    }
}

/// Sends datagrams from a host, each after the answer to the one before, and returns the answers. Errors: the output of the
/// program.
pub fn datagrams(
    lab: &Lab,
    from: usize,
    address: &str,
    count: usize,
) -> Result<Vec<String>, String> {
    let program = env!("CARGO_BIN_EXE_vc-load");
    let words =
        ["exec", &from.to_string(), "--", program, "datagrams", address, &count.to_string()];
    let output = lab.run(&words);
    serde_json::from_str(output.out.trim()).map_err(|_| format!("{output:?}"))
}

/// Returns milliseconds since 1970, by the same clock as the load generators.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 500 million")
}

/// Returns the duration between two times in milliseconds; zero when `to` is before `from`.
pub fn between(from: u64, to: u64) -> Duration {
    Duration::from_millis(to.saturating_sub(from))
}
