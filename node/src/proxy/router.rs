//! Connecting to an instance: tries one endpoint after another until one accepts.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use vc_engine::routes::{Endpoint, Routes};
use vc_protocol::route::RouteRequest;
use vc_protocol::{NodeId, ServiceKey};

use super::connections::Connections;
use super::limits::{
    CONNECT_DEADLINE, MAX_CONNECTIONS, MEMBER_TIMEOUT, RESTART_TIMEOUT, RETRY_INTERVAL,
};
use super::load_balancer::{Ejected, LoadBalancer, Scope};
use super::restart::Restart;
use super::traffic::{ServiceTraffic, Traffic, TrafficCounts};
use super::upstream::{Streams, Upstream};
use crate::bandwidth::Bandwidth;

/// Forwards connections to instances. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) node: NodeId,
    pub(super) table: watch::Receiver<Arc<Routes>>,
    pub(super) connections: Connections,
    pub(super) balancer: LoadBalancer,
    streams: Streams,
    /// One permit for each forwarded connection.
    pub(super) permits: Arc<Semaphore>,
    pub(super) restart: Restart,
    /// Told what services send to other nodes.
    pub(super) bandwidth: Bandwidth,
    pub(super) traffic: Traffic,
}

/// An established path to an instance.
pub(super) struct Route<U: Upstream> {
    pub(super) endpoint: Endpoint,
    pub(super) upstream: U,
    /// Counts the connection at the instance.
    pub(super) connection: U::Count,
    /// Permit for the stream to the instance's node; `None`: the instance runs here.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// Why an endpoint did not accept a connection.
enum Failure {
    /// It refused, or is at a limit; it may accept the next attempt.
    Refused,
    /// It did not answer in time.
    NoAnswer(Ejected),
}

impl Router {
    /// Returns a router for `node` that follows the routes in `table` and opens streams to other nodes with `members`.
    /// What services send to other nodes comes out of the `bandwidth` of volumes.
    pub fn new(
        node: NodeId,
        table: watch::Receiver<Arc<Routes>>,
        connections: Connections,
        members: libp2p_stream::Control,
        bandwidth: Bandwidth,
    ) -> Self {
        let balancer = LoadBalancer::new(node, connections.clone());
        let streams = Streams::new(members);
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let restart = Restart::default();
        let traffic = Traffic::default();
        let inner = Inner {
            node,
            table,
            connections,
            balancer,
            streams,
            permits,
            restart,
            bandwidth,
            traffic,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the current routes, as a channel that also signals changes.
    pub fn table(&self) -> watch::Receiver<Arc<Routes>> {
        self.inner.table.clone()
    }

    /// Returns what was forwarded to the services that there are.
    pub(crate) fn traffic(&self) -> BTreeMap<ServiceKey, TrafficCounts> {
        let routes = Arc::clone(&self.inner.table.borrow());
        self.inner.traffic.counts(&routes)
    }

    /// As [`Self::find_route`], counted.
    pub(super) async fn connect<U: Upstream>(
        &self,
        service: &ServiceKey,
        port: u16,
        scope: Scope,
    ) -> Option<Route<U>> {
        let traffic = self.inner.traffic.of(service);
        let route = self.find_route(service, port, scope, &traffic).await;
        match &route {
            Some(_) => traffic.connected(),
            None => traffic.failed(),
        }
        route
    }

    /// Connects to an instance of a service; `None`: no instance accepted within [`CONNECT_DEADLINE`]. While a node with an
    /// instance of it restarts, that time does not run, for at most [`RESTART_TIMEOUT`]. `None` at once if the healthchecks of all
    /// its instances fail.
    async fn find_route<U: Upstream>(
        &self,
        service: &ServiceKey,
        port: u16,
        scope: Scope,
        traffic: &ServiceTraffic,
    ) -> Option<Route<U>> {
        let begun = Instant::now();
        let mut deadline = begun + CONNECT_DEADLINE;
        let mut table = self.inner.table.clone();
        let mut member_timeout = MEMBER_TIMEOUT;
        loop {
            let mut tried = Vec::new();
            loop {
                let routes = Arc::clone(&table.borrow_and_update());
                if routes.services.get(service).is_some_and(|it| !it.has_port(U::PROTOCOL, port)) {
                    tracing::debug!(%service, port, "connection refused: no port of the service");
                    return None;
                }
                if routes.services.get(service).is_some_and(|it| it.is_unhealthy) {
                    tracing::debug!(%service, "connection refused: the healthchecks of all instances fail");
                    return None;
                }
                if scope == Scope::Cluster && awaits_restart(&routes, service, self.inner.node) {
                    deadline = Instant::now().min(begun + RESTART_TIMEOUT) + CONNECT_DEADLINE;
                }
                let balancer = &self.inner.balancer;
                let chosen = balancer.choose(&routes, service, scope, &tried, Instant::now());
                let Some(endpoint) = chosen else { break };
                let left = deadline.saturating_duration_since(Instant::now());
                match self.attempt(endpoint, port, member_timeout.min(left)).await {
                    Ok(route) => return Some(route),
                    Err(Failure::Refused) => {}
                    Err(Failure::NoAnswer(ejected)) => {
                        tracing::debug!(?ejected, %service, "endpoint ejected: no answer");
                        balancer.eject(ejected, Instant::now());
                    }
                }
                traffic.retried();
                tried.push(endpoint.clone());
                if Instant::now() >= deadline {
                    return None;
                }
            }
            // All endpoints failed: slow ones get more time in the next pass.
            member_timeout = (member_timeout * 2).min(CONNECT_DEADLINE);
            let left = deadline.saturating_duration_since(Instant::now());
            let pause = if tried.is_empty() { left } else { left.min(RETRY_INTERVAL) };
            match timeout(pause, table.changed()).await {
                Ok(Ok(())) => {}
                // The node is shutting down.
                Ok(Err(_)) => return None,
                Err(_) if Instant::now() >= deadline => return None,
                Err(_) => {}
            }
        }
    }

    async fn attempt<U: Upstream>(
        &self,
        endpoint: &Endpoint,
        port: u16,
        member_timeout: Duration,
    ) -> Result<Route<U>, Failure> {
        let count = U::count(&self.inner.connections, &endpoint.instance);
        let connection = count.ok_or(Failure::Refused)?;
        let route =
            |upstream, permit| Route { endpoint: endpoint.clone(), upstream, connection, permit };
        if endpoint.node == self.inner.node {
            return match U::local(&endpoint.address, port).await {
                Ok(upstream) => Ok(route(upstream, None)),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    Err(Failure::NoAnswer(Ejected::Instance(endpoint.instance.clone())))
                }
                Err(_) => Err(Failure::Refused),
            };
        }
        let streams = &self.inner.streams;
        let permit = streams.acquire(endpoint.node).ok_or(Failure::Refused)?;
        let instance = endpoint.instance.clone();
        let request = RouteRequest { instance, port, protocol: U::PROTOCOL };
        match timeout(member_timeout, streams.open(endpoint.node, &request)).await {
            Ok(Ok(Some(stream))) => Ok(route(U::remote(stream), Some(permit))),
            Ok(Ok(None)) => Err(Failure::Refused),
            Ok(Err(_)) | Err(_) => Err(Failure::NoAnswer(Ejected::Node(endpoint.node))),
        }
    }

    /// Completes when the cluster considers the node of an endpoint down.
    pub(crate) fn node_down(&self, endpoint: &Endpoint) -> impl Future<Output = ()> + use<> {
        let (mut table, node) = (self.table(), endpoint.node);
        async move {
            if table.wait_for(|routes| routes.down.contains(&node)).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Returns whether another node that has an instance of the service restarts.
fn awaits_restart(routes: &Routes, service: &ServiceKey, node: NodeId) -> bool {
    let endpoints = routes.services.get(service).map(|routes| &routes.endpoints);
    let restarts = |it: &Endpoint| it.node != node && routes.restarting.contains(&it.node);
    !routes.restarting.is_empty() && endpoints.is_some_and(|all| all.iter().any(restarts))
}
