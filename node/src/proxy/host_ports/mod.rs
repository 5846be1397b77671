//! Ports that are published for this node's own instances (`mode: host`): NAT rules redirect clients on other hosts to an
//! instance, which sees their addresses.
//!
//! The listener of the ingress stays bound: it holds the port against other processes, and serves what the rules leave to it,
//! from the bridge's address: clients on this host and in the node's networks, IPv6, and everyone while the rules cannot be set.
//! Rules follow the routes, as listeners do. Open connections outlive them, and count when an instance drains
//! ([`Connections`]); datagrams go where the present rules say.

mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use vc_engine::routes::Routes;
use vc_protocol::spec::PortProtocol;
use vc_protocol::{InstanceId, NodeId, ServiceKey};
use vc_runtime::docker::Docker;

use super::connections::Connections;
use super::conntrack::{self, Flow};
use super::router::Router;
use crate::iptables::IptablesError;
pub(crate) use rules::HostPort;
use rules::Rules;

/// Interval at which the rules are checked, and applied again when they are missing or could not be applied.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// The ports that the ingress has bound for this node's own instances, with the service and its port; `None` before it has
/// bound any.
pub(crate) type BoundPorts = Option<BTreeMap<HostPort, (ServiceKey, u16)>>;

/// Where rules redirect to: the instance and its address.
type Redirects = BTreeMap<HostPort, (InstanceId, SocketAddrV4)>;

