//! Merges the log lines of many instances into the order in which they were written.
//!
//! A k-way merge: each source gives its lines in order, so the earliest of their first lines is the next of all as soon as
//! every source has a line or has ended. That suffices for history. When lines are followed, most sources are silent most of
//! the time, and whether a line is in flight is unknown. A source without a line is then waited for, for at most [`WINDOW`]
//! after the waiting line arrived or after the source was first found silent, whichever is later. So lines that several nodes
//! wrote within the window come in order, and a silent source delays the others by no more than that.
//!
//! Nodes' clocks differ. A line that arrives live has just been written, so its time is clamped to the window before its
//! arrival.

use std::collections::{BTreeMap, VecDeque};

use vc_protocol::Millis;

/// Time in milliseconds that a line waits for earlier ones of other sources.
pub(super) const WINDOW: Millis = 150;
/// Time in milliseconds that others wait for the first line of a source that was just opened.
pub(super) const OPEN_WINDOW: Millis = 500;
/// Lines of one source that may wait.
const MAX_LINES: usize = 256;
/// Bytes of all lines that may wait, not counting the first line of each source.
const MAX_BYTES: usize = 4 << 20;

/// Merges lines of many sources.
pub(super) struct Merge<T> {
    follow: bool,
    sources: BTreeMap<usize, Source<T>>,
    bytes: usize,
}

struct Source<T> {
    /// Orders lines of the same time: the smallest comes first.
    rank: u32,
    lines: VecDeque<Line<T>>,
    ended: bool,
    /// Whether any line has arrived.
    has_lines: bool,
    /// Whether its history has been read: lines that arrive from now on have just been written.
    live: bool,
    /// Since when it is known to be silent.
    silent: Option<Millis>,
}

struct Line<T> {
    time: Millis,
    arrived: Millis,
    bytes: usize,
    item: T,
}

impl<T> Merge<T> {
    /// Returns a merge without sources. With `follow` it waits for silent sources no longer than the windows above, else until
    /// each has a line or has ended.
    pub(super) fn new(follow: bool) -> Self {
        Self { follow, sources: BTreeMap::new(), bytes: 0 }
    }

    /// Adds a source, or continues one that had ended, after its lines that still wait.
    pub(super) fn open(&mut self, id: usize, rank: u32) {
        let lines = self.sources.remove(&id).map(|source| source.lines).unwrap_or_default();
        let source =
            Source { rank, lines, ended: false, has_lines: false, live: false, silent: None };
        self.sources.insert(id, source);
    }

    /// Returns whether there is room for another line of a source.
    pub(super) fn has_room(&self, id: usize) -> bool {
        self.sources.get(&id).is_some_and(|source| {
            source.lines.is_empty() || (source.lines.len() < MAX_LINES && self.bytes < MAX_BYTES)
        })
    }

    /// Returns whether a source that had no room is to be read again: not for one line, but for half of its room.
    pub(super) fn wants_lines(&self, id: usize) -> bool {
        let waiting = self.sources.get(&id).map_or(0, |source| source.lines.len());
        waiting <= MAX_LINES / 2 && self.has_room(id)
    }

