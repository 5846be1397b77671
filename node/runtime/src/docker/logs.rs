//! Reading the logs of containers.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::{ListContainersOptionsBuilder, LogsOptionsBuilder};
use futures::stream::{BoxStream, StreamExt as _};
use vc_protocol::{Millis, Slot};

use super::client::DockerClient;
use super::labels;
use super::time::parse_time;
use crate::clock::now;
use crate::docker_error;
use crate::error::RuntimeError;
use crate::log::{LineSplitter, LogLine, LogLines, LogQuery};
use crate::read_ahead::read_ahead;
use vc_protocol::control::LogStream;

/// How long the first line may take. Older engines answer a request to follow only when there is a line.
const FIRST_LINE_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

impl DockerClient {
    pub(super) async fn logs(
        &self,
        slot: &Slot,
        query: LogQuery,
    ) -> Result<LogLines, RuntimeError> {
        let client = self.client().map_err(|error| self.error(error))?;
        let mut labels = labels::slot_filters(&self.identity, slot);
        if let Some(digest) = &query.digest {
            labels.push(format!("{}={digest}", labels::DIGEST));
        }
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found =
            client.list_containers(Some(options)).await.map_err(|error| self.error(error))?;
        let rank = |summary: &ContainerSummary| {
            (summary.state == Some(ContainerSummaryStateEnum::RUNNING), summary.created)
        };
        let newest = found.into_iter().max_by_key(rank).and_then(|summary| summary.id);
        let container = newest.ok_or_else(|| RuntimeError::NoInstance(slot.clone()))?;
        self.read_logs(&container, query).await.map_err(|error| self.error(error))
    }

    /// Reads the lines of a container.
    pub(super) async fn read_logs(
        &self,
        container: &str,
        query: LogQuery,
    ) -> Result<LogLines, Error> {
        let tail = match query.tail {
            Some(0) => Some(0),
            Some(lines) => self.entries(container, &query, lines).await?,
            None => None,
        };
        let reading = LogReader {
            output: self.log_output(container, &query, tail)?,
            since: query.since,
            ready: VecDeque::new(),
            out: LineSplitter::default(),
            err: LineSplitter::default(),
            is_part: tail.is_some_and(|tail| tail > 0),
            skips: [false; 2],
        };
        let lines = futures::stream::unfold(reading, LogReader::next);
        Ok(if query.follow { read_ahead(lines, now()) } else { lines.boxed() })
    }

    /// Returns how many of the last log entries to read for that many lines, with one before them; `None` for all. A line is
    /// one entry, or several where it is long, and Docker counts entries.
    async fn entries(
        &self,
        container: &str,
        query: &LogQuery,
        lines: u32,
    ) -> Result<Option<u32>, Error> {
        let mut entries = lines.saturating_add(1);
        loop {
            let history = LogQuery { follow: false, ..query.clone() };
            let mut output = self.log_output(container, &history, Some(entries))?;
            // Numbers of the entries that begin a line. Whether the first of each output does is unknown.
            let (mut count, mut begin, mut first) = (0_u32, Vec::new(), Vec::new());
            let mut continues = [None; 2];
            while let Some(output) = output.next().await {
                let output = output?;
                let continues = &mut continues[usize::from(is_stderr(&output))];
                match continues {
                    None => first.push(count),
                    Some(false) => begin.push(count),
                    Some(true) => {}
                }
                *continues = Some(!output.as_ref().ends_with(b"\n"));
                count += 1;
            }
            let is_whole = count < entries;
            if is_whole {
                begin.extend(first);
                begin.sort_unstable();
            }
            if let Some(at) = begin.len().checked_sub(lines as usize) {
                return Ok(begin.get(at).filter(|&&at| at > 0).map(|at| count - at + 1));
            }
            if is_whole {
                return Ok(None);
            }
            entries = entries.saturating_mul(4);
        }
    }

    /// Asks Docker for log entries: all, or the last `tail`.
    fn log_output(
        &self,
        container: &str,
        query: &LogQuery,
        tail: Option<u32>,
    ) -> Result<BoxStream<'static, Result<LogOutput, Error>>, Error> {
        let mut options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .follow(query.follow);
        if let Some(tail) = tail {
            options = options.tail(&tail.to_string());
        }
        if let Some(since) = query.since {
            // Whole seconds only: `LogReader` drops earlier lines.
            options = options.since(i32::try_from(since / 1000).unwrap_or(i32::MAX));
        }
        let client = self.client()?.with_timeout(FIRST_LINE_TIMEOUT);
        Ok(client.logs(container, Some(options.build())).boxed())
    }
}

fn is_stderr(output: &LogOutput) -> bool {
    matches!(output, LogOutput::StdErr { .. })
}

/// Reads the lines of one container.
struct LogReader {
    output: BoxStream<'static, Result<LogOutput, Error>>,
    /// The time of the earliest line.
    since: Option<Millis>,
    ready: VecDeque<LogLine>,
    out: LineSplitter,
    err: LineSplitter,
    /// Whether the next entry is the one before those that were asked for.
    is_part: bool,
    /// Whether the next entry of each output continues a line whose beginning was not read.
    skips: [bool; 2],
}

impl LogReader {
    async fn next(mut self) -> Option<(LogLine, Self)> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some((line, self));
            }
            match self.output.next().await {
                Some(Ok(output)) => self.take(output),
                ended => {
                    if let Some(Err(error)) = ended {
                        tracing::debug!(
                            error = docker_error::message(&error),
                            "reading the logs of a container failed"
                        );
                    }
                    let ready = &mut self.ready;
                    for (lines, stream) in
                        [(&mut self.out, LogStream::Stdout), (&mut self.err, LogStream::Stderr)]
                    {
                        lines
                            .finish(|time, line| ready.push_back(LogLine::new(time, stream, line)));
                    }
                    let line = self.ready.pop_front()?;
                    self.output = futures::stream::empty().boxed();
                    return Some((line, self));
                }
            }
        }
    }

    /// Adds one log entry, `TIME TEXT` of at most 16 KiB; without a line end when the line continues in the next entry.
    fn take(&mut self, output: LogOutput) {
        let skip = &mut self.skips[usize::from(is_stderr(&output))];
        if std::mem::take(&mut self.is_part) || *skip {
            *skip = !output.as_ref().ends_with(b"\n");
            return;
        }
        let (stream, lines) = if is_stderr(&output) {
            (LogStream::Stderr, &mut self.err)
        } else {
            (LogStream::Stdout, &mut self.out)
        };
        let bytes = output.into_bytes();
        let split = bytes.iter().position(|&b| b == b' ').unwrap_or(0);
        let stamp = std::str::from_utf8(&bytes[..split]).ok().and_then(parse_time);
        let text = if stamp.is_some() { &bytes[split + 1..] } else { &bytes[..] };
        let since = self.since;
        let ready = &mut self.ready;
        lines.push(text, stamp, |time, line| {
            if since.is_none_or(|since| time.is_none_or(|time| time >= since)) {
                ready.push_back(LogLine::new(time, stream, line));
            }
        });
    }
}
