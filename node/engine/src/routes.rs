//! Where connections go: from a published port, or a service's name, to the instances that can answer.
//!
//! A function of the view, so every node has the same table as soon as it has the same documents. What a table cannot
//! know (a machine that died a moment ago, an instance that refuses) is for whoever connects to find out: he tries the
//! next endpoint.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::View;
use vc_protocol::instance::InstanceState;
use vc_protocol::spec::{Expose, Port, PortProtocol};
use vc_protocol::{InstanceId, Name, NodeId, ServiceKey};

/// Where connections go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    /// Every service that is wanted.
    pub services: BTreeMap<ServiceKey, ServiceRoutes>,
    /// Which services have a port that machines publish. Of two that cannot both have it, the one that asked earlier.
    pub ports: BTreeMap<(PortProtocol, u16), Vec<Published>>,
    /// The ports that services asked for later, and who has them. Only who deployed at two nodes at once, or apart in
    /// a partition, gets that far.
    pub clashes: Vec<Clash>,
}

/// A port that a service cannot have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// Who wants it.
    pub wanted: Published,
    /// Who has it.
    pub held_by: ServiceKey,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRoutes {
    /// The instances that can answer, in the order of their ids.
    pub endpoints: Vec<Endpoint>,
    /// The networks of the project that it is in, and its names there beside its own.
    pub networks: BTreeMap<Name, BTreeSet<String>>,
    /// Its UDP ports: those that it publishes or exposes. (TCP ports need not be known.)
    pub udp: BTreeSet<u16>,
}

/// An instance that can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Which.
    pub instance: InstanceId,
    /// On which machine.
    pub node: NodeId,
    /// Its address on that machine; means something there only.
    pub address: String,
}

/// A port that machines publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Of which service.
    pub service: ServiceKey,
    /// The port.
    pub port: Port,
}

/// The name of the network that a service is in which names none.
pub const DEFAULT_NETWORK: &str = "default";

impl Routes {
    /// The table that follows from a view.
    pub fn of(view: &View) -> Self {
        let mut services = BTreeMap::new();
        let mut wanted: Vec<(u64, &ServiceKey, &Port)> = Vec::new();
        for (key, record) in &view.cluster.services {
            let Some(spec) = view.spec(key) else { continue };
            let checked = spec.container.healthcheck.as_ref();
            let checked = checked
                .is_some_and(|check| check.test.first().is_some_and(|first| first != "NONE"));
            let exposed = |&&Expose { protocol, .. }: &&Expose| protocol == PortProtocol::Udp;
            let published = |port: &&Port| port.protocol == PortProtocol::Udp;
            let udp = spec.expose.iter().filter(exposed).map(|it| it.target);
            let udp = udp.chain(spec.ports.iter().filter(published).map(|it| it.target)).collect();
            let mut networks = spec.container.networks.clone();
            if networks.is_empty()
                && let Ok(name) = DEFAULT_NETWORK.parse()
            {
                networks.insert(name, BTreeSet::new());
            }
            let endpoints = endpoints(view, key, checked);
            services.insert(key.clone(), ServiceRoutes { endpoints, networks, udp });
            wanted.extend(spec.ports.iter().map(|port| (record.updated, key, port)));
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
        Self { services, ports, clashes }
    }
}

/// The instances of a service that take connections: those that run, on machines that are up; with a healthcheck, those
/// that pass it.
fn endpoints(view: &View, service: &ServiceKey, checked: bool) -> Vec<Endpoint> {
    let answers = |state: InstanceState| match state {
        InstanceState::Healthy => true,
        InstanceState::Running => !checked,
        _ => false,
    };
    let mut endpoints: Vec<Endpoint> = view
        .nodes
        .iter()
        .filter(|(node, _)| view.up.contains(node))
        .flat_map(|(&node, state)| state.claims.iter().map(move |(id, claim)| (node, id, claim)))
        .filter(|(_, id, claim)| id.slot.service == *service && answers(claim.state))
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
