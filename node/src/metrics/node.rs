//! What this node forwards, transfers and holds.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::registry::Unit;
use vc_protocol::{InstanceId, Millis, ServiceKey};
use vc_runtime::images::ImageTraffic;

use super::write::{count, count_one, float, write, write_one};
use crate::proxy::TrafficCounts;

/// What the node does at one time.
pub(super) struct Node {
    pub(super) traffic: BTreeMap<ServiceKey, TrafficCounts>,
    pub(super) images: ImageTraffic,
    /// For how long instances may go on under their leases if these are not renewed; `None`: for ever.
    pub(super) leases: BTreeMap<InstanceId, Option<Millis>>,
}

/// Reads what the node does when metrics are written.
pub(super) struct NodeCollector(pub(super) Box<dyn Fn() -> Node + Send + Sync>);

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, EncodeLabelSet)]
struct ServiceLabels {
    project: String,
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, EncodeLabelSet)]
struct SlotLabels {
    project: String,
    service: String,
    slot: u32,
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Node { traffic, images, leases } = (self.0)();
        let encoder = &mut encoder;
        let version = BuildLabels { version: env!("CARGO_PKG_VERSION") };
        write(encoder, "build_info", "1, with the version of vc-node", None, [(version, 1u64)])?;

        let of_services = |value: fn(&TrafficCounts) -> u64| {
            let labels = |service: &ServiceKey| ServiceLabels {
                project: service.project.to_string(),
                service: service.service.to_string(),
            };
            let values = traffic.iter().map(|(key, it)| (labels(key), float(value(it))));
            values.collect::<Vec<_>>()
        };
        let help = "Connections of clients of this node that an instance accepted";
        count(encoder, "ingress_connections", help, None, of_services(|it| it.connections))?;
        let help = "Attempts at an instance that failed, after which the next was tried";
        count(encoder, "ingress_retries", help, None, of_services(|it| it.retries))?;
        let help = "Connections of clients of this node that no instance accepted";
        count(encoder, "ingress_failures", help, None, of_services(|it| it.failures))?;
        let bytes = Some(&Unit::Bytes);
        let help = "Bytes that came from clients of this node over TCP";
        count(encoder, "ingress_received", help, bytes, of_services(|it| it.received))?;
        let help = "Bytes that went to clients of this node over TCP";
        count(encoder, "ingress_sent", help, bytes, of_services(|it| it.sent))?;

        for (name, help, unit, value) in [
            ("image_received", "Bytes of images from other nodes", bytes, images.received),
            ("image_sent", "Bytes of images to other nodes", bytes, images.sent),
            ("image_transfers", "Images that were got from other nodes", None, images.transfers),
            (
                "image_transfer_failures",
                "Attempts to get an image from other nodes that failed",
                None,
                images.failures,
            ),
        ] {
            count_one(encoder, name, help, unit, float(value))?;
        }

        let help = "Instances here that run under a lease";
        write_one(encoder, "leases_held", help, None, leases.len() as u64)?;
        let help = "For how long an instance may go on if its lease is not renewed";
        let remaining = leases.into_iter().filter_map(|(id, remaining)| {
            let ServiceKey { project, service } = id.slot.service;
            let (project, service) = (project.to_string(), service.to_string());
            let labels = SlotLabels { project, service, slot: id.slot.replica };
            Some((labels, float(remaining?) / 1000.0))
        });
        write(encoder, "lease_remaining", help, Some(&Unit::Seconds), remaining)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::metrics;

    #[test]
    fn traffic_images_and_leases_are_series() {
        let read = || Node {
            traffic: BTreeMap::from([(
                "shop/web".parse().expect("a service"),
                TrafficCounts { connections: 3, retries: 1, sent: 20, ..TrafficCounts::default() },
            )]),
            images: ImageTraffic { received: 7, transfers: 1, ..ImageTraffic::default() },
            leases: BTreeMap::from([
                ("shop/db.1@0".parse().expect("an instance"), Some(4200)),
                ("shop/db.2@0".parse().expect("an instance"), None),
            ]),
        };
        let mut registry = Registry::with_prefix("vc");
        registry.register_collector(Box::new(NodeCollector(Box::new(read))));
        let text = metrics::text(&[registry]);
        for line in [
            r#"vc_ingress_connections_total{project="shop",service="web"} 3.0"#,
            r#"vc_ingress_retries_total{project="shop",service="web"} 1.0"#,
            r#"vc_ingress_sent_bytes_total{project="shop",service="web"} 20.0"#,
            "vc_image_received_bytes_total 7.0",
            "vc_image_transfers_total 1.0",
            "vc_leases_held 2",
            r#"vc_lease_remaining_seconds{project="shop",service="db",slot="1"} 4.2"#,
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains(r#"remaining_seconds{project="shop",service="db",slot="2"}"#));
    }
}
