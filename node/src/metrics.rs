//! The metrics of this node, for Prometheus: docs/metrics.md lists them.

mod cluster;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use vc_protocol::{ClusterId, NodeId};

use crate::metrics::cluster::{Cluster, ClusterCollector};
use crate::snapshot::Snapshot;
use crate::volumes::Volumes;

/// Returns what is served.
pub(crate) fn registry(
    cluster: ClusterId,
    node: NodeId,
    volumes: &Volumes,
    snapshot: watch::Receiver<Snapshot>,
) -> Registry {
    let mut registry = Registry::with_prefix("vc");
    volumes.metrics().register(node, snapshot.clone(), &mut registry);
    let read = move || Cluster::of(&snapshot.borrow(), cluster, node);
    registry.register_collector(Box::new(ClusterCollector(Box::new(read))));
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
