//! Events of schedules: the times at which nothing runs.

use vc_crdt::View;
use vc_protocol::run::Skipped;

use super::Events;
use crate::job_report::overlap_reason;

/// Says which times of schedules were missed or skipped. What runs has the events of its instance.
pub(super) fn runs(before: &View, after: &View, events: &mut Events) {
    let services = after.cluster.services.iter().filter(|(_, it)| it.spec.schedule.is_some());
    for (key, _) in services.filter(|(key, _)| before.cluster.services.contains_key(key)) {
        for (slot, due) in after.runs.due(key) {
            let held = before.runs.due_at(slot);
            let missed = due.missed.saturating_sub(held.map_or(0, |held| held.missed));
            if missed > 0 {
                let times =
                    if missed == 1 { "1 time".to_owned() } else { format!("{missed} times") };
                events.warning(
                    slot,
                    format!("{times} before it passed while no node could begin a run"),
                );
            }
            // What one node skips another may have begun.
            let has_begun = after.runs.get(slot).is_some();
            if has_begun || held.and_then(|held| held.skipped) == due.skipped {
                continue;
            }
            match due.skipped {
                Some(Skipped::Missed) => {
                    events.warning(slot, "missed: its time had passed when a node could begin it");
                }
                Some(Skipped::Overlap) => {
                    events.warning(slot, format!("skipped: {}", overlap_reason(after, key)));
                }
                // A person did that, as the audit log says.
                Some(Skipped::Stopped) | None => {}
            }
        }
    }
}
