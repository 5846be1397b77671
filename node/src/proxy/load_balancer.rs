//! Which instance takes the next connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vc_engine::routes::{Endpoint, Routes};
use vc_protocol::{InstanceId, NodeId, ServiceKey};

use super::{Connections, EJECTION_TIME, Scope};

/// Who did not answer lately.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Ejected {
    /// A node.
    Node(NodeId),
    /// An instance.
    Instance(InstanceId),
}

/// Chooses by what this node has seen.
pub(super) struct LoadBalancer {
    node: NodeId,
    connections: Connections,
    ejected: Mutex<HashMap<Ejected, Instant>>,
    /// Grows with each choice, so that equals take turns.
    turn: AtomicUsize,
}

impl LoadBalancer {
    pub(super) fn new(node: NodeId, connections: Connections) -> Self {
        let (ejected, turn) = (Mutex::default(), AtomicUsize::new(0));
        Self { node, connections, ejected, turn }
    }

    fn ejected(&self) -> MutexGuard<'_, HashMap<Ejected, Instant>> {
        self.ejected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it is tried last, for a while.
    pub(super) fn eject(&self, whom: Ejected, now: Instant) {
        let mut ejected = self.ejected();
        ejected.retain(|_, until| *until > now);
        ejected.insert(whom, now + EJECTION_TIME);
    }

    /// The best of those that were not tried: one that answers before a suspect, one here before another, then the one
    /// with the fewest connections through this node; equals take turns. `None`: all were tried.
    pub(super) fn choose<'a>(
        &self,
        routes: &'a Routes,
        service: &ServiceKey,
        scope: Scope,
        tried: &[Endpoint],
        now: Instant,
    ) -> Option<&'a Endpoint> {
        let endpoints = &routes.services.get(service)?.endpoints;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let ejected = self.ejected();
        let suspect = |whom: Ejected| ejected.get(&whom).is_some_and(|until| *until > now);
        let count = endpoints.len();
        let candidates = endpoints.iter().enumerate().filter(|(_, endpoint)| {
            let here = endpoint.node == self.node;
            (here || scope == Scope::Cluster)
                && !tried.contains(endpoint)
                && !self.connections.is_leaving(&endpoint.instance)
        });
        let (_, best) = candidates.min_by_key(|(place, endpoint)| {
            let is_ejected = !ejected.is_empty()
                && (suspect(Ejected::Node(endpoint.node))
                    || suspect(Ejected::Instance(endpoint.instance.clone())));
            let active = self.connections.active(&endpoint.instance);
            (is_ejected, endpoint.node != self.node, active, (place + turn) % count)
        })?;
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vc_engine::routes::ServiceRoutes;
    use vc_protocol::Keypair;

    use super::*;

    fn node(seed: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    fn service() -> ServiceKey {
        "shop/web".parse().expect("a service")
    }

    /// Instances of `shop/web`, numbered from 1, on these nodes.
    fn routes(on: &[u8]) -> Routes {
        let endpoints = on.iter().zip(1..).map(|(&seed, replica)| Endpoint {
            instance: format!("shop/web.{replica}@0").parse().expect("an instance"),
            node: node(seed),
            address: "10.0.0.1".to_owned(),
        });
        let routes = ServiceRoutes { endpoints: endpoints.collect(), ..ServiceRoutes::default() };
        Routes { services: BTreeMap::from([(service(), routes)]), ..Routes::default() }
    }

    fn replica(endpoint: Option<&Endpoint>) -> Option<u32> {
        endpoint.map(|endpoint| endpoint.instance.slot.replica)
    }

    #[test]
    fn an_instance_here_is_taken_before_others_and_others_when_it_was_tried() {
        let balancer = LoadBalancer::new(node(1), Connections::default());
        let routes = routes(&[2, 1]);
        let choose = |tried: &[Endpoint], scope| {
            let now = Instant::now();
            replica(balancer.choose(&routes, &service(), scope, tried, now))
        };
        assert_eq!(choose(&[], Scope::Cluster), Some(2));
        let here = routes.services[&service()].endpoints[1].clone();
        assert_eq!(choose(std::slice::from_ref(&here), Scope::Cluster), Some(1));
        assert_eq!(choose(&[here], Scope::Node), None);
    }

    #[test]
    fn the_one_with_fewest_connections_is_next_and_equals_take_turns() {
        let connections = Connections::default();
        let balancer = LoadBalancer::new(node(9), connections.clone());
        let routes = routes(&[1, 2, 3]);
        let mut held = Vec::new();
        let mut counts = BTreeMap::new();
        for _ in 0..300 {
            let chosen = balancer.choose(&routes, &service(), Scope::Cluster, &[], Instant::now());
            let chosen = chosen.expect("there are some");
            held.extend(connections.begin(&chosen.instance));
            *counts.entry(chosen.instance.slot.replica).or_insert(0) += 1;
        }
        assert_eq!(counts, BTreeMap::from([(1, 100), (2, 100), (3, 100)]));
        drop(held);
        let mut seen: Vec<_> = (0..3)
            .map(|_| {
                let now = Instant::now();
                replica(balancer.choose(&routes, &service(), Scope::Cluster, &[], now))
            })
            .collect();
        seen.sort();
        assert_eq!(seen, [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn a_suspect_is_taken_last_until_it_is_forgiven() {
        let balancer = LoadBalancer::new(node(1), Connections::default());
        let routes = routes(&[1, 2]);
        let now = Instant::now();
        let here = routes.services[&service()].endpoints[0].instance.clone();
        balancer.eject(Ejected::Instance(here), now);
        let choose = |at| replica(balancer.choose(&routes, &service(), Scope::Cluster, &[], at));
        assert_eq!(choose(now), Some(2));
        balancer.eject(Ejected::Node(node(2)), now);
        assert_eq!(choose(now), Some(1));
        assert_eq!(choose(now + EJECTION_TIME), Some(1));
    }

    #[test]
    fn an_instance_that_leaves_is_not_taken() {
        let connections = Connections::default();
        let balancer = LoadBalancer::new(node(1), connections.clone());
        let routes = routes(&[1]);
        connections.leaving(&routes.services[&service()].endpoints[0].instance);
        let now = Instant::now();
        assert_eq!(balancer.choose(&routes, &service(), Scope::Cluster, &[], now), None);
    }
}
