//! What the driver counts and measures.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use vc_engine::Durable;
use vc_protocol::{InstanceId, Millis};

/// Bounds of the time that an input takes which changes the view, in seconds.
const PLACEMENTS: [f64; 9] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5];

/// What is counted. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DriverMetrics {
    changes: Counter,
    bytes: Counter,
    placements: Histogram,
    /// When the leases of the instances end that run under one.
    leases: Arc<Mutex<BTreeMap<InstanceId, Millis>>>,
}

impl DriverMetrics {
    pub(crate) fn new() -> Self {
        Self {
            changes: Counter::default(),
            bytes: Counter::default(),
            placements: Histogram::new(PLACEMENTS),
            leases: Arc::default(),
        }
    }

    /// Makes the counters part of what the node serves.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help =
            "Changes of documents that this node has written to its disk, its own and others'";
        registry.register("document_changes", help, self.changes.clone());
        let help = "Bytes of these changes, with their signatures";
        registry.register_with_unit("document_change", help, Unit::Bytes, self.bytes.clone());
        let help = "How long it took to take in a change of the documents: the view, the plan and what follows for this node";
        let placements = self.placements.clone();
        registry.register_with_unit("placement_duration", help, Unit::Seconds, placements);
    }

    /// Returns when the leases of instances end, by the monotonic clock; [`Millis::MAX`] for never.
    pub(crate) fn leases(&self) -> BTreeMap<InstanceId, Millis> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_leases(&self, deadlines: &BTreeMap<InstanceId, Millis>) {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).clone_from(deadlines);
    }

    pub(super) fn persisted(&self, durable: &Durable) {
        self.changes.inc_by(durable.changes.len() as u64);
        let bytes = durable.changes.iter().map(|change| change.encoded_len() as u64);
        self.bytes.inc_by(bytes.fold(0, u64::saturating_add));
    }

    pub(super) fn planned(&self, duration: Duration) {
        self.placements.observe(duration.as_secs_f64());
    }
}
