//! Reads log lines ahead of a slow reader, since an engine that has to wait skips lines when it rotates its files, and does not
//! say so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::Stream;
use futures::stream::StreamExt as _;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use vc_protocol::Millis;
use vc_protocol::control::LostLines;

use crate::log::{LogLine, LogLines};

/// Bytes of lines that wait for the reader.
const MAX_BYTES: usize = 8 << 20;

/// Returns the lines of a stream, which is read as fast as it gives them. Lines from before `start` wait until there is room:
/// they are kept by the engine. Of later ones that find no room the oldest are dropped, and counted in the next line.
pub(crate) fn read_ahead(
    source: impl Stream<Item = LogLine> + Send + 'static,
    start: Millis,
) -> LogLines {
    let queue = Arc::new(Queue { max_bytes: MAX_BYTES, ..Queue::default() });
    let mut reading = JoinSet::new();
    reading.spawn(fill(Arc::clone(&queue), source.boxed(), start));
    // The task ends with the stream, which owns it.
    futures::stream::unfold((queue, reading), async |(queue, reading)| {
        let line = queue.pop().await?;
        Some((line, (queue, reading)))
    })
    .boxed()
}

async fn fill(queue: Arc<Queue>, mut source: LogLines, start: Millis) {
    while let Some(line) = source.next().await {
        let is_kept = line.time.is_some_and(|time| time < start);
        if is_kept {
            queue.wait_for_room(line.line.len()).await;
        }
        queue.push(line);
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

    /// Adds a line; drops the oldest for it where there is no room.
    fn push(&self, mut line: LogLine) {
        let mut state = self.lock();
        while state.bytes + line.line.len() > self.max_bytes
            && let Some(oldest) = state.lines.pop_front()
        {
            let bytes = oldest.line.len();
            state.bytes -= bytes;
            let mut lost = oldest.lost.unwrap_or_default();
            lost.add(LostLines { lines: 1, bytes: bytes as u64 + 1 });
            let next = state.lines.front_mut().unwrap_or(&mut line);
            next.lost.get_or_insert_default().add(lost);
        }
        state.bytes += line.line.len();
        state.lines.push_back(line);
        drop(state);
        self.filled.notify_one();
    }

    /// Waits for the next line; `None` after the last.
    async fn pop(&self) -> Option<LogLine> {
        loop {
            {
                let mut state = self.lock();
                if let Some(line) = state.lines.pop_front() {
                    state.bytes -= line.line.len();
                    drop(state);
                    self.emptied.notify_one();
                    return Some(line);
                }
                if state.has_ended {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use vc_protocol::control::LogStream;

    use super::*;

    fn line(time: Millis, text: &str) -> LogLine {
        LogLine::new(Some(time), LogStream::Stdout, text.to_owned())
    }

    fn queue(max_bytes: usize) -> Arc<Queue> {
        Arc::new(Queue { max_bytes, ..Queue::default() })
    }

    #[tokio::test]
    async fn lines_that_find_no_room_are_counted_in_the_next_one() {
        let queue = queue(10);
        let lines = (0..5).map(|n| line(100 + n, &format!("line{n}")));
        fill(Arc::clone(&queue), futures::stream::iter(lines).boxed(), 100).await;
        let first = queue.pop().await.expect("a line");
        assert_eq!(first.line, "line3");
        assert_eq!(first.lost, Some(LostLines { lines: 3, bytes: 18 }));
        assert_eq!(queue.pop().await, Some(line(104, "line4")));
        assert_eq!(queue.pop().await, None);
    }

    #[tokio::test]
    async fn a_line_that_is_longer_than_the_room_replaces_all_others() {
        let queue = queue(10);
        let lines = [line(1, "a"), line(2, "b"), line(3, "longer than the room")];
        fill(Arc::clone(&queue), futures::stream::iter(lines).boxed(), 0).await;
        let only = queue.pop().await.expect("a line");
        assert_eq!(only.lost, Some(LostLines { lines: 2, bytes: 4 }));
        assert_eq!(queue.pop().await, None);
    }

    #[tokio::test]
    async fn lines_that_the_engine_keeps_wait_for_the_reader() {
        let queue = queue(10);
        let lines = (0..50).map(|n| line(n, &format!("line{n}")));
        let filling =
            tokio::spawn(fill(Arc::clone(&queue), futures::stream::iter(lines).boxed(), 100));
        for n in 0..50 {
            assert_eq!(queue.pop().await, Some(line(n, &format!("line{n}"))));
        }
        assert_eq!(queue.pop().await, None);
        filling.await.expect("it ended");
    }

    #[tokio::test]
    async fn dropping_the_stream_stops_the_reading() {
        let (held, mut is_dropped) = tokio::sync::mpsc::channel::<()>(1);
        let source = futures::stream::pending::<LogLine>().map(move |line| {
            let _ = &held;
            line
        });
        drop(read_ahead(source, 0));
        assert_eq!(is_dropped.recv().await, None);
    }
}
