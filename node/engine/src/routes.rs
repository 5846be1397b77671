//! The routing table: from published ports and service names to the instances that can answer.
//!
//! A function of the view, so nodes with the same documents have the same table. What the table cannot know (a node that
//! died a moment ago, an instance that refuses connections) is found by connecting; the caller tries the next endpoint.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{ServiceRecord, View};
use vc_protocol::instance::InstanceState;
use vc_protocol::spec::{ContainerSpec, Port, PortProtocol, ServiceSpec};
use vc_protocol::{InstanceId, NetworkKey, NodeId, ServiceKey};

/// The routing table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    /// All services.
    pub services: BTreeMap<ServiceKey, ServiceRoutes>,
    /// Nodes that are down: connections to their instances are reset.
    pub down: BTreeSet<NodeId>,
    /// Nodes that are up and have announced a restart: their instances run, and take connections again when it is done.
    pub restarting: BTreeSet<NodeId>,
    /// The services that have a published port. Of two services whose ports conflict, the one that was deployed earlier.
    pub ports: BTreeMap<(PortProtocol, u16), Vec<Published>>,
    /// The ports that services do not get, and the services that have them. They come from deployments at the same time
    /// on two nodes, or on two sides of a partition.
    pub clashes: Vec<Clash>,
}

/// A port that another service has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// The port and the service that does not get it.
    pub wanted: Published,
    /// The service that has it.
    pub held_by: ServiceKey,
}

/// The routes of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRoutes {
    /// The instances that can answer, ordered by id.
    pub endpoints: Vec<Endpoint>,
    /// Its networks, each with the service's aliases there. On the network of its host it is on the default network of the project as far
    /// as its clients can tell.
    pub networks: BTreeMap<NetworkKey, BTreeSet<String>>,
    /// Those of its networks from which nothing outside of them is reached.
    pub internal: BTreeSet<NetworkKey>,
    /// The UDP ports that it publishes or exposes. TCP ports need not be known.
    pub udp: BTreeSet<u16>,
    /// The TCP ports that can be reached; `None` for all. On the network of a host the others are not the service's.
    pub tcp: Option<BTreeSet<u16>>,
    /// Whether it has instances, and the healthchecks of all fail: connections are refused at once.
    pub is_unhealthy: bool,
}

/// An instance that can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The instance.
    pub instance: InstanceId,
    /// Its node.
    pub node: NodeId,
    /// Its address, which is valid on that node only.
    pub address: String,
}

/// A port that nodes publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The service that publishes it.
    pub service: ServiceKey,
    /// The port.
    pub port: Port,
}

impl ServiceRoutes {
    /// Returns whether connections to a port of its instances are the service's.
    pub fn has_port(&self, protocol: PortProtocol, port: u16) -> bool {
        match (protocol, &self.tcp) {
            (PortProtocol::Tcp, Some(ports)) => ports.contains(&port),
            (PortProtocol::Udp, Some(_)) => self.udp.contains(&port),
            (_, None) => true,
        }
    }
}

impl Routes {
    /// Computes the table of a view.
    pub fn of(view: &View) -> Self {
        let mut services = BTreeMap::new();
        let mut wanted: Vec<(u64, &ServiceKey, &Port)> = Vec::new();
        for (key, record) in &view.cluster.services {
            let Some(spec) = view.spec(key) else { continue };
            let is_on_host = spec.container.is_on_host_network();
            let networks = match is_on_host {
                true => ContainerSpec::default().networks(&key.project),
                false => spec.container.networks(&key.project),
            };
            let is_internal = |network: &&NetworkKey| spec.container.is_internal(network);
            let internal = networks.keys().filter(is_internal).cloned().collect();
            let udp = said_ports(spec, PortProtocol::Udp);
            let tcp = is_on_host.then(|| said_ports(spec, PortProtocol::Tcp));
            let endpoints = endpoints(view, key, record, spec.container.has_healthcheck());
            let is_unhealthy = endpoints.is_empty() && is_unhealthy(view, key);
            let routes = ServiceRoutes { endpoints, networks, internal, udp, tcp, is_unhealthy };
            services.insert(key.clone(), routes);
            wanted.extend(spec.ports.iter().map(|port| (record.revision, key, port)));
        }
        wanted.sort();
        let mut ports: BTreeMap<(PortProtocol, u16), Vec<Published>> = BTreeMap::new();
        let mut clashes = Vec::new();
        for (_, service, port) in wanted {
            let held = ports.entry((port.protocol, port.published)).or_default();
            let wanted = Published { service: service.clone(), port: port.clone() };
            let mut others = held.iter().filter(|other| other.service != *service);
            match others.find(|other| other.port.overlaps(port)) {
                Some(other) => clashes.push(Clash { wanted, held_by: other.service.clone() }),
                None => held.push(wanted),
            }
        }
        // The program binds them itself.
        let is_on_host = |it: &Published| {
            view.spec(&it.service).is_some_and(|spec| spec.container.is_on_host_network())
        };
        for held in ports.values_mut() {
            held.retain(|it| !is_on_host(it));
        }
        ports.retain(|_, held| !held.is_empty());
        let down = view.nodes.keys().filter(|node| !view.up.contains(node)).copied().collect();
        let restarting = view.up.iter().filter(|node| view.nodes[node].restarting.is_some());
        let restarting = restarting.copied().collect();
        Self { services, down, restarting, ports, clashes }
    }
}

