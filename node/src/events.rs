//! What happened lately, as this node saw it: kept for those who ask later, and told to those who follow.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;
use vc_engine::events::between;
use vc_protocol::control::EventRow;

use crate::snapshot::Snapshot;

/// Events that are kept. Who follows and falls further behind than that misses some.
const KEPT: usize = 500;

/// The last events, numbered from the node's start.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    rows: VecDeque<EventRow>,
    /// How many there were before the first of them.
    before: u64,
}

impl Kept {
    fn add(&mut self, rows: Vec<EventRow>) {
        self.rows.extend(rows);
        let excess = self.rows.len().saturating_sub(KEPT);
        self.rows.drain(..excess);
        self.before += excess as u64;
    }

    /// The number of the one that comes next.
    fn next(&self) -> u64 {
        self.before + self.rows.len() as u64
    }
}

/// Reads the events, each once. A clone goes on by itself.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    kept: watch::Receiver<Kept>,
    /// The number of the first that was not read.
    next: u64,
}

impl Events {
    /// Where events are kept, and a reader who has read none.
    pub(crate) fn new() -> (watch::Sender<Kept>, Self) {
        let (kept, receiver) = watch::channel(Kept::default());
        (kept, Self { kept: receiver, next: 0 })
    }

    /// The events that were not read, oldest first; of more than `most` the last.
    pub(crate) fn take(&mut self, most: usize) -> Vec<EventRow> {
        let kept = self.kept.borrow_and_update();
        // Both ends are numbers of what is kept: the difference is small.
        let unread = kept.next() - self.next.max(kept.before);
        let unread = usize::try_from(unread).unwrap_or(usize::MAX).min(most);
        self.next = kept.next();
        kept.rows.iter().skip(kept.rows.len() - unread).cloned().collect()
    }

    /// Waits until there are more; `false`: there will be none.
    pub(crate) async fn more(&mut self) -> bool {
        self.kept.changed().await.is_ok()
    }
}

/// Keeps what happens, from now on, until the driver ends.
pub(crate) async fn follow(mut snapshot: watch::Receiver<Snapshot>, kept: watch::Sender<Kept>) {
    let mut view = Arc::clone(&snapshot.borrow_and_update().view);
    while snapshot.changed().await.is_ok() {
        let latest = Arc::clone(&snapshot.borrow_and_update().view);
        // What nodes use changes more often than what is.
        if Arc::ptr_eq(&view, &latest) {
            continue;
        }
        let happened = between(&view, &latest, crate::clock::now());
        view = latest;
        if !happened.is_empty() {
            kept.send_modify(|kept| kept.add(happened));
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
    async fn who_follows_gets_each_event_once() {
        let (kept, mut early) = Events::new();
        assert!(early.take(10).is_empty());
        kept.send_modify(|kept| kept.add(rows(0..3)));
        let mut late = early.clone();
        assert!(early.more().await);
        assert_eq!(early.take(10), rows(0..3));
        assert_eq!(late.take(2), rows(1..3), "the last, where more are not wanted");
        assert!(late.take(10).is_empty());
        kept.send_modify(|kept| kept.add(rows(3..4)));
        assert_eq!((early.take(10), late.take(10)), (rows(3..4), rows(3..4)));
        drop(kept);
        assert!(!early.more().await);
    }

    #[test]
    fn the_last_ones_are_kept_and_who_is_slow_misses_the_others() {
        let (kept, mut reader) = Events::new();
        kept.send_modify(|kept| kept.add(rows(0..1)));
        assert_eq!(reader.take(10), rows(0..1));
        kept.send_modify(|kept| kept.add(rows(1..KEPT)));
        kept.send_modify(|kept| kept.add(rows(KEPT..2 * KEPT)));
        assert_eq!(reader.take(usize::MAX), rows(KEPT..2 * KEPT));
        assert!(reader.take(usize::MAX).is_empty());
    }
}
