//! Load balancing: chooses the instance for the next connection.
//!
//! Least connections, preferring instances on this node. Nodes and instances that did not answer are ejected for
//! [`EJECTION_TIME`] (outlier ejection): they are chosen only when no other endpoint is left.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vc_engine::routes::{Endpoint, Routes};
use vc_protocol::{InstanceId, NodeId, ServiceKey};

use super::connections::Connections;
use super::limits::EJECTION_TIME;

/// Which instances of a service are eligible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All instances.
    Cluster,
    /// Instances on this node.
    Node,
}

/// An endpoint that did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Ejected {
    /// All instances of a node.
    Node(NodeId),
    /// One instance.
    Instance(InstanceId),
}

/// Chooses instances by this node's connections and ejections.
pub(super) struct LoadBalancer {
    node: NodeId,
    connections: Connections,
    /// When each ejection ends.
    ejected: Mutex<HashMap<Ejected, Instant>>,
    /// Incremented with each choice: equal endpoints are chosen round-robin.
    round: AtomicUsize,
}

impl LoadBalancer {
    pub(super) fn new(node: NodeId, connections: Connections) -> Self {
        let (ejected, round) = (Mutex::default(), AtomicUsize::new(0));
        Self { node, connections, ejected, round }
    }

    fn ejected(&self) -> MutexGuard<'_, HashMap<Ejected, Instant>> {
        self.ejected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ejects an endpoint for [`EJECTION_TIME`].
    pub(super) fn eject(&self, endpoint: Ejected, now: Instant) {
        let mut ejected = self.ejected();
        ejected.retain(|_, until| *until > now);
        ejected.insert(endpoint, now + EJECTION_TIME);
    }

    /// Returns the best endpoint that was not tried: one whose node does not restart, then one that is not ejected, then one on
    /// this node, then the one with the fewest connections through this node, round-robin among equals. `None`: all were
    /// tried.
    pub(super) fn choose<'a>(
        &self,
        routes: &'a Routes,
        service: &ServiceKey,
        scope: Scope,
        tried: &[Endpoint],
        now: Instant,
    ) -> Option<&'a Endpoint> {
        let endpoints = &routes.services.get(service)?.endpoints;
        let round = self.round.fetch_add(1, Ordering::Relaxed);
        let ejected = self.ejected();
        let is_in_effect =
            |endpoint: Ejected| ejected.get(&endpoint).is_some_and(|until| *until > now);
        let count = endpoints.len();
        let candidates = endpoints.iter().enumerate().filter(|(_, endpoint)| {
            let here = endpoint.node == self.node;
            (here || scope == Scope::Cluster)
                && !tried.contains(endpoint)
                && !self.connections.is_draining(&endpoint.instance)
        });
        let (_, best) = candidates.min_by_key(|(index, endpoint)| {
            let is_ejected = !ejected.is_empty()
                && (is_in_effect(Ejected::Node(endpoint.node))
                    || is_in_effect(Ejected::Instance(endpoint.instance.clone())));
            let active = self.connections.active(&endpoint.instance);
            let here = endpoint.node == self.node;
            let restarts = !here && routes.restarting.contains(&endpoint.node);
            (restarts, is_ejected, !here, active, (index + round) % count)
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
    fn an_instance_on_this_node_is_chosen_first() {
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
    fn the_instance_with_fewest_connections_is_chosen_and_equals_round_robin() {
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
    fn an_ejected_endpoint_is_chosen_last_until_the_ejection_ends() {
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
    fn an_instance_on_another_node_that_restarts_is_chosen_last() {
        let balancer = LoadBalancer::new(node(1), Connections::default());
        let mut routes = routes(&[2, 3]);
        routes.restarting.insert(node(2));
        let second = routes.services[&service()].endpoints[1].clone();
        let choose = |tried: &[Endpoint]| {
            let now = Instant::now();
            replica(balancer.choose(&routes, &service(), Scope::Cluster, tried, now))
        };
        assert_eq!((choose(&[]), choose(&[])), (Some(2), Some(2)));
        assert_eq!(choose(&[second]), Some(1));
    }

    #[test]
    fn a_draining_instance_is_not_chosen() {
        let connections = Connections::default();
        let balancer = LoadBalancer::new(node(1), connections.clone());
        let routes = routes(&[1]);
        connections.start_draining(&routes.services[&service()].endpoints[0].instance);
        let now = Instant::now();
        assert_eq!(balancer.choose(&routes, &service(), Scope::Cluster, &[], now), None);
    }
}
