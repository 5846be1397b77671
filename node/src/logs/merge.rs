//! Lines of many instances in the order in which they were written.
//!
//! Each source gives its lines in order, so the earliest of their first lines is the next one of all, as soon as every
//! source has a first line or has ended. That is all there is to history. When lines are followed, most sources are
//! silent most of the time, and nobody knows what is on its way: then a source without a line is waited for, but not
//! longer than [`WINDOW`], counted from the arrival of the line that waits, or from when it was first found silent,
//! whichever is later. So lines that several nodes wrote at about the same time come in order, and who is silent
//! holds nobody up for longer.
//!
//! Nodes' clocks differ. A line that comes live has been written just now, whatever it says: its time counts only
//! within the window before its arrival.

use std::collections::{BTreeMap, VecDeque};

use vc_protocol::Millis;

/// So long a line waits for earlier ones of other nodes.
pub(super) const WINDOW: Millis = 150;
/// A source that was just opened is waited for so long.
pub(super) const OPENING: Millis = 500;
/// Lines of a source that may wait.
const MAX_LINES: usize = 256;
/// Bytes of all lines that wait, but for the first of each source.
const MAX_BYTES: usize = 4 << 20;

/// Lines of many sources on their way into one order.
pub(super) struct Merge<T> {
    follow: bool,
    sources: BTreeMap<usize, Source<T>>,
    bytes: usize,
}

struct Source<T> {
    /// Of lines of the same time that of the smallest rank comes first.
    rank: u32,
    lines: VecDeque<Line<T>>,
    ended: bool,
    /// Whether it has said anything yet.
    spoke: bool,
    /// Whether it has given all that was there: what comes now is being written now.
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
    /// Of nothing yet.
    pub(super) fn new(follow: bool) -> Self {
        Self { follow, sources: BTreeMap::new(), bytes: 0 }
    }

    /// Adds a source, or goes on with one that had ended: what still waits of it comes first.
    pub(super) fn open(&mut self, id: usize, rank: u32) {
        let lines = self.sources.remove(&id).map(|source| source.lines).unwrap_or_default();
        let source = Source { rank, lines, ended: false, spoke: false, live: false, silent: None };
        self.sources.insert(id, source);
    }

    /// Whether there is room for more of a source.
    pub(super) fn takes(&self, id: usize) -> bool {
        self.sources.get(&id).is_some_and(|source| {
            source.lines.is_empty() || (source.lines.len() < MAX_LINES && self.bytes < MAX_BYTES)
        })
    }

