//! Reading the logs of containers.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::{ListContainersOptionsBuilder, LogsOptionsBuilder};
use futures::stream::{BoxStream, StreamExt as _};
use vc_protocol::Slot;

use super::client::DockerClient;
use super::labels;
use super::time::parse_time;
use crate::docker_error;
use crate::error::RuntimeError;
use crate::log::{LineSplitter, LogLine, LogLines, LogQuery};
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
        self.read_logs(&container, query).map_err(|error| self.error(error))
    }

    /// Reads the lines of a container.
    pub(super) fn read_logs(&self, container: &str, query: LogQuery) -> Result<LogLines, Error> {
        let mut options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .follow(query.follow);
        if let Some(tail) = query.tail {
            options = options.tail(&tail.to_string());
        }
        if let Some(since) = query.since {
            // Whole seconds only: `LogReader` drops earlier lines.
            options = options.since(i32::try_from(since / 1000).unwrap_or(i32::MAX));
        }
        let client = self.client()?.with_timeout(FIRST_LINE_TIMEOUT);
        let output = client.logs(container, Some(options.build())).boxed();
        let reading = LogReader {
            output,
            query,
            ready: VecDeque::new(),
            out: LineSplitter::default(),
            err: LineSplitter::default(),
        };
        Ok(futures::stream::unfold(reading, LogReader::next).boxed())
    }
}

/// Reads the lines of one container. Nothing is read ahead, so Docker waits for the reader.
struct LogReader {
    output: BoxStream<'static, Result<LogOutput, Error>>,
    query: LogQuery,
    ready: VecDeque<LogLine>,
    out: LineSplitter,
    err: LineSplitter,
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
                        lines.finish(|time, line| ready.push_back(LogLine { time, stream, line }));
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
        let (stream, lines) = match output {
            LogOutput::StdErr { .. } => (LogStream::Stderr, &mut self.err),
            _ => (LogStream::Stdout, &mut self.out),
        };
        let bytes = output.into_bytes();
        let split = bytes.iter().position(|&b| b == b' ').unwrap_or(0);
        let stamp = std::str::from_utf8(&bytes[..split]).ok().and_then(parse_time);
        let text = if stamp.is_some() { &bytes[split + 1..] } else { &bytes[..] };
        let since = self.query.since;
        let ready = &mut self.ready;
        lines.push(text, stamp, |time, line| {
            if since.is_none_or(|since| time.is_none_or(|time| time >= since)) {
                ready.push_back(LogLine { time, stream, line });
            }
        });
    }
}
