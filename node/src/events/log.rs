//! The events in memory.

use std::collections::VecDeque;

use tokio::sync::watch;
use vc_protocol::control::EventRow;

/// Events that are kept. A reader that falls further behind misses the oldest.
pub(super) const MAX_EVENTS: usize = 10_000;

/// The latest events, numbered from the start of the node.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    rows: VecDeque<EventRow>,
    /// Number of the next event.
    next: u64,
}

impl EventLog {
    /// Appends events, and drops the oldest over [`MAX_EVENTS`].
    pub(super) fn append(&mut self, rows: Vec<EventRow>) {
        self.next += rows.len() as u64;
        self.rows.extend(rows);
        let excess = self.rows.len().saturating_sub(MAX_EVENTS);
        self.rows.drain(..excess);
    }

    /// Replaces all events. Readers do not read them again.
    pub(super) fn replace(&mut self, rows: Vec<EventRow>) {
        self.rows = rows.into();
        let excess = self.rows.len().saturating_sub(MAX_EVENTS);
        self.rows.drain(..excess);
    }

    /// Returns the events, oldest first.
    pub(super) fn rows(&self) -> Vec<EventRow> {
        self.rows.iter().cloned().collect()
    }
}

/// Reads each event once. A clone continues at the same position on its own.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    log: watch::Receiver<EventLog>,
    /// Number of the first unread event; `None` before the first reading: all that are there are unread.
    next: Option<u64>,
}

impl Events {
    /// Returns an empty log and a reader of it.
    pub(crate) fn new() -> (watch::Sender<EventLog>, Self) {
        let (log, receiver) = watch::channel(EventLog::default());
        (log, Self { log: receiver, next: None })
    }

    /// Returns the unread events, oldest first, and marks all as read. Of more than `limit` the latest are returned.
    pub(crate) fn take(&mut self, limit: usize) -> Vec<EventRow> {
        let log = self.log.borrow_and_update();
        let all = log.rows.len();
        let unread = self.next.map_or(all, |next| {
            usize::try_from(log.next.saturating_sub(next)).unwrap_or(usize::MAX).min(all)
        });
        self.next = Some(log.next);
        log.rows.iter().skip(all - unread.min(limit)).cloned().collect()
    }

    /// Waits for another event. Returns `false` when there will be none.
    pub(crate) async fn changed(&mut self) -> bool {
        self.log.changed().await.is_ok()
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

    #[test]
    fn replaced_events_are_not_read_again() {
        let (log, mut reader) = Events::new();
        log.send_modify(|log| log.append(rows(2..4)));
        assert_eq!(reader.take(10), rows(2..4));
        log.send_modify(|log| log.replace(rows(0..4)));
        assert!(reader.take(10).is_empty());
        log.send_modify(|log| log.append(rows(4..5)));
        assert_eq!(reader.take(10), rows(4..5));
        let (_, fresh) = Events::new();
        let mut fresh = Events { log: log.subscribe(), ..fresh };
        assert_eq!(fresh.take(10), rows(0..5));
    }
}
