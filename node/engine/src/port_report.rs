//! Which nodes publish the ports of services, and which ports none can.

use vc_crdt::{NodeState, View};
use vc_protocol::ServiceKey;
use vc_protocol::control::HostPort;
use vc_protocol::spec::{Port, Publish, port_of_address};

/// Returns the ports that only the nodes with instances publish, and these nodes by name.
pub(crate) fn host_ports(view: &View, service: &ServiceKey, ports: &[Port]) -> Vec<HostPort> {
    let runs = |state: &NodeState| {
        let mut claims = state.claims.iter();
        claims.any(|(id, claim)| id.slot.service == *service && claim.state.is_running())
    };
    let host_port = |port: &Port| {
        let name = reported_name(port);
        let up = view.up.iter().filter_map(|&node| Some((node, view.nodes.get(&node)?)));
        let publishing = up.filter(|(_, state)| runs(state) && !state.ports.contains_key(&name));
        let mut nodes: Vec<String> = publishing.map(|(node, _)| view.name(node)).collect();
        nodes.sort_unstable();
        HostPort { port: port.to_string(), nodes }
    };
    ports.iter().filter(|port| port.publish == Publish::Node).map(host_port).collect()
}

/// Returns the ports that no node can publish now, each with the reason.
pub(crate) fn unpublished(view: &View, service: &ServiceKey, ports: &[Port]) -> Vec<String> {
    ports.iter().filter_map(|port| why_unpublished(view, service, port)).collect()
}

/// Says why no node can publish a port; `None` if one does, or may soon.
fn why_unpublished(view: &View, service: &ServiceKey, port: &Port) -> Option<String> {
    let name = reported_name(port);
    let runs = |state: &NodeState| state.claims.keys().any(|id| id.slot.service == *service);
    let is_witness = |state: &NodeState| state.info.as_ref().is_some_and(|info| info.witness);
    let publishes = |state: &&NodeState| {
        !is_witness(state) && (port.publish == Publish::Cluster || runs(state))
    };
    let mut nodes =
        view.up.iter().filter_map(|node| view.nodes.get(node)).filter(publishes).peekable();
    let why = nodes.peek()?.ports.get(&name)?;
    nodes.all(|state| state.ports.contains_key(&name)).then(|| format!("{name}: {why}"))
}

/// Returns what nodes call a port that they cannot publish.
fn reported_name(port: &Port) -> String {
    match port.host_ip {
        Some(address) => port_of_address(&port.name(), address),
        None => port.name(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use vc_crdt::{ClusterState, KnownVersions};
    use vc_protocol::NodeId;
    use vc_protocol::instance::{Claim, InstanceState};
    use vc_protocol::spec::PortProtocol;

    use super::*;

    fn node(byte: u8) -> NodeId {
        let key = vc_protocol::Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    /// A node with an instance of shop/dns in this state.
    fn with_instance(state: InstanceState) -> NodeState {
        let claim = Claim {
            state,
            reason: String::new(),
            address: String::new(),
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
        let mut node = NodeState { incarnation: 1, ..NodeState::default() };
        node.claims.insert("shop/dns.1@0".parse().expect("an instance"), claim);
        node
    }

    #[test]
    fn a_port_of_mode_host_is_on_the_nodes_that_run_an_instance_and_have_bound_it() {
        let mut taken = with_instance(InstanceState::Running);
        taken.ports.insert("53/udp".to_owned(), "already in use".to_owned());
        let nodes = BTreeMap::from([
            (node(1), with_instance(InstanceState::Running)),
            (node(2), with_instance(InstanceState::Healthy)),
            (node(3), with_instance(InstanceState::Starting)),
            (node(4), NodeState { incarnation: 1, ..NodeState::default() }),
            (node(5), taken),
        ]);
        let view = View::from_states(ClusterState::default(), nodes, &KnownVersions::default());
        let port = |published, publish| Port {
            host_ip: None,
            published,
            target: published,
            protocol: PortProtocol::Udp,
            publish,
            proxy_protocol: None,
        };
        let ports = [port(53, Publish::Node), port(80, Publish::Cluster)];
        let service = "shop/dns".parse().expect("a service");
        let found = host_ports(&view, &service, &ports);
        let [HostPort { port, nodes }] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(port, "53:53/udp");
        let expected = BTreeSet::from([node(1), node(2)].map(|node| view.name(node)));
        assert_eq!(nodes.iter().cloned().collect::<BTreeSet<_>>(), expected);
    }
}
