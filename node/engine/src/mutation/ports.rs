//! Conflicts between the ports that services publish.

use std::collections::BTreeSet;

use vc_crdt::{ClusterState, View};
use vc_protocol::spec::{Port, PortProtocol};
use vc_protocol::{Name, ServiceKey};

use super::error::MutationError;

/// Errors: another service publishes one of these ports. It is named if it is of these projects; `None` for all.
pub(super) fn check(
    state: &ClusterState,
    service: &ServiceKey,
    ports: &[Port],
    projects: Option<&BTreeSet<Name>>,
) -> Result<(), MutationError> {
    for (other, record) in state.services.iter().filter(|(other, _)| *other != service) {
        let taken = ports.iter().find(|port| record.spec.ports.iter().any(|it| it.overlaps(port)));
        if let Some(port) = taken {
            return Err(MutationError::PortTaken {
                port: port.name(),
                by: Some(other)
                    .filter(|it| projects.is_none_or(|projects| projects.contains(&it.project)))
                    .cloned(),
                service: service.clone(),
            });
        }
    }
    Ok(())
}

/// The port of multicast DNS.
const MDNS: u16 = 5353;

/// Errors: one of these ports is that of multicast DNS, by which all nodes that are up find each other.
pub(super) fn check_mdns(view: &View, ports: &[Port]) -> Result<(), MutationError> {
    let is_mdns = |port: &&Port| port.published == MDNS && port.protocol == PortProtocol::Udp;
    let Some(port) = ports.iter().find(is_mdns) else { return Ok(()) };
    let holds = |node| {
        let info = view.nodes.get(node).and_then(|state| state.info.as_ref());
        info.is_some_and(|info| info.mdns)
    };
    match !view.up.is_empty() && view.up.iter().all(holds) {
        true => Err(MutationError::PortOfMdns { port: port.name() }),
        false => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use vc_crdt::{KnownVersions, NodeState};
    use vc_protocol::ApiError;
    use vc_protocol::change::Subject;
    use vc_protocol::node::NodeInfo;
    use vc_protocol::spec::{Deployment, Publish, ServiceSpec};
    use vc_protocol::{Keypair, NodeId};

    use super::super::Mutation;
    use super::*;

    #[test]
    fn a_port_that_another_service_publishes_is_refused() {
        let port = Port {
            host_ip: None,
            published: 8080,
            target: 80,
            protocol: PortProtocol::Tcp,
            publish: Publish::Cluster,
            proxy_protocol: None,
        };
        let publishing = ServiceSpec { ports: vec![port], ..ServiceSpec::default() };
        let wanted = |service: &str, spec: &ServiceSpec| Deployment {
            service: service.parse().expect("a service"),
            replicas: None,
            spec: spec.clone().into(),
        };
        let by = Subject { name: "tester".to_owned(), token_id: "t1".to_owned(), address: None };
        let apply_as = |state: &ClusterState, deployments, project: Option<&str>| {
            let view = View::from_states(state.clone(), BTreeMap::new(), &KnownVersions::default());
            let projects = project.map(|it| [it.parse().expect("a name")].into());
            Mutation::Deploy { deployments, files: BTreeMap::new(), projects, trace: None }
                .apply(&view, &by, 1)
                .map(|(state, _)| state)
        };
        let apply = |state: &ClusterState, deployments| apply_as(state, deployments, None);
        let state = apply(&ClusterState::default(), vec![wanted("shop/web", &publishing)]);
        let state = state.expect("the port is free");
        apply(&state, vec![wanted("shop/web", &publishing)])
            .expect("the service has the port itself");
        for (project, service, by) in [
            (None, "blog/web", "shop/web"),
            (Some("shop"), "shop/api", "shop/web"),
            (Some("blog"), "blog/web", "a service of another project"),
        ] {
            let taken = apply_as(&state, vec![wanted(service, &publishing)], project);
            let taken = taken.expect_err("refused");
            let refused = format!(
                "port 8080/tcp is published by {by} already: publish another port in {service}"
            );
            assert_eq!(ApiError::from(taken).to_string(), refused);
        }
        let both = vec![wanted("blog/web", &publishing), wanted("shop/web", &publishing)];
        assert!(apply(&ClusterState::default(), both).is_err());
        let released =
            vec![wanted("blog/web", &publishing), wanted("shop/web", &ServiceSpec::default())];
        apply(&state, released).expect("the port is released");
    }

    #[test]
    fn the_port_of_mdns_is_refused_while_all_nodes_have_it() {
        let node = |number: u8, mdns| {
            let key = Keypair::ed25519_from_bytes([number; 32]).expect("32 bytes");
            let info = Some(NodeInfo { mdns, ..NodeInfo::for_tests("desk") });
            let state = NodeState { info, incarnation: 1, ..NodeState::default() };
            (NodeId::of(&key.public()).expect("ed25519"), state)
        };
        let view = |second| {
            let nodes = BTreeMap::from([node(1, true), node(2, second)]);
            View::from_states(ClusterState::default(), nodes, &KnownVersions::default())
        };
        let port = |protocol, published| Port {
            host_ip: None,
            published,
            target: 53,
            protocol,
            publish: Publish::Cluster,
            proxy_protocol: None,
        };
        let udp = [port(PortProtocol::Udp, 5353)];
        let refused = ApiError::from(check_mdns(&view(true), &udp).expect_err("refused"));
        assert_eq!(
            refused.to_string(),
            "the nodes have port 5353/udp themselves, for mDNS: publish another port, or run the nodes with --no-mdns"
        );
        check_mdns(&view(false), &udp).expect("the second node publishes it");
        check_mdns(&view(true), &[port(PortProtocol::Tcp, 5353)]).expect("TCP is another port");
        check_mdns(&view(true), &[port(PortProtocol::Udp, 5354)]).expect("as is the next");
    }
}
