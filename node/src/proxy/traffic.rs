//! Counts what this node forwards to the instances of each service.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use vc_engine::routes::Routes;
use vc_protocol::ServiceKey;

/// What was forwarded for one service since the start of the node, or since the service was deployed.
#[derive(Debug, Default)]
pub(crate) struct ServiceTraffic {
    connections: AtomicU64,
    retries: AtomicU64,
    failures: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

/// The counts of one service at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TrafficCounts {
    /// Connections, and UDP associations, that an instance accepted.
    pub(crate) connections: u64,
    /// Attempts at an instance that failed, after which the next was tried.
    pub(crate) retries: u64,
    /// Connections that no instance accepted.
    pub(crate) failures: u64,
    /// Bytes of TCP connections from clients.
    pub(crate) received: u64,
    /// Bytes of TCP connections to clients.
    pub(crate) sent: u64,
}

impl ServiceTraffic {
    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// Counts bytes from a client, and to it.
    pub(super) fn copied(&self, received: usize, sent: usize) {
        self.received.fetch_add(received as u64, Relaxed);
        self.sent.fetch_add(sent as u64, Relaxed);
    }

    fn counts(&self) -> TrafficCounts {
        TrafficCounts {
            connections: self.connections.load(Relaxed),
            retries: self.retries.load(Relaxed),
            failures: self.failures.load(Relaxed),
            received: self.received.load(Relaxed),
            sent: self.sent.load(Relaxed),
        }
    }
}

/// What is forwarded, by service.
#[derive(Debug, Default)]
pub(super) struct Traffic(Mutex<BTreeMap<ServiceKey, Arc<ServiceTraffic>>>);

impl Traffic {
    /// Returns the counters of a service, which may outlive it.
    pub(super) fn of(&self, service: &ServiceKey) -> Arc<ServiceTraffic> {
        let mut services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match services.get(service) {
            Some(traffic) => Arc::clone(traffic),
            None => Arc::clone(services.entry(service.clone()).or_default()),
        }
    }

    /// Returns the counts of the services that have routes, and forgets the others.
    pub(super) fn counts(&self, routes: &Routes) -> BTreeMap<ServiceKey, TrafficCounts> {
        let mut services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        services.retain(|service, _| routes.services.contains_key(service));
        services.iter().map(|(service, traffic)| (service.clone(), traffic.counts())).collect()
    }
}

#[cfg(test)]
mod tests {
    use vc_engine::routes::ServiceRoutes;

    use super::*;

    #[test]
    fn what_is_forwarded_is_counted_until_the_service_is_gone() {
        let service: ServiceKey = "shop/web".parse().expect("a service");
        let traffic = Traffic::default();
        traffic.of(&service).connected();
        traffic.of(&service).copied(3, 4);
        traffic.of(&service).copied(0, 6);
        let services = BTreeMap::from([(service.clone(), ServiceRoutes::default())]);
        let routes = Routes { services, ..Routes::default() };
        let expected =
            TrafficCounts { connections: 1, received: 3, sent: 10, ..TrafficCounts::default() };
        assert_eq!(traffic.counts(&routes), BTreeMap::from([(service, expected)]));
        assert_eq!(traffic.counts(&Routes::default()), BTreeMap::new());
        assert_eq!(traffic.counts(&routes), BTreeMap::new(), "it begins anew");
    }
}