/// Returns the ports of its instances that a service names.
fn said_ports(spec: &ServiceSpec, protocol: PortProtocol) -> BTreeSet<u16> {
    let exposed = spec.expose.iter().filter(|it| it.protocol == protocol).map(|it| it.target);
    let published = spec.ports.iter().filter(|it| it.protocol == protocol).map(|it| it.target);
    exposed.chain(published).collect()
}

/// Returns the instances of a service that take connections: those that run on up nodes and, where their version has a
/// healthcheck, pass it.
fn endpoints(
    view: &View,
    service: &ServiceKey,
    record: &ServiceRecord,
    checked: bool,
) -> Vec<Endpoint> {
    let versions: Vec<(String, bool)> = std::iter::once(&record.spec)
        .chain(&record.previous)
        .map(|spec| (spec.container_digest(), spec.container.has_healthcheck()))
        .collect();
    // Other digests are of versions before the previous one.
    let is_checked = |digest: &str| {
        versions.iter().find(|(version, _)| version == digest).map_or(checked, |(_, it)| *it)
    };
    let answers = |digest: &str, state: InstanceState| match state {
        InstanceState::Healthy => true,
        InstanceState::Running => !is_checked(digest),
        _ => false,
    };
    let mut endpoints: Vec<Endpoint> = view
        .nodes
        .iter()
        .filter(|(node, _)| view.up.contains(node))
        .flat_map(|(&node, state)| state.claims.iter().map(move |(id, claim)| (node, id, claim)))
        .filter(|(_, id, claim)| id.slot.service == *service && answers(&id.digest, claim.state))
        .filter(|(_, _, claim)| !claim.address.is_empty())
        .map(|(node, id, claim)| Endpoint {
            instance: id.clone(),
            node,
            address: claim.address.clone(),
        })
        .collect();
    endpoints.sort_by(|a, b| (&a.instance, a.node).cmp(&(&b.instance, b.node)));
    endpoints
}

/// Returns whether a service has instances on up nodes and all are unhealthy, or are started anew for that.
fn is_unhealthy(view: &View, service: &ServiceKey) -> bool {
    let up = view.nodes.iter().filter(|(node, _)| view.up.contains(node));
    let claims = up.flat_map(|(_, state)| &state.claims);
    let mut claims = claims
        .filter(|(id, claim)| id.slot.service == *service && claim.state != InstanceState::Stopping)
        .peekable();
    claims.peek().is_some()
        && claims
            .all(|(_, claim)| claim.state == InstanceState::Unhealthy || claim.restarted_unhealthy)
}

#[cfg(test)]
mod tests {
    use vc_crdt::{ClusterState, KnownVersions, NodeState, ServiceRecord};
    use vc_protocol::instance::Claim;
    use vc_protocol::spec::{Healthcheck, Publish};

    use super::*;

    fn key(text: &str) -> ServiceKey {
        text.parse().expect("a service")
    }

    fn port(publish: Publish, host_ip: Option<&str>) -> Port {
        Port {
            host_ip: host_ip.map(|ip| ip.parse().expect("an address")),
            published: 8080,
            target: 80,
            protocol: PortProtocol::Tcp,
            publish,
            proxy_protocol: None,
        }
    }

    /// A cluster of one node, with services that were deployed one after another.
    fn view(services: Vec<(&str, ServiceSpec)>, claims: &[(&str, InstanceState, &str)]) -> View {
        let mut cluster = ClusterState::default();
        for ((name, spec), revision) in services.into_iter().zip(1..) {
            let spec = spec.into();
            let deployed_by = "tester".to_owned();
            let record = ServiceRecord {
                spec,
                previous: None,
                revision,
                updated: 0,
                deployed_by,
                trace: None,
            };
            cluster.services.insert(key(name), record.into());
        }
        let mut state = NodeState { incarnation: 1, ..NodeState::default() };
        for &(id, claim, address) in claims {
            let claim = Claim {
                state: claim,
                reason: String::new(),
                address: address.to_owned(),
                restarts: 0,
                lamport: 1,
                started: 0,
                since: 1,
                available: false,
                prepared: false,
                restarted_unhealthy: false,
                epoch: None,
                terminal: false,
            };
            state.claims.insert(id.parse().expect("an instance"), claim);
        }
        let own = vc_protocol::Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let node = NodeId::of(&own.public()).expect("ed25519");
        View::from_states(cluster, BTreeMap::from([(node, state)]), &KnownVersions::default())
    }

    fn check() -> Healthcheck {
        Healthcheck {
            test: vec!["CMD".to_owned(), "true".to_owned()],
            interval_ms: None,
            timeout_ms: None,
            retries: None,
            start_period_ms: None,
            start_interval_ms: None,
        }
    }

