//! The metrics of this node, for Prometheus: docs/metrics.md lists them.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use vc_protocol::NodeId;

use crate::snapshot::Snapshot;
use crate::volumes::Volumes;

/// Returns what is served.
pub(crate) fn registry(
    node: NodeId,
    volumes: &Volumes,
    snapshot: watch::Receiver<Snapshot>,
) -> Registry {
    let mut registry = Registry::with_prefix("vc");
    volumes.metrics().register(node, snapshot, &mut registry);
    registry
}

/// Writes metrics in the text format of OpenMetrics.
pub(crate) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    if let Err(error) = encode(&mut text, registry) {
        // Into a string nothing else can fail.
        tracing::warn!(%error, "a metric cannot be written");
    }
    text
}
