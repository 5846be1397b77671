//! Which snapshots stay.

use std::collections::BTreeSet;

use vc_protocol::Millis;
use vc_protocol::volume::{Keep, SnapshotId};

const HOUR: Millis = 3_600_000;
const DAY: Millis = 24 * HOUR;

/// Returns the snapshots that the rule does not keep, of `snapshots` with the times at which they were taken. The newest one
/// stays whatever the rule says, then the last `keep.last`, and the newest of each of the last `keep.hourly` hours and
/// `keep.daily` days (of Unix time) that have any, up to `now`.
pub fn prunable(snapshots: &[(SnapshotId, Millis)], keep: &Keep, now: Millis) -> Vec<SnapshotId> {
    let mut newest_first = snapshots.to_vec();
    newest_first.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(*id));
    let mut stay = BTreeSet::new();
    stay.extend(newest_first.iter().take(keep.last.max(1) as usize).map(|(id, _)| *id));
    for (period, count) in [(HOUR, keep.hourly), (DAY, keep.daily)] {
        let mut seen = BTreeSet::new();
        for (id, taken) in &newest_first {
            // A clock that was ahead for a while does not make a snapshot immortal: it counts for the present period.
            let number = (*taken).min(now) / period;
            let age = now / period - number;
            if age < Millis::from(count) && seen.insert(number) {
                stay.insert(*id);
            }
        }
    }
    newest_first.into_iter().map(|(id, _)| id).filter(|id| !stay.contains(id)).rev().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u64) -> SnapshotId {
        SnapshotId { epoch: 1, number }
    }

    fn pruned(times: &[Millis], keep: Keep, now: Millis) -> Vec<u64> {
        let snapshots: Vec<_> = (1..).map(id).zip(times.iter().copied()).collect();
        prunable(&snapshots, &keep, now).into_iter().map(|id| id.number).collect()
    }

    #[test]
    fn the_rule_decides_as_in_the_table() {
        let now = 10 * DAY + 5 * HOUR + HOUR / 2;
        let (none, minute) = (Keep { last: 0, hourly: 0, daily: 0 }, 60_000);
        let cases: &[(&str, Vec<Millis>, Keep, Vec<u64>)] = &[
            ("nothing", vec![], none, vec![]),
            ("the newest stays always", vec![1, 2, now], none, vec![1, 2]),
            ("even where it is old", vec![1], none, vec![]),
            ("the last three", vec![1, 2, 3, 4, 5], Keep { last: 3, ..none }, vec![1, 2]),
            (
                "the newest of each of two hours",
                vec![
                    now - 2 * HOUR,
                    now - HOUR - 20 * minute,
                    now - HOUR - 10 * minute,
                    now - 20,
                    now - 10,
                ],
                Keep { hourly: 2, ..none },
                vec![1, 2, 4],
            ),
            (
                "the newest of each of three days, hours without any do not count",
                vec![now - 4 * DAY, now - 3 * DAY, now - 2 * DAY - 1000, now - 2 * DAY, now - HOUR],
                Keep { daily: 3, ..none },
                vec![1, 2, 3],
            ),
            (
                "a time in the future counts for the present hour",
                vec![now - 10, now + 5 * DAY, now - 5],
                Keep { hourly: 1, ..none },
                vec![1, 2],
            ),
        ];
        for (case, times, keep, expected) in cases {
            assert_eq!(&pruned(times, *keep, now), expected, "{case}");
        }
    }

    proptest! {
        #[test]
        fn what_the_rule_keeps_is_bounded_and_stable(
            mut times in proptest::collection::vec(0..20 * DAY, 0..200),
            last in 0..5_u32, hourly in 0..30_u32, daily in 0..10_u32, later in 0..2 * DAY,
        ) {
            times.sort_unstable();
            let keep = Keep { last, hourly, daily };
            let now = 20 * DAY;
            let snapshots: Vec<_> = (1..).map(id).zip(times.iter().copied()).collect();
            let gone = prunable(&snapshots, &keep, now);
            let left: Vec<_> = snapshots.iter().filter(|(id, _)| !gone.contains(id)).copied().collect();
            prop_assert!(left.len() <= (last.max(1) + hourly + daily) as usize);
            prop_assert_eq!(left.last(), snapshots.last());
            // What is left is left again, and what was dropped would not be kept later.
            prop_assert!(prunable(&left, &keep, now).is_empty());
            let then = prunable(&snapshots, &keep, now + later);
            prop_assert!(gone.iter().all(|id| then.contains(id)));
        }
    }
}
