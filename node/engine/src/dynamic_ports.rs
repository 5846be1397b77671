//! Ports that are published without saying where: a deployment chooses one, the same on all nodes.

use std::collections::BTreeSet;

use vc_crdt::ClusterState;
use vc_protocol::spec::{DYNAMIC_PORTS, Deployment, DynamicPort, Port, PortProtocol, digest};
use vc_protocol::{ApiError, ErrorCode, ServiceKey};

/// All ports of the range are published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{service}: no port from {} to {} is free for its port {target}",
    DYNAMIC_PORTS.start(),
    DYNAMIC_PORTS.end()
)]
pub struct NoFreePort {
    service: ServiceKey,
    target: u16,
}

impl From<NoFreePort> for ApiError {
    fn from(error: NoFreePort) -> Self {
        let hint = format!("write the port to publish, as 8080:{}", error.target);
        Self::new(ErrorCode::ResourceExhausted, error.to_string()).with_hint(hint)
    }
}

/// Chooses the published port of each dynamic one: the one that it has, else the first free port of the range from one that the
/// service's name gives. It follows from the documents alone.
///
/// # Errors
/// No port of the range is free.
pub fn choose(cluster: &ClusterState, deployments: &mut [Deployment]) -> Result<(), NoFreePort> {
    let deployed: BTreeSet<ServiceKey> = deployments.iter().map(|it| it.service.clone()).collect();
    let others = cluster.services.iter().filter(|(service, _)| !deployed.contains(service));
    let named = |port: &Port| (port.published, port.protocol);
    let mut taken: BTreeSet<(u16, PortProtocol)> = others
        .flat_map(|(_, record)| &record.spec.ports)
        .chain(deployments.iter().flat_map(|it| &it.spec.ports))
        .map(named)
        .collect();
    // What is published stays where it is, also if a service comes first that would choose the same.
    let mut open: Vec<(usize, DynamicPort)> = Vec::new();
    for (index, Deployment { service, spec, .. }) in deployments.iter_mut().enumerate() {
        let held = cluster.services.get(service).map(|record| &record.spec);
        for port in spec.dynamic_ports.clone() {
            let held = held.filter(|held| held.dynamic_ports.contains(&port));
            let held = held.and_then(|held| held.ports.iter().find(|it| port.is_published_as(it)));
            match held.filter(|held| !taken.contains(&named(held))) {
                Some(held) => {
                    taken.insert(named(held));
                    spec.ports.push(held.clone());
                }
                None => open.push((index, port)),
            }
        }
    }
    for (index, port) in open {
        let Deployment { service, spec, .. } = &mut deployments[index];
        let count = usize::from(DYNAMIC_PORTS.end() - DYNAMIC_PORTS.start()) + 1;
        let seed = digest(&(&*service, port.target, port.protocol));
        let first = usize::from_str_radix(&seed[..8], 16).unwrap_or_default() % count;
        let mut candidates = DYNAMIC_PORTS.cycle().skip(first).take(count);
        let free = candidates.find(|it| !taken.contains(&(*it, port.protocol)));
        let Some(published) = free else {
            return Err(NoFreePort { service: service.clone(), target: port.target });
        };
        taken.insert((published, port.protocol));
        spec.ports.push(port.published_as(published));
    }
    for Deployment { spec, .. } in
        deployments.iter_mut().filter(|it| !it.spec.dynamic_ports.is_empty())
    {
        spec.ports.sort_unstable();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

    use vc_crdt::ServiceRecord;
    use vc_protocol::spec::ServiceSpec;

    use super::*;

    fn dynamic(target: u16) -> DynamicPort {
        serde_json::from_value(serde_json::json!({"target": target, "protocol": "tcp"}))
            .expect("a port")
    }

    fn deployment(service: &str, targets: &[u16]) -> Deployment {
        let dynamic_ports = targets.iter().map(|target| dynamic(*target)).collect();
        let spec = ServiceSpec { dynamic_ports, ..ServiceSpec::default() };
        Deployment {
            service: service.parse().expect("a service"),
            replicas: None,
            spec: spec.into(),
        }
    }

    fn published(cluster: &ClusterState, mut deployments: Vec<Deployment>) -> Vec<Vec<u16>> {
        choose(cluster, &mut deployments).expect("chosen");
        let ports = |it: &Deployment| it.spec.ports.iter().map(|port| port.published).collect();
        deployments.iter().map(ports).collect()
    }

    fn holding(deployment: &Deployment) -> ClusterState {
        let Deployment { service, spec, .. } = deployment.clone();
        let (previous, deployed_by) = (None, "ada".to_owned());
        let record =
            ServiceRecord { spec, previous, revision: 1, updated: 1, deployed_by, trace: None };
        let services = [(service, record.into())].into();
        ClusterState { services, ..ClusterState::default() }
    }

    #[test]
    fn a_port_is_chosen_by_the_name_of_the_service_and_kept() {
        let web = deployment("shop/web", &[80]);
        let first = published(&ClusterState::default(), vec![web.clone()]);
        assert_eq!(first, published(&ClusterState::default(), vec![web.clone()]), "on any node");
        assert!(DYNAMIC_PORTS.contains(&first[0][0]));
        // Another service has it: the next one is free.
        let mut other = deployment("shop/other", &[]);
        other.spec.ports.push(dynamic(80).published_as(first[0][0]));
        assert_eq!(published(&holding(&other), vec![web.clone()]), [[first[0][0] + 1]]);
        assert_eq!(
            published(&ClusterState::default(), vec![other.clone(), web.clone()])[1],
            [first[0][0] + 1]
        );
        // What it has stays, whatever is free by then.
        let mut held = web.clone();
        held.spec.ports.push(dynamic(80).published_as(31_000));
        assert_eq!(published(&holding(&held), vec![web]), [[31_000]]);
        let more = published(&holding(&held), vec![deployment("shop/web", &[80, 81])]);
        assert!(more[0].contains(&31_000) && more[0].len() == 2, "{more:?}");
    }

    #[test]
    fn two_services_of_one_deployment_get_two_ports() {
        let many: Vec<Deployment> =
            (0..200).map(|i| deployment(&format!("shop/s{i}"), &[80, 443])).collect();
        let ports = published(&ClusterState::default(), many);
        let all: BTreeSet<u16> = ports.iter().flatten().copied().collect();
        assert_eq!(all.len(), 400);
    }

    #[test]
    fn a_full_range_is_refused() {
        let mut full = deployment("shop/full", &[]);
        full.spec.ports = DYNAMIC_PORTS.map(|port| dynamic(1).published_as(port)).collect();
        let refused = choose(&holding(&full), &mut [deployment("shop/web", &[80])]);
        let refused = ApiError::from(refused.expect_err("no port is free"));
        assert!(refused.to_string().contains("8080:80"), "{refused}");
    }
}