    fn publishing(ports: Vec<Port>) -> ServiceSpec {
        ServiceSpec { ports, ..ServiceSpec::default() }
    }

    #[test]
    fn the_earlier_of_two_services_gets_a_port() {
        let everywhere = || publishing(vec![port(Publish::Cluster, None)]);
        let beside = || publishing(vec![port(Publish::Node, None)]);
        let routes =
            Routes::of(&view(vec![("shop/web", everywhere()), ("blog/web", beside())], &[]));
        let held = &routes.ports[&(PortProtocol::Tcp, 8080)];
        assert_eq!(held.iter().map(|it| &it.service).collect::<Vec<_>>(), [&key("shop/web")]);
        let [clash] = routes.clashes.as_slice() else { panic!("{:?}", routes.clashes) };
        assert_eq!(clash.wanted.service, key("blog/web"));
        assert_eq!(clash.held_by, key("shop/web"));
        // With `mode: host` they conflict only where both run on one node.
        let routes = Routes::of(&view(vec![("shop/web", beside()), ("blog/web", beside())], &[]));
        assert_eq!(routes.clashes, []);
    }

    #[test]
    fn different_addresses_and_protocols_do_not_clash() {
        let one = port(Publish::Cluster, Some("10.0.0.1"));
        let other = port(Publish::Cluster, Some("10.0.0.2"));
        let all = port(Publish::Cluster, None);
        let udp = Port { protocol: PortProtocol::Udp, ..all.clone() };
        assert!(!one.overlaps(&other) && !all.overlaps(&udp));
        assert!(one.overlaps(&all) && all.overlaps(&one) && one.overlaps(&one));
    }

    #[test]
    fn an_update_that_adds_a_healthcheck_keeps_the_instances_without_one() {
        let before = ServiceSpec::default();
        let mut after = ServiceSpec::default();
        after.container.healthcheck = Some(check());
        let id = |spec: &ServiceSpec| format!("shop/web.1@{}", spec.container.digest());
        let (old, new) = (id(&before), id(&after));
        let claims = [
            (old.as_str(), InstanceState::Running, "10.0.0.1"),
            (new.as_str(), InstanceState::Running, "10.0.0.2"),
        ];
        let mut view = view(vec![("shop/web", after)], &claims);
        let record = view.cluster.services.get_mut(&key("shop/web")).expect("the service");
        record.previous = Some(before.into());
        let routes = Routes::of(&view);
        let endpoints = &routes.services[&key("shop/web")].endpoints;
        assert_eq!(
            endpoints.iter().map(|it| it.address.as_str()).collect::<Vec<_>>(),
            ["10.0.0.1"]
        );
    }

    #[test]
    fn a_service_is_unhealthy_when_all_its_instances_are() {
        use InstanceState::{Healthy, Running, Starting, Stopping, Unhealthy};
        let mut spec = ServiceSpec::default();
        spec.container.healthcheck = Some(check());
        let is_unhealthy = |states: &[InstanceState]| {
            let ids: Vec<String> = (1..=states.len()).map(|n| format!("shop/web.{n}@0")).collect();
            let claims: Vec<_> =
                ids.iter().zip(states).map(|(id, it)| (id.as_str(), *it, "10.0.0.1")).collect();
            let mut view = view(vec![("shop/web", spec.clone())], &claims);
            for claim in view.nodes.values_mut().flat_map(|state| state.claims.values_mut()) {
                claim.restarted_unhealthy = claim.state == Starting;
            }
            Routes::of(&view).services[&key("shop/web")].is_unhealthy
        };
        assert!(is_unhealthy(&[Unhealthy]) && is_unhealthy(&[Unhealthy, Unhealthy, Stopping]));
        assert!(is_unhealthy(&[Unhealthy, Starting]), "it is started anew, as it was unhealthy");
        assert!(!is_unhealthy(&[]), "nothing is known of it");
        assert!(!is_unhealthy(&[Unhealthy, Healthy]));
        assert!(!is_unhealthy(&[Unhealthy, Running]), "it may become healthy");
    }

    #[test]
    fn only_instances_that_can_answer_are_endpoints() {
        use InstanceState::{Failed, Healthy, Running, Starting, Stopping, Unhealthy};
        let states = [Failed, Healthy, Running, Starting, Stopping, Unhealthy];
        let ids: Vec<String> = (1..=states.len()).map(|n| format!("shop/web.{n}@0")).collect();
        let claims: Vec<_> =
            ids.iter().zip(states).map(|(id, state)| (id.as_str(), state, "10.0.0.1")).collect();
        let replicas = |spec: ServiceSpec| {
            let routes = Routes::of(&view(vec![("shop/web", spec)], &claims));
            let endpoints = routes.services[&key("shop/web")].endpoints.clone();
            endpoints.iter().map(|it| it.instance.slot.replica).collect::<Vec<_>>()
        };
        assert_eq!(replicas(ServiceSpec::default()), [2, 3]);
        let mut checked = ServiceSpec::default();
        checked.container.healthcheck = Some(check());
        assert_eq!(replicas(checked), [2]);
    }
}