    /// Takes the next line of a source. `time`: when it was written, if that is known.
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
        source.spoke = true;
        source.silent = None;
        source.lines.push_back(Line { time, arrived: now, bytes, item });
        self.bytes += bytes;
    }

    /// No more comes from a source. What waits is still given.
    pub(super) fn end(&mut self, id: usize) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.ended = true;
            if source.lines.is_empty() {
                self.sources.remove(&id);
            }
        }
    }

    /// Whether all sources have ended, and all lines are given.
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The next line, unless an earlier one may still come; and of which source it is.
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

    /// All sources were asked, and those without lines have none at this moment. Says when to [`pop`](Self::pop) again
    /// though nothing comes; `None`: never.
    pub(super) fn found_silent(&mut self, now: Millis) -> Option<Millis> {
        for source in self.sources.values_mut().filter(|source| source.lines.is_empty()) {
            let since = *source.silent.get_or_insert(now);
            source.live |= source.spoke && now >= since + WINDOW;
        }
        self.first()?.1
    }

    /// The source whose line is next, and from when on; `None`: not before the others have spoken.
    fn first(&self) -> Option<(usize, Option<Millis>)> {
        let heads = self.sources.iter().filter_map(|(&id, source)| {
            let line = source.lines.front()?;
            Some(((line.time, source.rank, id), line.arrived, source.lines.len()))
        });
        let ((_, _, id), arrived, waiting) = heads.min_by_key(|(key, ..)| *key)?;
        // There is no room for more: what it has to say must not wait for its own sake.
        let full = waiting >= MAX_LINES || self.bytes >= MAX_BYTES;
        let mut due = Some(0);
        for source in self.sources.values().filter(|source| source.lines.is_empty()) {
            let patience = if source.spoke { WINDOW } else { OPENING };
            let until = source.silent.filter(|_| self.follow).map(|since| {
                let silent = since + patience;
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

    /// Both sources are open, silent and known to be live.
    fn live() -> Merge<&'static str> {
        let mut merge = Merge::new(true);
        open(&mut merge, &[1, 2]);
        for id in [1, 2] {
            merge.push(id, Some(0), 1, "old", 0);
        }
        assert_eq!(drain(&mut merge, 0), ["old"], "the other may have more of the same time");
        merge.found_silent(0);
        assert_eq!(drain(&mut merge, WINDOW), ["old"]);
        merge.found_silent(WINDOW);
        merge.found_silent(10_000);
        merge
    }

    #[test]
    fn history_waits_for_who_has_said_nothing_yet() {
        let mut merge = Merge::new(false);
        open(&mut merge, &[1, 2]);
        merge.push(1, Some(5), 1, "b", 0);
        assert_eq!(merge.found_silent(1_000_000), None);
        assert!(drain(&mut merge, 1_000_000).is_empty());
        merge.push(2, Some(4), 1, "a", 0);
        assert_eq!(drain(&mut merge, 0), ["a"]);
        merge.end(2);
        assert_eq!(drain(&mut merge, 0), ["b"]);
        merge.end(1);
        assert!(merge.is_empty());
    }

    #[test]
    fn lines_that_cross_on_their_way_come_in_order() {
        let mut merge = live();
        merge.push(1, Some(9_990), 1, "later", 10_000);
        assert_eq!(merge.found_silent(10_000), Some(10_000 + WINDOW));
        assert!(drain(&mut merge, 10_000 + WINDOW - 1).is_empty());
        merge.push(2, Some(9_980), 1, "earlier", 10_100);
        assert_eq!(drain(&mut merge, 10_100), ["earlier"]);
        assert_eq!(merge.found_silent(10_100), Some(10_100 + WINDOW), "it may have more of them");
        assert_eq!(drain(&mut merge, 10_100 + WINDOW), ["later"]);
    }

    #[test]
    fn who_is_silent_holds_up_a_flood_no_more_than_once() {
        let mut merge = live();
        let mut given = 0;
        for _ in 0..100 {
            while merge.takes(1) {
                merge.push(1, Some(10_000), 1, "line", 10_000);
            }
            merge.found_silent(10_000);
            given += drain(&mut merge, 10_000).len();
        }
        assert!(given >= 100, "{given}");
    }

    #[test]
    fn a_clock_that_is_behind_or_ahead_does_not_hold_up_the_others() {
        for wrong in [1, 1_000_000] {
            let mut merge = live();
            for n in 0..10 {
                let now = 10_000 + n * 10;
                merge.push(2, Some(wrong), 1, "of the wrong clock", now);
                merge.push(1, Some(now), 1, "line", now);
                merge.found_silent(now);
                drain(&mut merge, now);
            }
            // The wrong clock talks on, the other has said all.
            let mut given = Vec::new();
            for n in 10..40 {
                let now = 10_000 + n * 10;
                merge.push(2, Some(wrong), 1, "of the wrong clock", now);
                merge.found_silent(now);
                given.extend(drain(&mut merge, now));
            }
            let lines = merge.sources[&1].lines.len();
            assert_eq!(lines, 0, "{wrong}: {given:?}");
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut merge = Merge::new(false);
        open(&mut merge, &[1, 2, 3]);
        let mut pushed = 0;
        while merge.takes(1) {
            merge.push(1, Some(1), 64 << 10, "x", 0);
            pushed += 1;
        }
        assert!(pushed <= MAX_BYTES >> 16, "{pushed}");
        // One of each other passes, or the merge would stand.
        assert!(merge.takes(2));
        merge.push(2, Some(1), 1, "x", 0);
        assert!(!merge.takes(2) && merge.takes(3));
    }

    proptest! {
        /// Whatever comes when: history is in order, of each source whole, and of equal times the smaller rank is first.
        #[test]
        fn history_comes_sorted_and_whole(
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
                    Some(&time) if merge.takes(id) => {
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

        /// Followed, every line comes, once, in the order of its source.
        #[test]
        fn nothing_is_lost_when_lines_are_followed(
            lines in prop::collection::vec((0_usize..4, 0_u64..3_000, 0_u64..400), 0..200),
        ) {
            let mut merge = Merge::new(true);
            for id in 0..4 {
                merge.open(id, 0);
            }
            let (mut now, mut given, mut pushed) = (1_000, vec![0; 4], vec![0; 4]);
            for (id, time, pause) in lines {
                now += pause;
                if merge.takes(id) {
                    merge.push(id, Some(time), 1, pushed[id], now);
                    pushed[id] += 1;
                }
                merge.found_silent(now);
                while let Some((id, line)) = merge.pop(now) {
                    prop_assert_eq!(line, given[id]);
                    given[id] += 1;
                }
            }
            while let Some(due) = merge.found_silent(now) {
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