/// A handle to the rules. Dropping it, or the end of the ingress, leaves them in place; [`HostPorts::stop`] removes them.
#[derive(Debug)]
pub(crate) struct HostPorts {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Why the rules are not in place.
#[derive(Debug, thiserror::Error)]
enum RulesError {
    #[error("the Docker engine may run on another host: give --docker-host a unix:// socket")]
    RemoteEngine,
    #[error("Docker filters packets with nftables, which drops what iptables redirects")]
    Nftables,
    #[error(transparent)]
    Iptables(#[from] IptablesError),
}

impl HostPorts {
    /// Starts to keep the rules for the `bound` ports.
    pub(crate) fn start(
        docker: Docker,
        router: &Router,
        bound: watch::Receiver<BoundPorts>,
    ) -> Self {
        let rules = Rules::new(&docker.identity().node.short(), &docker.bridge_prefix());
        let reconciler = Reconciler {
            docker,
            nftables: None,
            node: router.inner.node,
            routes: router.table(),
            connections: router.inner.connections.clone(),
            bound,
            rules,
            applied: None,
            failed: false,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(reconciler.run(stop.clone()));
        Self { stop, task }
    }

    /// Removes the rules: clients then reach the listeners.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

struct Reconciler {
    docker: Docker,
    /// Whether Docker filters packets with nftables; `None` before it has answered.
    nftables: Option<bool>,
    node: NodeId,
    routes: watch::Receiver<Arc<Routes>>,
    connections: Connections,
    bound: watch::Receiver<BoundPorts>,
    rules: Rules,
    /// What the rules redirect; `None`: what a process before has left.
    applied: Option<Redirects>,
    /// Whether the rules could not be applied.
    failed: bool,
}

impl Reconciler {
    async fn run(mut self, stop: CancellationToken) {
        let mut drains = self.connections.drains();
        let mut check = Instant::now() + CHECK_INTERVAL;
        loop {
            self.reconcile().await;
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.routes.changed() => if changed.is_err() { return },
                changed = self.bound.changed() => if changed.is_err() { return },
                changed = drains.changed() => if changed.is_err() { return },
                () = sleep_until(check) => {
                    let redirects = self.applied.as_ref().is_some_and(|it| !it.is_empty());
                    if self.failed || (redirects && !self.rules.are_in_place().await) {
                        self.applied = None;
                    }
                    check = Instant::now() + CHECK_INTERVAL;
                }
            }
        }
        self.rules.remove().await;
        self.connections.set_redirected(&BTreeMap::new());
    }

    async fn reconcile(&mut self) {
        let Some(bound) = self.bound.borrow_and_update().clone() else { return };
        let routes = Arc::clone(&self.routes.borrow_and_update());
        let is_draining = |instance: &InstanceId| self.connections.is_draining(instance);
        let wanted = redirects(&bound, &routes, self.node, is_draining);
        if self.applied.as_ref() == Some(&wanted) || (self.failed && self.applied.is_some()) {
            return;
        }
        // An instance counts before clients can reach it, and until they no longer can.
        let before = self.applied.iter().flatten();
        let either = before.chain(&wanted).map(|(_, (instance, to))| (instance.clone(), *to.ip()));
        self.connections.set_redirected(&either.collect());
        let applied = self.apply(&wanted).await;
        match (&applied, self.failed) {
            (Err(error), false) => {
                tracing::warn!(%error, "instances see this node as the client of their published ports");
            }
            (Ok(()), true) => tracing::info!("instances see the clients of their published ports"),
            _ => {}
        }
        self.failed = applied.is_err();
        let redirects = if self.failed { Redirects::new() } else { wanted };
        let in_place = redirects.values().map(|(instance, to)| (instance.clone(), *to.ip()));
        self.connections.set_redirected(&in_place.collect());
        self.forget_flows(&redirects).await;
        self.applied = Some(redirects);
    }

    async fn apply(&mut self, wanted: &Redirects) -> Result<(), RulesError> {
        if wanted.is_empty() {
            self.rules.remove().await;
            return Ok(());
        }
        let applied = match self.check_engine().await {
            Ok(()) => {
                let to = wanted.iter().map(|(port, (_, to))| (*port, *to)).collect();
                self.rules.apply(&to).await.map_err(RulesError::from)
            }
            unfit => unfit,
        };
        // Better all clients at the listeners than some at an instance that is gone.
        if applied.is_err() {
            self.rules.remove().await;
        }
        applied
    }

    /// Errors: redirected packets would not reach the engine's containers.
    async fn check_engine(&mut self) -> Result<(), RulesError> {
        if !self.docker.is_local() {
            return Err(RulesError::RemoteEngine);
        }
        if self.nftables.is_none() {
            self.nftables = self.docker.filters_with_nftables().await.ok();
        }
        match self.nftables {
            Some(true) => Err(RulesError::Nftables),
            _ => Ok(()),
        }
    }

    /// Makes the kernel forget UDP flows that the changed rules decide about otherwise: else a client that goes on sending
    /// stays with an instance that is gone.
    async fn forget_flows(&self, redirects: &Redirects) {
        let ports = self.applied.iter().flatten().chain(redirects).map(|(port, _)| *port);
        let udp = ports.filter(|port| port.protocol == PortProtocol::Udp);
        let to = |port| redirects.get(&port).map(|(_, to)| *to);
        let targets: BTreeMap<HostPort, Option<SocketAddrV4>> =
            udp.map(|it| (it, to(it))).collect();
        if targets.is_empty() {
            return;
        }
        let forgotten = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let own = own_addresses()?;
            let flows = conntrack::flows()?;
            flows
                .iter()
                .filter(|flow| is_stale(flow, &targets, &own))
                .try_for_each(conntrack::forget)
        });
        let forgotten = forgotten.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        if let Err(error) = forgotten {
            tracing::warn!(%error, "clients of a UDP port stay with its former instance until they pause");
        }
    }
}

/// Returns where to redirect the bound ports: each to the first instance here that takes connections.
fn redirects(
    bound: &BTreeMap<HostPort, (ServiceKey, u16)>,
    routes: &Routes,
    node: NodeId,
    is_draining: impl Fn(&InstanceId) -> bool,
) -> Redirects {
    let redirect = |(&port, (service, target)): (&HostPort, &(ServiceKey, u16))| {
        let endpoints = &routes.services.get(service)?.endpoints;
        let here = endpoints.iter().find(|it| it.node == node && !is_draining(&it.instance))?;
        let ip: Ipv4Addr = here.address.parse().ok()?;
        Some((port, (here.instance.clone(), SocketAddrV4::new(ip, *target))))
    };
    bound.iter().filter_map(redirect).collect()
}

/// Returns whether the kernel sends a flow elsewhere than the rules say now.
fn is_stale(
    flow: &Flow,
    targets: &BTreeMap<HostPort, Option<SocketAddrV4>>,
    own: &BTreeSet<Ipv4Addr>,
) -> bool {
    let asked = |port: &HostPort| match port.address {
        Some(address) => address == *flow.asked.ip(),
        // Not what the host sends to other hosts, or passes on to them.
        None => own.contains(flow.asked.ip()),
    };
    let mut of_port = targets.iter().filter(|(port, _)| {
        (port.protocol, port.port) == (flow.protocol, flow.asked.port()) && asked(port)
    });
    of_port.any(|(_, to)| flow.answers != to.unwrap_or(flow.asked))
}

fn own_addresses() -> std::io::Result<BTreeSet<Ipv4Addr>> {
    let v4 = |interface: if_addrs::Interface| match interface.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    };
    Ok(if_addrs::get_if_addrs()?.into_iter().filter_map(v4).collect())
}

