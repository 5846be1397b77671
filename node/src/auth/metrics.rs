//! Counts the peers that were refused.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

/// The peers that were refused, by reason. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct AuthMetrics {
    refused: Family<RefusalLabels, Counter>,
}

/// The reasons, which have series from the start.
const REASONS: [&str; 6] = ["token", "removed", "limit", "version", "not_able", "not_admitted"];

impl AuthMetrics {
    /// Makes the counters part of what the node serves.
    pub(crate) fn register(&self, registry: &mut Registry) {
        for reason in REASONS {
            drop(self.refused.get_or_create(&RefusalLabels { reason }));
        }
        let help = "Nodes and users that this node has refused when they connected";
        registry.register("auth_refusals", help, self.refused.clone());
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&RefusalLabels { reason }).inc();
    }
}
