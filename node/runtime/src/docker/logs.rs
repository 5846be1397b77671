//! What containers wrote.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::{ListContainersOptionsBuilder, LogsOptionsBuilder};
use futures::stream::{BoxStream, StreamExt as _};
use vc_protocol::Slot;

use super::observe::instant;
use super::{Engine, container, reason};
use crate::lines::Lines;
use crate::{LogLine, LogLines, LogQuery, LogStream, RuntimeError};

/// An older engine answers a request to follow only with the first line.
const FIRST_LINE: Duration = Duration::from_secs(365 * 24 * 3600);

impl Engine {
    pub(super) async fn logs(
        &self,
        slot: &Slot,
        query: LogQuery,
    ) -> Result<LogLines, RuntimeError> {
        let refused = |error: Error| RuntimeError::Docker {
            host: self.host.to_string(),
            reason: reason::of(&error),
        };
        let client = self.client().map_err(refused)?;
        let mut labels = container::ours_in(&self.identity, slot);
        if let Some(digest) = &query.digest {
            labels.push(format!("{}={digest}", container::DIGEST));
        }
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = client.list_containers(Some(options)).await.map_err(refused)?;
        let rank = |summary: &ContainerSummary| {
            (summary.state == Some(ContainerSummaryStateEnum::RUNNING), summary.created)
        };
        let newest = found.into_iter().max_by_key(rank).and_then(|summary| summary.id);
        let container = newest.ok_or_else(|| RuntimeError::NoInstance(slot.clone()))?;
        self.read_logs(&container, query).map_err(refused)
    }

    /// The lines of a container.
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
            // Whole seconds: `Reading` drops what is too early.
            options = options.since(i32::try_from(since / 1000).unwrap_or(i32::MAX));
        }
        let client = self.client()?.with_timeout(FIRST_LINE);
        let output = client.logs(container, Some(options.build())).boxed();
        let reading = Reading {
            output,
            query,
            ready: VecDeque::new(),
            out: Lines::default(),
            err: Lines::default(),
        };
        Ok(futures::stream::unfold(reading, Reading::next).boxed())
    }
}

/// The lines of one container. Nothing is read ahead: Docker waits while nobody takes lines.
struct Reading {
    output: BoxStream<'static, Result<LogOutput, Error>>,
    query: LogQuery,
    ready: VecDeque<LogLine>,
    out: Lines,
    err: Lines,
}

impl Reading {
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
                            error = reason::of(&error),
                            "the logs of a container broke off"
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

    /// Each output is one entry of the log, `TIME TEXT`, at most 16 KiB; without a line end, when the line goes on in
    /// the next one.
    fn take(&mut self, output: LogOutput) {
        let (stream, lines) = match output {
            LogOutput::StdErr { .. } => (LogStream::Stderr, &mut self.err),
            _ => (LogStream::Stdout, &mut self.out),
        };
        let bytes = output.into_bytes();
        let split = bytes.iter().position(|&b| b == b' ').unwrap_or(0);
        let stamp = std::str::from_utf8(&bytes[..split]).ok().and_then(instant);
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