    /// Adds the next line of a source. `time` is when it was written, if that is known; `bytes` is its size in memory.
    pub(super) fn push(
        &mut self,
        id: usize,
        time: Option<Millis>,
        bytes: usize,
        item: T,
        now: Millis,
    ) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        let time = match time {
            Some(time) if source.live => time.clamp(now.saturating_sub(WINDOW), now),
            None if source.live => now,
            time => time.unwrap_or(0),
        };
        source.has_lines = true;
        source.silent = None;
        source.lines.push_back(Line { time, arrived: now, bytes, item });
        self.bytes += bytes;
    }

    /// Ends a source. Its lines that wait are still released.
    pub(super) fn end(&mut self, id: usize) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.ended = true;
            if source.lines.is_empty() {
                self.sources.remove(&id);
            }
        }
    }

    /// Returns whether all sources have ended and all lines are released.
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Releases the next line with the number of its source, unless an earlier line may still arrive.
    pub(super) fn pop(&mut self, now: Millis) -> Option<(usize, T)> {
        let (id, due) = self.first()?;
        if due.is_none_or(|due| now < due) {
            return None;
        }
        let source = self.sources.get_mut(&id)?;
        let line = source.lines.pop_front()?;
        self.bytes = self.bytes.saturating_sub(line.bytes);
        if source.ended && source.lines.is_empty() {
            self.sources.remove(&id);
        }
        Some((id, line.item))
    }

    /// Records that sources without lines have none in flight to this node. Returns when to call [`pop`](Self::pop) again
    /// if nothing arrives; `None` when only an arrival can release a line.
    pub(super) fn mark_silent(&mut self, now: Millis) -> Option<Millis> {
        for source in self.sources.values_mut().filter(|source| source.lines.is_empty()) {
            let since = *source.silent.get_or_insert(now);
            source.live |= source.has_lines && now >= since + WINDOW;
        }
        self.first()?.1
    }

    /// Returns the source of the next line, and when that may be released; `None` for a time that depends on other sources.
    fn first(&self) -> Option<(usize, Option<Millis>)> {
        let heads = self.sources.iter().filter_map(|(&id, source)| {
            let line = source.lines.front()?;
            Some(((line.time, source.rank, id), line.arrived, source.lines.len()))
        });
        let ((_, _, id), arrived, waiting) = heads.min_by_key(|(key, ..)| *key)?;
        // Without room nothing more can arrive, so waiting longer for other sources would not help.
        let full = waiting >= MAX_LINES || self.bytes >= MAX_BYTES;
        let mut due = Some(0);
        for source in self.sources.values().filter(|source| source.lines.is_empty()) {
            let window = if source.has_lines { WINDOW } else { OPEN_WINDOW };
            let until = source.silent.filter(|_| self.follow).map(|since| {
                let silent = since + window;
                if full { silent } else { silent.max(arrived + WINDOW) }
            });
            due = due.zip(until).map(|(due, until)| due.max(until));
        }
        Some((id, due))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(merge: &mut Merge<&'static str>, now: Millis) -> Vec<&'static str> {
        std::iter::from_fn(|| merge.pop(now).map(|(_, line)| line)).collect()
    }

    fn open(merge: &mut Merge<&'static str>, ids: &[usize]) {
        for &id in ids {
            merge.open(id, u32::try_from(id).expect("small"));
        }
    }

    /// Returns a merge of two sources that are open, silent and known to be live.
    fn live() -> Merge<&'static str> {
        let mut merge = Merge::new(true);
        open(&mut merge, &[1, 2]);
        for id in [1, 2] {
            merge.push(id, Some(0), 1, "old", 0);
        }
        assert_eq!(drain(&mut merge, 0), ["old"], "the other may have more of the same time");
        merge.mark_silent(0);
        assert_eq!(drain(&mut merge, WINDOW), ["old"]);
        merge.mark_silent(WINDOW);
        merge.mark_silent(10_000);
        merge
    }

    #[test]
    fn history_waits_for_sources_without_lines() {
        let mut merge = Merge::new(false);
        open(&mut merge, &[1, 2]);
        merge.push(1, Some(5), 1, "b", 0);
        assert_eq!(merge.mark_silent(1_000_000), None);
        assert!(drain(&mut merge, 1_000_000).is_empty());
        merge.push(2, Some(4), 1, "a", 0);
        assert_eq!(drain(&mut merge, 0), ["a"]);
        merge.end(2);
        assert_eq!(drain(&mut merge, 0), ["b"]);
        merge.end(1);
        assert!(merge.is_empty());
    }

    #[test]
    fn lines_that_arrive_out_of_order_are_sorted_within_the_window() {
        let mut merge = live();
        merge.push(1, Some(9_990), 1, "later", 10_000);
        assert_eq!(merge.mark_silent(10_000), Some(10_000 + WINDOW));
        assert!(drain(&mut merge, 10_000 + WINDOW - 1).is_empty());
        merge.push(2, Some(9_980), 1, "earlier", 10_100);
        assert_eq!(drain(&mut merge, 10_100), ["earlier"]);
        assert_eq!(merge.mark_silent(10_100), Some(10_100 + WINDOW), "it may have more of them");
        assert_eq!(drain(&mut merge, 10_100 + WINDOW), ["later"]);
    }

    #[test]
    fn a_silent_source_delays_a_flood_only_once() {
        let mut merge = live();
        let mut given = 0;
        for _ in 0..100 {
            while merge.has_room(1) {
                merge.push(1, Some(10_000), 1, "line", 10_000);
            }
            merge.mark_silent(10_000);
            given += drain(&mut merge, 10_000).len();
        }
        assert!(given >= 100, "{given}");
    }

    #[test]
    fn a_wrong_clock_does_not_delay_other_sources() {
        for wrong in [1, 1_000_000] {
            let mut merge = live();
            for n in 0..10 {
                let now = 10_000 + n * 10;
                merge.push(2, Some(wrong), 1, "wrong clock", now);
                merge.push(1, Some(now), 1, "line", now);
                merge.mark_silent(now);
                drain(&mut merge, now);
            }
            // Only the source with the wrong clock goes on.
            let mut given = Vec::new();
            for n in 10..40 {
                let now = 10_000 + n * 10;
                merge.push(2, Some(wrong), 1, "wrong clock", now);
                merge.mark_silent(now);
                given.extend(drain(&mut merge, now));
            }
            let lines = merge.sources[&1].lines.len();
            assert_eq!(lines, 0, "{wrong}: {given:?}");
        }
    }

    #[test]
    fn waiting_lines_are_bounded() {
        let mut merge = Merge::new(false);
        open(&mut merge, &[1, 2, 3]);
        let mut pushed = 0;
        while merge.has_room(1) {
            merge.push(1, Some(1), 64 << 10, "x", 0);
            pushed += 1;
        }
        assert!(pushed <= MAX_BYTES >> 16, "{pushed}");
        // Every other source may have one line, or the merge would deadlock.
        assert!(merge.has_room(2));
        merge.push(2, Some(1), 1, "x", 0);
        assert!(!merge.has_room(2) && merge.has_room(3));
    }

    proptest! {
        /// In any order of arrival, history is sorted by time, then rank, and complete.
        #[test]
        fn history_is_sorted_and_complete(
            mut sources in prop::collection::vec(prop::collection::vec(0_u64..20, 0..30), 1..6),
            picks in prop::collection::vec(0_usize..6, 0..400),
        ) {
            let mut merge = Merge::new(false);
            for (id, times) in sources.iter_mut().enumerate() {
                times.sort_unstable();
                merge.open(id, u32::try_from(id).expect("small"));
            }
            let mut expected: Vec<(u64, usize, usize)> = Vec::new();
            for (id, times) in sources.iter().enumerate() {
                expected.extend(times.iter().enumerate().map(|(at, &time)| (time, id, at)));
            }
            expected.sort_unstable();
            let mut next = vec![0; sources.len()];
            let mut given = Vec::new();
            let rest = (0..sources.len()).flat_map(|id| vec![id; 31]);
            for id in picks.into_iter().filter(|&id| id < sources.len()).chain(rest.clone()).chain(rest) {
                let at = next[id];
                match sources[id].get(at) {
                    Some(&time) if merge.has_room(id) => {
                        merge.push(id, Some(time), 1, (time, id, at), 0);
                        next[id] += 1;
                    }
                    Some(_) => {}
                    None => merge.end(id),
                }
                while let Some((_, line)) = merge.pop(0) {
                    given.push(line);
                }
            }
            prop_assert!(merge.is_empty());
            prop_assert_eq!(given, expected);
        }

        /// Every followed line is released once, in the order of its source.
        #[test]
        fn followed_lines_are_all_released_in_source_order(
            lines in prop::collection::vec((0_usize..4, 0_u64..3_000, 0_u64..400), 0..200),
        ) {
            let mut merge = Merge::new(true);
            for id in 0..4 {
                merge.open(id, 0);
            }
            let (mut now, mut given, mut pushed) = (1_000, vec![0; 4], vec![0; 4]);
            for (id, time, pause) in lines {
                now += pause;
                if merge.has_room(id) {
                    merge.push(id, Some(time), 1, pushed[id], now);
                    pushed[id] += 1;
                }
                merge.mark_silent(now);
                while let Some((id, line)) = merge.pop(now) {
                    prop_assert_eq!(line, given[id]);
                    given[id] += 1;
                }
            }
            while let Some(due) = merge.mark_silent(now) {
                now = now.max(due);
                while let Some((id, line)) = merge.pop(now) {
                    prop_assert_eq!(line, given[id]);
                    given[id] += 1;
                }
            }
            prop_assert_eq!(given, pushed);
        }
    }
}
