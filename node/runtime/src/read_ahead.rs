//! Reads log lines ahead of a slow reader, since an engine that has to wait skips lines when it rotates its files, and does not
//! say so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::Stream;
use futures::stream::{BoxStream, StreamExt as _};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use vc_protocol::Millis;
use vc_protocol::control::LostLines;

use crate::log::{LogLine, LogLines};

/// Bytes of lines that wait for the reader.
const MAX_BYTES: usize = 8 << 20;
/// Bytes of lines that are handed to the reader together, and one line more.
const MAX_BATCH: usize = 64 << 10;

/// Returns the lines of a stream, which is read as fast as it gives them. Lines from before `start` wait until there is room:
/// they are kept by the engine. Of later ones that find no room the oldest are dropped, and counted in the next line.
pub(crate) fn read_ahead(
    source: impl Stream<Item = Vec<LogLine>> + Send + 'static,
    start: Millis,
) -> LogLines {
    let queue = Arc::new(Queue { max_bytes: MAX_BYTES, ..Queue::default() });
    let mut reading = JoinSet::new();
    reading.spawn(fill(Arc::clone(&queue), source.boxed(), start));
    // The task ends with the stream, which owns it.
    futures::stream::unfold((queue, reading), async |(queue, reading)| {
        let lines = queue.pop().await?;
        Some((futures::stream::iter(lines), (queue, reading)))
    })
    .flatten()
    .boxed()
}

async fn fill(queue: Arc<Queue>, mut source: BoxStream<'static, Vec<LogLine>>, start: Millis) {
    while let Some(mut lines) = source.next().await {
        let is_kept = |line: &&LogLine| line.time.is_some_and(|time| time < start);
        let kept = lines.iter().take_while(is_kept).count();
        for line in lines.drain(..kept) {
            queue.wait_for_room(line.line.len()).await;
            queue.push([line]);
        }
        queue.push(lines);
    }
    queue.lock().has_ended = true;
    queue.filled.notify_one();
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    max_bytes: usize,
    /// Notified when there is a line, or the end.
    filled: Notify,
    /// Notified when a line was taken.
    emptied: Notify,
}

#[derive(Default)]
struct State {
    lines: VecDeque<LogLine>,
    bytes: usize,
    has_ended: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait_for_room(&self, bytes: usize) {
        loop {
            {
                let state = self.lock();
                if state.lines.is_empty() || state.bytes + bytes <= self.max_bytes {
                    return;
                }
            }
            self.emptied.notified().await;
        }
    }

    /// Adds lines; drops the oldest for them where there is no room.
    fn push(&self, lines: impl IntoIterator<Item = LogLine>) {
        let mut state = self.lock();
        for line in lines {
            state.push(line, self.max_bytes);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Waits for the next lines; `None` after the last.
    async fn pop(&self) -> Option<Vec<LogLine>> {
        loop {
            {
                let mut state = self.lock();
                let lines = state.pop();
                if !lines.is_empty() {
                    drop(state);
                    self.emptied.notify_one();
                    return Some(lines);
                }
                if state.has_ended {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }
}

impl State {
    fn push(&mut self, mut line: LogLine, max_bytes: usize) {
        while self.bytes + line.line.len() > max_bytes
            && let Some(oldest) = self.lines.pop_front()
        {
            let bytes = oldest.line.len();
            self.bytes -= bytes;
            let mut lost = oldest.lost.unwrap_or_default();
            lost.add(LostLines { lines: 1, bytes: bytes as u64 + 1 });
            let next = self.lines.front_mut().unwrap_or(&mut line);
            next.lost.get_or_insert_default().add(lost);
        }
        self.bytes += line.line.len();
        self.lines.push_back(line);
    }

    /// Takes the next lines.
    fn pop(&mut self) -> Vec<LogLine> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes <= MAX_BATCH
            && let Some(line) = self.lines.pop_front()
        {
            bytes += line.line.len() + size_of::<LogLine>();
            self.bytes -= line.line.len();
            taken.push(line);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use vc_protocol::control::LogStream;

    use super::*;

    fn line(time: Millis, text: &str) -> LogLine {
        LogLine::new(Some(time), LogStream::Stdout, text.to_owned())
    }

    fn batches(lines: impl IntoIterator<Item = LogLine>) -> BoxStream<'static, Vec<LogLine>> {
        let batches: Vec<_> = lines.into_iter().map(|line| vec![line]).collect();
        futures::stream::iter(batches).boxed()
    }

    fn queue(max_bytes: usize) -> Arc<Queue> {
        Arc::new(Queue { max_bytes, ..Queue::default() })
    }

    async fn all(queue: &Queue) -> Vec<LogLine> {
        let mut lines = Vec::new();
        while let Some(batch) = queue.pop().await {
            lines.extend(batch);
        }
        lines
    }

    #[tokio::test]
    async fn lines_that_find_no_room_are_counted_in_the_next_one() {
        let lines = || (0..5).map(|n| line(100 + n, &format!("line{n}")));
        for source in [batches(lines()), futures::stream::iter([lines().collect()]).boxed()] {
            let queue = queue(10);
            fill(Arc::clone(&queue), source, 100).await;
            let first =
                LogLine { lost: Some(LostLines { lines: 3, bytes: 18 }), ..line(103, "line3") };
            assert_eq!(all(&queue).await, [first, line(104, "line4")]);
        }
    }

    #[tokio::test]
    async fn a_line_that_is_longer_than_the_room_replaces_all_others() {
        let queue = queue(10);
        let lines = [line(1, "a"), line(2, "b"), line(3, "longer than the room")];
        fill(Arc::clone(&queue), batches(lines), 0).await;
        let only = all(&queue).await;
        assert_eq!(only.len(), 1);
        assert_eq!(only[0].lost, Some(LostLines { lines: 2, bytes: 4 }));
    }

    #[tokio::test]
    async fn lines_that_the_engine_keeps_wait_for_the_reader() {
        let lines = || (0..50).map(|n| line(n, &format!("line{n}")));
        for source in [batches(lines()), futures::stream::iter([lines().collect()]).boxed()] {
            let queue = queue(10);
            let filling = tokio::spawn(fill(Arc::clone(&queue), source, 100));
            assert_eq!(all(&queue).await, lines().collect::<Vec<_>>());
            filling.await.expect("it ended");
        }
    }

    #[tokio::test]
    async fn a_batch_for_the_reader_is_bounded() {
        let queue = queue(MAX_BYTES);
        let long = "x".repeat(MAX_BATCH / 2);
        let lines = (0..10).map(|n| line(n, &long));
        fill(Arc::clone(&queue), batches(lines), 0).await;
        let first = queue.pop().await.expect("lines");
        assert_eq!(first.len() + all(&queue).await.len(), 10);
        assert!(first.len() <= 3, "{}", first.len());
    }

    #[tokio::test]
    async fn dropping_the_stream_stops_the_reading() {
        let (held, mut is_dropped) = tokio::sync::mpsc::channel::<()>(1);
        let source = futures::stream::pending::<Vec<LogLine>>().map(move |lines| {
            let _ = &held;
            lines
        });
        drop(read_ahead(source, 0));
        assert_eq!(is_dropped.recv().await, None);
    }
}
