//! The events of this node: the last ones are kept, and readers follow them.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;
use vc_engine::events::between;
use vc_protocol::control::EventRow;

use crate::snapshot::Snapshot;

/// Events that are kept. A reader that falls further behind misses the oldest.
const MAX_EVENTS: usize = 500;

/// The latest events, numbered from the start of the node.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    rows: VecDeque<EventRow>,
    /// Number of the first row, which is how many were dropped.
    first: u64,
}

impl EventLog {
    /// Appends events, and drops the oldest over [`MAX_EVENTS`].
    fn append(&mut self, rows: Vec<EventRow>) {
        self.rows.extend(rows);
        let excess = self.rows.len().saturating_sub(MAX_EVENTS);
        self.rows.drain(..excess);
        self.first += excess as u64;
    }

    /// Returns the number of the next event.
    fn next(&self) -> u64 {
        self.first + self.rows.len() as u64
    }
}

/// Reads each event once. A clone continues at the same position on its own.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    log: watch::Receiver<EventLog>,
    /// Number of the first unread event.
    next: u64,
}

impl Events {
    /// Returns an empty log and a reader of it.
    pub(crate) fn new() -> (watch::Sender<EventLog>, Self) {
        let (log, receiver) = watch::channel(EventLog::default());
        (log, Self { log: receiver, next: 0 })
    }

    /// Returns the unread events, oldest first, and marks all as read. Of more than `limit` the latest are returned.
    pub(crate) fn take(&mut self, limit: usize) -> Vec<EventRow> {
        let log = self.log.borrow_and_update();
        // Bounded by MAX_EVENTS, as both numbers are those of rows in the log.
        let unread = log.next() - self.next.max(log.first);
        let unread = usize::try_from(unread).unwrap_or(usize::MAX).min(limit);
        self.next = log.next();
        log.rows.iter().skip(log.rows.len() - unread).cloned().collect()
    }

    /// Waits for another event. Returns `false` when there will be none.
    pub(crate) async fn changed(&mut self) -> bool {
        self.log.changed().await.is_ok()
    }
}

/// Appends the differences between successive views to the log, until the driver ends.
pub(crate) async fn record(mut snapshot: watch::Receiver<Snapshot>, log: watch::Sender<EventLog>) {
    let mut view = Arc::clone(&snapshot.borrow_and_update().view);
    while snapshot.changed().await.is_ok() {
        let latest = Arc::clone(&snapshot.borrow_and_update().view);
        // Most snapshots differ in resource usage alone.
        if Arc::ptr_eq(&view, &latest) {
            continue;
        }
        let rows = between(&view, &latest, crate::clock::now());
        view = latest;
        if !rows.is_empty() {
            log.send_modify(|log| log.append(rows));
        }
    }
}

#[cfg(test)]
mod tests {
    use vc_protocol::control::EventLevel;

    use super::*;

    fn rows(numbers: std::ops::Range<usize>) -> Vec<EventRow> {
        let row = |n: usize| EventRow {
            time: 0,
            level: EventLevel::Info,
            subject: "n1".to_owned(),
            text: n.to_string(),
        };
        numbers.map(row).collect()
    }

    #[tokio::test]
    async fn a_reader_gets_each_event_once() {
        let (log, mut early) = Events::new();
        assert!(early.take(10).is_empty());
        log.send_modify(|log| log.append(rows(0..3)));
        let mut late = early.clone();
        assert!(early.changed().await);
        assert_eq!(early.take(10), rows(0..3));
        assert_eq!(late.take(2), rows(1..3), "the latest within the limit");
        assert!(late.take(10).is_empty());
        log.send_modify(|log| log.append(rows(3..4)));
        assert_eq!((early.take(10), late.take(10)), (rows(3..4), rows(3..4)));
        drop(log);
        assert!(!early.changed().await);
    }

    #[test]
    fn the_latest_events_are_kept_and_a_slow_reader_misses_the_others() {
        let (log, mut reader) = Events::new();
        log.send_modify(|log| log.append(rows(0..1)));
        assert_eq!(reader.take(10), rows(0..1));
        log.send_modify(|log| log.append(rows(1..MAX_EVENTS)));
        log.send_modify(|log| log.append(rows(MAX_EVENTS..2 * MAX_EVENTS)));
        assert_eq!(reader.take(usize::MAX), rows(MAX_EVENTS..2 * MAX_EVENTS));
        assert!(reader.take(usize::MAX).is_empty());
    }
}
