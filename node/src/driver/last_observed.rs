//! The instances that the runtime reported last.

use std::collections::BTreeMap;

use vc_engine::runtime::{InstanceId, Observed, Phase, RuntimeEvent};
use vc_protocol::NodeId;
use vc_protocol::node::Orphans;

/// The runtime's latest state, replayed to an engine that is rebuilt.
#[derive(Default)]
pub(super) struct LastObserved {
    instances: BTreeMap<InstanceId, Observed>,
    /// Why the runtime is unavailable, or `Some(None)` if it is available; `None` before its first report.
    unavailable: Option<Option<RuntimeEvent>>,
    orphans: BTreeMap<NodeId, Orphans>,
}

impl LastObserved {
    pub(super) fn update(&mut self, event: &RuntimeEvent) {
        match event {
            RuntimeEvent::Listed(all) => {
                self.instances = all.iter().map(|seen| (seen.id.clone(), seen.clone())).collect();
                self.unavailable = Some(None);
            }
            RuntimeEvent::Changed(seen) if seen.phase == Phase::Gone => {
                self.instances.remove(&seen.id);
            }
            RuntimeEvent::Changed(seen) => {
                self.instances.insert(seen.id.clone(), seen.clone());
            }
            RuntimeEvent::Orphans(orphans) => self.orphans.clone_from(orphans),
            RuntimeEvent::Unavailable(_) | RuntimeEvent::Hung(_) => {
                self.unavailable = Some(Some(event.clone()));
            }
        }
    }

    pub(super) fn last(&self) -> impl Iterator<Item = RuntimeEvent> {
        let listed = || RuntimeEvent::Listed(self.instances.values().cloned().collect());
        let state = match &self.unavailable {
            None => Vec::new(),
            Some(None) => vec![listed()],
            // What it ran before it hung counts.
            Some(Some(hung @ RuntimeEvent::Hung(_))) => vec![listed(), hung.clone()],
            Some(Some(unavailable)) => vec![unavailable.clone()],
        };
        let orphans = (!state.is_empty()).then(|| RuntimeEvent::Orphans(self.orphans.clone()));
        state.into_iter().chain(orphans)
    }
}
