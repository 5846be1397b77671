//! Reading the logs of containers.

use std::collections::HashMap;

use bollard::errors::Error;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::ListContainersOptionsBuilder;
use futures::stream::{BoxStream, StreamExt as _};
use vc_protocol::{Millis, Slot};

use super::client::DockerClient;
use super::labels;
use super::log_entries::{Entries, Entry, entries};
use super::time::parse_time;
use crate::clock::now;
use crate::docker_error;
use crate::error::RuntimeError;
use crate::log::{LineSplitter, LogLine, LogLines, LogQuery};
use crate::read_ahead::read_ahead;
use vc_protocol::control::LogStream;

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
    async fn read_logs(&self, container: &str, query: LogQuery) -> Result<LogLines, Error> {
        let part = match query.tail {
            Some(0) => Part::of_entries(0),
            Some(lines) => self.find_last(container, &query, lines as usize).await?,
            None => Part::default(),
        };
        let follow = query.follow;
        let batches = self.read_batches(container, query, part);
        Ok(if follow { read_ahead(batches, now()) } else { lines(batches) })
    }

    /// Reads the lines at the end of a container's log.
    pub(super) fn read_part(&self, container: &str, query: LogQuery, part: Part) -> LogLines {
        lines(self.read_batches(container, query, part))
    }

    /// Reads the lines at the end of a container's log, those together that Docker gives at once.
    fn read_batches(
        &self,
        container: &str,
        query: LogQuery,
        part: Part,
    ) -> BoxStream<'static, Vec<LogLine>> {
        let reading = LogReader {
            entries: self.entries(container, &query, part.entries),
            since: query.since,
            skipped: part.skipped,
            out: LineSplitter::default(),
            err: LineSplitter::default(),
        };
        futures::stream::unfold(Some(reading), LogReader::next).boxed()
    }

    /// Finds the last lines. A line is one log entry, or several where it is long, and Docker counts entries.
    async fn find_last(
        &self,
        container: &str,
        query: &LogQuery,
        lines: usize,
    ) -> Result<Part, Error> {
        let history = LogQuery { follow: false, ..query.clone() };
        let mut entries = u32::try_from(lines).unwrap_or(u32::MAX).saturating_add(1);
        loop {
            let mut output = self.entries(container, &history, Some(entries));
            let mut index = LineIndex::default();
            while let Some(output) = output.next().await {
                for Entry { is_stderr, bytes } in output? {
                    index.push(is_stderr, bytes.ends_with(b"\n"));
                }
            }
            let is_whole = index.entries < entries;
            if let Some(part) = index.last(lines, is_whole) {
                return Ok(part);
            }
            entries = entries.saturating_mul(4);
        }
    }

    /// Asks Docker for log entries: all, or the last `tail`.
    fn entries(&self, container: &str, query: &LogQuery, tail: Option<u32>) -> Entries {
        let follow = query.follow;
        let tail = tail.map_or_else(|| "all".to_owned(), |tail| tail.to_string());
        // Whole seconds only: `LogReader` drops earlier lines.
        let since = query.since.unwrap_or(0) / 1000;
        let path = format!(
            "/containers/{container}/logs?stdout=true&stderr=true&timestamps=true&follow={follow}&tail={tail}&since={since}"
        );
        entries(&self.host, path)
    }
}

/// The end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Part {
    /// Its number of log entries; `None` for the whole log.
    entries: Option<u32>,
    /// How many of the lines that end in it are not asked for.
    skipped: usize,
}

impl Part {
    /// Returns the last log entries, whatever lines they are parts of.
    pub(super) fn of_entries(count: u32) -> Self {
        Self { entries: Some(count), skipped: 0 }
    }
}

/// Where the lines of a sequence of log entries begin and end.
#[derive(Debug, Default)]
struct LineIndex {
    entries: u32,
    /// The first and last entry of each line, in the order of their ends.
    lines: Vec<(u32, u32)>,
    /// The first entry of a line that has not ended, by output.
    open: [Option<u32>; 2],
    /// The first entry of each output, which may continue a line from before.
    first: [Option<u32>; 2],
}

impl LineIndex {
    fn push(&mut self, is_stderr: bool, ends: bool) {
        let output = usize::from(is_stderr);
        let begin = *self.open[output].get_or_insert(self.entries);
        self.first[output].get_or_insert(self.entries);
        if ends {
            self.lines.push((begin, self.entries));
            self.open[output] = None;
        }
        self.entries += 1;
    }