#[cfg(test)]
mod tests {
    use vc_engine::routes::{Endpoint, ServiceRoutes};
    use vc_protocol::Keypair;

    use super::*;

    const V4: fn(&str) -> SocketAddrV4 = |text| text.parse().expect("an address");

    fn port(protocol: PortProtocol, address: Option<Ipv4Addr>) -> HostPort {
        HostPort { protocol, port: 53, address }
    }

    #[test]
    fn a_port_is_redirected_to_an_instance_on_this_node_that_takes_connections() {
        let node = |byte| {
            let key = Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes");
            NodeId::of(&key.public()).expect("ed25519")
        };
        let service: ServiceKey = "shop/web".parse().expect("a service");
        let instance = |replica: u32| -> InstanceId {
            format!("shop/web.{replica}@0").parse().expect("an instance")
        };
        let places = [(1, 2, "172.20.0.9"), (2, 1, "172.20.0.2"), (3, 1, "172.20.0.3")];
        let endpoints = places.map(|(replica, at, address)| Endpoint {
            instance: instance(replica),
            node: node(at),
            address: address.to_owned(),
        });
        let of_service =
            ServiceRoutes { endpoints: endpoints.to_vec(), ..ServiceRoutes::default() };
        let services = [(service.clone(), of_service)].into();
        let routes = Routes { services, ..Routes::default() };
        let tcp = port(PortProtocol::Tcp, None);
        let bound = BTreeMap::from([(tcp, (service, 80))]);
        let at = |draining: &[u32]| {
            let is_draining = |it: &InstanceId| draining.contains(&it.slot.replica);
            redirects(&bound, &routes, node(1), is_draining).remove(&tcp)
        };
        assert_eq!(at(&[]), Some((instance(2), V4("172.20.0.2:80"))));
        assert_eq!(at(&[2]), Some((instance(3), V4("172.20.0.3:80"))));
        assert_eq!(at(&[2, 3]), None);
    }

    #[test]
    fn flows_to_other_places_than_the_rules_say_are_stale() {
        let flow = |asked, answers| Flow::udp(V4(asked), V4(answers));
        let own = BTreeSet::from([Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]);
        let stale = |address: Option<Ipv4Addr>, to: Option<&str>, asked, answers| {
            let targets = BTreeMap::from([(port(PortProtocol::Udp, address), to.map(V4))]);
            is_stale(&flow(asked, answers), &targets, &own)
        };
        let to = Some("172.20.0.2:53");
        assert!(!stale(None, to, "10.0.0.1:53", "172.20.0.2:53"));
        assert!(stale(None, to, "10.0.0.1:53", "172.20.0.3:53"), "another instance");
        assert!(stale(None, to, "10.0.0.1:53", "10.0.0.1:53"), "the listener");
        assert!(stale(None, None, "10.0.0.1:53", "172.20.0.2:53"), "no longer redirected");
        assert!(!stale(None, None, "10.0.0.1:53", "10.0.0.1:53"));
        assert!(!stale(None, to, "192.0.2.1:53", "192.0.2.1:53"), "another host's");
        assert!(!stale(None, to, "10.0.0.1:54", "10.0.0.1:54"), "another port");
        let second = Some(Ipv4Addr::new(10, 0, 0, 2));
        assert!(stale(second, to, "10.0.0.2:53", "10.0.0.2:53"));
        assert!(!stale(second, to, "10.0.0.1:53", "10.0.0.1:53"), "another address");
    }
}
