//! The metrics of this node, for Prometheus: docs/metrics.md lists them.

mod cluster;
mod containers;
mod failover;
mod listener;
mod node;
mod token;
mod write;

use std::sync::Arc;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use vc_console::MetricsFormat;
use vc_protocol::{ClusterId, Millis, NodeId};
use vc_runtime::images::Images;

use crate::auth::AuthMetrics;
use crate::driver::DriverMetrics;
use crate::metrics::cluster::{Cluster, ClusterCollector};
use crate::metrics::containers::{ContainerCollector, Containers};
use crate::metrics::node::{Node, NodeCollector};
use crate::proxy::Router;
use crate::snapshot::Snapshot;
use crate::usage::Usages;
use crate::volumes::Volumes;
use crate::{clock, host};

pub(crate) use failover::FailoverMetrics;
pub(crate) use listener::MetricsListener;
pub(crate) use token::MetricsToken;

/// What metrics are read from.
pub(crate) struct Sources {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) snapshot: watch::Receiver<Snapshot>,
    pub(crate) volumes: Volumes,
    pub(crate) usages: Usages,
    pub(crate) router: Router,
    pub(crate) images: Images,
    pub(crate) driver: DriverMetrics,
    pub(crate) auth: AuthMetrics,
    pub(crate) failovers: FailoverMetrics,
}

impl Sources {
    /// Returns what is served: our own metrics, and those in the names of cAdvisor.
    pub(crate) fn registries(self) -> [Registry; 2] {
        let Self { cluster, node, snapshot, .. } = self;
        let mut own = Registry::with_prefix("vc");
        self.volumes.metrics().register(node, snapshot.clone(), &mut own);
        self.driver.register(&mut own);
        self.auth.register(&mut own);
        self.failovers.register(&mut own);
        let (router, images, driver) = (self.router, self.images, self.driver);
        let read = move || {
            let now = clock::monotonic();
            let remaining = |end: Millis| (end != Millis::MAX).then(|| end.saturating_sub(now));
            let leases = driver.leases().into_iter();
            Node {
                traffic: router.traffic(),
                images: images.traffic(),
                leases: leases.map(|(id, end)| (id, remaining(end))).collect(),
            }
        };
        own.register_collector(Box::new(NodeCollector(Box::new(read))));
        // Cloned: the channel must not be locked while rows are computed.
        let latest = snapshot.clone();
        let read = move || {
            let latest = latest.borrow().clone();
            Cluster::of(&latest, cluster, node)
        };
        own.register_collector(Box::new(ClusterCollector(Box::new(read))));

        let mut of_cadvisor = Registry::default();
        let (usages, machine) = (self.usages, host::machine());
        let read = move || Containers {
            rows: usages.own(),
            view: Arc::clone(&snapshot.borrow().view),
            machine,
        };
        of_cadvisor.register_collector(Box::new(ContainerCollector(Box::new(read))));
        [own, of_cadvisor]
    }
}

/// Writes metrics in the text format of OpenMetrics.
pub(crate) fn text(registries: &[Registry]) -> String {
    let mut text = String::new();
    let written = registries.iter().try_for_each(|it| encode_registry(&mut text, it));
    if let Err(error) = written.and_then(|()| encode_eof(&mut text)) {
        // Into a string nothing else can fail.
        tracing::warn!(%error, "a metric cannot be written");
    }
    text
}

/// Writes metrics in the format that a client accepts.
pub(crate) fn in_format(registries: &[Registry], format: MetricsFormat) -> String {
    match format {
        MetricsFormat::OpenMetrics => text(registries),
        MetricsFormat::Text => classic(&text(registries)),
    }
}

/// Turns OpenMetrics into the older text format of Prometheus, in which counters are named with `_total` where they are described, too,
/// and units are not declared.
fn classic(text: &str) -> String {
    let mut classic = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let described = line.strip_prefix("# HELP ").and_then(|it| it.split_once(' '));
        match described {
            Some((name, help)) => {
                let counter = format!("# TYPE {name} counter");
                let is_counter = lines.peek().is_some_and(|it| *it == counter);
                let suffix = if is_counter { "_total" } else { "" };
                classic.push_str(&format!("# HELP {name}{suffix} {help}\n"));
                if is_counter {
                    lines.next();
                    classic.push_str(&format!("# TYPE {name}_total counter\n"));
                }
            }
            None if line.starts_with("# UNIT ") || line == "# EOF" => {}
            None => {
                classic.push_str(line);
                classic.push('\n');
            }
        }
    }
    classic
}

#[cfg(test)]
mod tests;