    /// Returns the part of these entries with the last `count` lines; `None`: they begin before it.
    fn last(mut self, count: usize, is_whole: bool) -> Option<Part> {
        let end = self.entries;
        self.lines.extend(self.open.into_iter().flatten().map(|begin| (begin, end)));
        let Some(from) = self.lines.len().checked_sub(count) else {
            return is_whole.then(Part::default);
        };
        let (before, last) = self.lines.split_at(from);
        let begin = last.iter().map(|(begin, _)| *begin).min().unwrap_or(end);
        let is_known = |begin| is_whole || !self.first.contains(&Some(begin));
        if !last.iter().all(|(begin, _)| is_known(*begin)) {
            return None;
        }
        let skipped = before.iter().filter(|(_, end)| *end >= begin).count();
        Some(Part { entries: Some(end - begin), skipped })
    }
}

/// Returns the lines of batches.
fn lines(batches: BoxStream<'static, Vec<LogLine>>) -> LogLines {
    batches.flat_map(futures::stream::iter).boxed()
}

/// Reads the lines of one container.
struct LogReader {
    entries: Entries,
    /// The time of the earliest line.
    since: Option<Millis>,
    /// How many of the next lines are not asked for.
    skipped: usize,
    out: LineSplitter,
    err: LineSplitter,
}

impl LogReader {
    /// Returns the next lines, those of all entries that have arrived; `None` after the last.
    async fn next(reading: Option<Self>) -> Option<(Vec<LogLine>, Option<Self>)> {
        let mut this = reading?;
        let mut ready = Vec::new();
        match this.entries.next().await {
            Some(Ok(entries)) => {
                entries.into_iter().for_each(|entry| this.take(&entry, &mut ready));
                return Some((ready, Some(this)));
            }
            Some(Err(error)) => tracing::debug!(
                error = docker_error::message(&error),
                "reading the logs of a container failed"
            ),
            None => {}
        }
        this.finish(&mut ready);
        Some((ready, None))
    }

    /// Adds the lines that have no end.
    fn finish(&mut self, ready: &mut Vec<LogLine>) {
        for (lines, stream) in
            [(&mut self.out, LogStream::Stdout), (&mut self.err, LogStream::Stderr)]
        {
            lines.finish(|time, line| ready.push(LogLine::new(time, stream, line)));
        }
    }

    /// Adds the lines that end in one log entry, `TIME TEXT` of at most 16 KiB; without a line end when the line continues in the
    /// next entry.
    fn take(&mut self, Entry { is_stderr, bytes }: &Entry, ready: &mut Vec<LogLine>) {
        let (stream, lines) = match is_stderr {
            true => (LogStream::Stderr, &mut self.err),
            false => (LogStream::Stdout, &mut self.out),
        };
        let split = bytes.iter().position(|&b| b == b' ').unwrap_or(0);
        let stamp = parse_time(&bytes[..split]);
        let text = if stamp.is_some() { &bytes[split + 1..] } else { &bytes[..] };
        let (since, skipped) = (self.since, &mut self.skipped);
        lines.push(text, stamp, |time, line| {
            // podman's times are whole seconds, and may be before the start within that second.
            let latest = |time: Millis| if time.is_multiple_of(1000) { time + 999 } else { time };
            if *skipped > 0 {
                *skipped -= 1;
            } else if since.is_none_or(|since| time.is_none_or(|time| latest(time) >= since)) {
                ready.push(LogLine::new(time, stream, line));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the last lines of entries: `o`, `e` continue a line of an output, `O`, `E` end one.
    fn last(entries: &str, count: usize, is_whole: bool) -> Option<Part> {
        let mut index = LineIndex::default();
        for entry in entries.chars() {
            index.push(entry.eq_ignore_ascii_case(&'e'), entry.is_ascii_uppercase());
        }
        index.last(count, is_whole)
    }

    #[test]
    fn the_last_lines_are_found_among_entries() {
        let part = |entries, skipped| Some(Part { entries: Some(entries), skipped });
        assert_eq!(last("OOOO", 2, false), part(2, 0));
        assert_eq!(last("OooOO", 2, false), part(4, 0));
        assert_eq!(last("OO", 3, true), Some(Part::default()));
        assert_eq!(last("OO", 2, true), part(2, 0));
        assert_eq!(last("OO", 2, false), None, "the first may continue a line");
        assert_eq!(last("ooO", 1, false), None);
        assert_eq!(last("Ooo", 1, false), part(2, 0), "a line without an end");
        assert_eq!(last("EOoEO", 1, false), part(3, 1), "another line ends amid the last one");
        assert_eq!(last("OEOoO", 3, false), None, "the first of stderr is unknown");
        assert_eq!(last("", 1, true), Some(Part::default()));
    }
}
