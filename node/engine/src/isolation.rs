//! Whether this node reaches most of the servers: services may ask to be stopped on one that does not
//! (`stop_on_client_after`).

use std::collections::BTreeSet;

use vc_crdt::View;
use vc_protocol::spec::ServiceSpec;
use vc_protocol::{Millis, NodeId, in_words};

use crate::failure_detector::FailureDetector;

/// What this node knows of its isolation, in steps that services ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Isolation {
    /// The longest of these times for which it has not reached most of the servers.
    passed: Option<Millis>,
    /// Whether it has reached most of them since it started.
    has_reached: bool,
}

impl Isolation {
    /// Returns the isolation of `node` now.
    pub(crate) fn of(node: NodeId, view: &View, detector: &FailureDetector, now: Millis) -> Self {
        let servers = view.servers.iter().filter(|id| view.nodes.contains_key(id));
        let heard = |&id: &NodeId| if id == node { Some(0) } else { detector.heard(id, now) };
        let mut silences: Vec<Option<Millis>> = servers.map(heard).collect();
        // Those that were not heard of since the start come last.
        silences.sort_by_key(|silence| silence.unwrap_or(Millis::MAX));
        // That of the last server of the nearest majority.
        let Some(&silence) = silences.get(silences.len() / 2) else {
            return Self { passed: None, has_reached: true };
        };
        let silence_since_start = silence.unwrap_or_else(|| detector.watched_for(now));
        let limits: BTreeSet<Millis> =
            view.input.services.values().filter_map(|it| limit(&it.spec)).collect();
        Self {
            passed: limits.range(..=silence_since_start).next_back().copied(),
            has_reached: silence.is_some(),
        }
    }

    /// Returns why the instances of a service are stopped here; `None` if they are not.
    pub(crate) fn stops(self, spec: &ServiceSpec) -> Option<String> {
        let limit = limit(spec).filter(|&limit| self.passed >= Some(limit))?;
        let time = in_words(limit);
        Some(format!("stopped: most servers were not reached for {time} (stop_on_client_after)"))
    }

    /// Returns what an instance of a service waits for before it starts here; `None` if nothing.
    pub(crate) fn waits_for(self, spec: &ServiceSpec) -> Option<String> {
        let waits = limit(spec).is_some() && !self.has_reached;
        waits.then(|| "waits for most servers to be reached (stop_on_client_after)".to_owned())
    }
}

fn limit(spec: &ServiceSpec) -> Option<Millis> {
    spec.disconnect.stop_on_client_after_ms.filter(|_| !spec.is_exclusive())
}
