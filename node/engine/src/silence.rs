//! Reports for how long silent nodes have been silent, for the services that let a node be down for a while before its slots go
//! elsewhere (`lost_after`).

use std::collections::BTreeMap;

use vc_crdt::{NodeState, Silence, View};
use vc_placement::{lost_after, volume_spec};
use vc_protocol::{Millis, NodeId};

use crate::failure_detector::FailureDetector;

/// The silence of a node that this one accuses.
struct Silent {
    incarnation: u64,
    /// Since when, by the monotonic clock.
    since: Millis,
    /// What this node has reported before it was started again: it counts on from there.
    before: Millis,
}

/// The silent nodes.
#[derive(Default)]
pub(crate) struct SilenceReports {
    nodes: BTreeMap<NodeId, Silent>,
}

impl SilenceReports {
    /// Updates in `own` for how long the nodes that it accuses have been silent, where a time has passed that a service asks for
    /// of which the node has slots. Returns whether that is news.
    pub(crate) fn update(
        &mut self,
        view: &View,
        detector: &FailureDetector,
        own: &mut NodeState,
        now: Millis,
    ) -> bool {
        let accused: BTreeMap<NodeId, u64> = own
            .unreachable
            .iter()
            .filter(|(node, of)| view.nodes.get(node).is_some_and(|it| **of >= it.incarnation))
            .map(|(&node, &of)| (node, of))
            .collect();
        let before = own.silent.len();
        own.silent.retain(|node, it| accused.get(node) == Some(&it.incarnation));
        self.nodes.retain(|node, it| accused.get(node) == Some(&it.incarnation));
        let mut is_news = own.silent.len() != before;
        if !view.rules.disconnect {
            return is_news;
        }
        for (node, incarnation) in accused {
            let reported = own.silent.get(&node).map_or(0, |it| it.ms);
            let silent = self.nodes.entry(node).or_insert_with(|| Silent {
                incarnation,
                since: now.saturating_sub(detector.silence(node, now).unwrap_or(0)),
                before: reported,
            });
            let elapsed = silent.before.saturating_add(now.saturating_sub(silent.since));
            let passed = asked_for(view, node).filter(|&time| time <= elapsed).max();
            if let Some(ms) = passed.filter(|&ms| ms > reported) {
                own.silent.insert(node, Silence { incarnation, ms });
                is_news = true;
            }
        }
        is_news
    }

    /// Shifts the start of all silences by the time that this node was late: it may have been suspended.
    pub(crate) fn was_late(&mut self, by: Millis, now: Millis) {
        for silent in self.nodes.values_mut() {
            silent.since = silent.since.saturating_add(by).min(now);
        }
    }
}

/// Returns the times for which the services of a node's slots let it be down, and its copies of volumes.
fn asked_for(view: &View, node: NodeId) -> impl Iterator<Item = Millis> {
    let volumes = view.nodes.get(&node).into_iter().flat_map(|state| state.volumes.keys());
    let of_copies = volumes
        .filter(|_| view.rules.copies)
        .map(|volume| lost_after(&volume_spec(&view.input, volume), view.rules));
    let claims = view.nodes.get(&node).into_iter().flat_map(|state| state.claims.keys());
    let specs = claims.filter_map(|id| view.spec(&id.slot.service));
    specs.map(|spec| spec.disconnect.lost_after_ms).filter(|&time| time > 0).chain(of_copies)
}
