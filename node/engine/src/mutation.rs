//! What users change, checked against what is there.

use vc_crdt::{ClusterState, ServiceRecord, View};
use vc_protocol::change::Subject;
use vc_protocol::spec::{Deployment, MAX_REPLICAS, MAX_SPEC_BYTES, Port};
use vc_protocol::{Millis, NodeId, ServiceKey};

/// A change that a user asks for. `service` and `node` are as people write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// Put these services in place: all or none.
    Deploy(Vec<Deployment>),
    /// Change the number of replicas.
    Scale {
        /// Which service.
        service: String,
        /// How many.
        replicas: u32,
    },
    /// Remove a service, or a project (`shop/`).
    Remove(String),
    /// Keep a machine free, or no more.
    Drain {
        /// Which.
        node: String,
        /// `false`: no more.
        drain: bool,
    },
}

/// The services that a text names: `web` where only one project has such a service, `shop/web`, or `shop/` for all of a
/// project. Errors: none, or several.
pub fn find_services(cluster: &ClusterState, text: &str) -> Result<Vec<ServiceKey>, String> {
    let (project, service) = match text.split_once('/') {
        Some((project, service)) => (Some(project), service),
        None => (None, text),
    };
    let found: Vec<ServiceKey> = cluster
        .services
        .keys()
        .filter(|key| project.is_none_or(|project| key.project.as_str() == project))
        .filter(|key| service.is_empty() || key.service.as_str() == service)
        .cloned()
        .collect();
    let list =
        |keys: &[ServiceKey]| keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match found.as_slice() {
        [] if project.is_some() && service.is_empty() => {
            Err(format!("no project '{text}'; see 'vc services'"))
        }
        [] => Err(format!("no service '{text}'; see 'vc services'")),
        [_] => Ok(found),
        _ if project.is_some() => Ok(found),
        several => Err(format!("'{text}' is several services: name one of {}", list(several))),
    }
}

/// The one service that a text names. Errors: none, or several.
pub fn find_service(cluster: &ClusterState, text: &str) -> Result<ServiceKey, String> {
    let mut found = find_services(cluster, text)?;
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(format!("'{text}' is several services: name one of them as project/service")),
    }
}

/// The machine that a name or an id names. Errors: none, or several.
pub fn find_node(view: &View, text: &str) -> Result<NodeId, String> {
    let found: Vec<NodeId> = view
        .nodes
        .keys()
        .copied()
        .filter(|&id| view.name(id) == text || id.to_string() == text || id.short() == text)
        .collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(format!("no node '{text}'; see 'vc nodes'")),
        _ => Err(format!(
            "several nodes are called '{text}': use the id from 'vc nodes --output json'"
        )),
    }
}

impl Mutation {
    /// What the cluster document should say afterwards, and a line for people a thing that changes. Errors: one line
    /// that says what to do; nothing changes.
    pub(crate) fn apply(
        &self,
        view: &View,
        by: &Subject,
        now: Millis,
    ) -> Result<(ClusterState, Vec<String>), String> {
        let mut state = view.cluster.clone();
        let mut lines = Vec::new();
        match self {
            Self::Deploy(deployments) => {
                if deployments.is_empty() {
                    return Err("nothing to deploy: the file has no services".to_owned());
                }
                for deployment in deployments {
                    lines.push(deploy(&mut state, deployment, by, now)?);
                }
                // One of them may give up a port that another takes.
                for Deployment { service, spec, .. } in deployments {
                    check_ports(&state, service, &spec.ports)?;
                }
            }
            Self::Scale { service, replicas } => {
                let key = find_service(&state, service)?;
                check_replicas(&key, *replicas)?;
                let before = state.replicas(&key);
                lines.push(format!("{key} scaled from {before} to {replicas}"));
                state.scale.insert(key, *replicas);
            }
            Self::Remove(service) => {
                for key in find_services(&state, service)? {
                    state.services.remove(&key);
                    state.scale.remove(&key);
                    lines.push(format!("{key} removed"));
                }
            }
            Self::Drain { node, drain } => {
                let id = find_node(view, node)?;
                let name = view.name(id);
                if *drain {
                    state.drained.insert(id, true);
                    lines.push(format!("{name} is drained"));
                } else {
                    state.drained.remove(&id);
                    lines.push(format!("{name} takes instances again"));
                }
            }
        }
        Ok((state, lines))
    }
}

fn deploy(
    state: &mut ClusterState,
    wanted: &Deployment,
    by: &Subject,
    now: Millis,
) -> Result<String, String> {
    let key = &wanted.service;
    let size = serde_json::to_vec(&wanted.spec).map_or(usize::MAX, |json| json.len());
    if size > MAX_SPEC_BYTES {
        return Err(format!(
            "{key} is larger than {MAX_SPEC_BYTES} bytes: move large values into the image"
        ));
    }
    let held = state.services.get(key);
    let same = held.is_some_and(|held| held.spec == wanted.spec);
    let line = match held {
        None => format!("{key} created"),
        Some(_) if same => format!("{key} unchanged"),
        Some(_) => format!("{key} updated"),
    };
    if !same {
        let previous = held.map(|held| held.spec.clone());
        let updated = held.map_or(now, |held| now.max(held.updated + 1));
        let record =
            ServiceRecord { spec: wanted.spec.clone(), previous, updated, by: by.name.clone() };
        state.services.insert(key.clone(), record);
    }
    if let Some(replicas) = wanted.replicas {
        check_replicas(key, replicas)?;
        state.scale.insert(key.clone(), replicas);
    }
    Ok(line)
}

/// Errors: another service has one of these ports.
fn check_ports(state: &ClusterState, key: &ServiceKey, ports: &[Port]) -> Result<(), String> {
    for (other, record) in state.services.iter().filter(|(other, _)| *other != key) {
        let clash = ports.iter().find(|port| record.spec.ports.iter().any(|it| it.overlaps(port)));
        if let Some(port) = clash {
            let name = port.name();
            return Err(format!(
                "port {name} is published by {other} already: publish another in {key}"
            ));
        }
    }
    Ok(())
}

fn check_replicas(key: &ServiceKey, replicas: u32) -> Result<(), String> {
    if replicas > MAX_REPLICAS {
        return Err(format!("{key}: {replicas} replicas are more than {MAX_REPLICAS}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vc_protocol::spec::{PortProtocol, Publish, ServiceSpec};

    use super::*;

    #[test]
    fn a_port_that_another_service_publishes_is_refused_with_both_names() {
        let port = Port {
            host_ip: None,
            published: 8080,
            target: 80,
            protocol: PortProtocol::Tcp,
            publish: Publish::Cluster,
        };
        let publishing = ServiceSpec { ports: vec![port], ..ServiceSpec::default() };
        let wanted = |service: &str, spec: &ServiceSpec| Deployment {
            service: service.parse().expect("a service"),
            replicas: None,
            spec: spec.clone(),
        };
        let by = Subject { name: "tester".to_owned(), token: "t1".to_owned() };
        let apply = |state: &ClusterState, deployments| {
            let view = View::from_states(state.clone(), BTreeMap::new());
            Mutation::Deploy(deployments).apply(&view, &by, 1).map(|(state, _)| state)
        };
        let state = apply(&ClusterState::default(), vec![wanted("shop/web", &publishing)]);
        let state = state.expect("the port is free");
        apply(&state, vec![wanted("shop/web", &publishing)]).expect("its own");
        let refused = "port 8080/tcp is published by shop/web already: publish another in blog/web";
        let taken = apply(&state, vec![wanted("blog/web", &publishing)]);
        assert_eq!(taken, Err(refused.to_owned()));
        let both = vec![wanted("blog/web", &publishing), wanted("shop/web", &publishing)];
        assert!(apply(&ClusterState::default(), both).is_err());
        let passed_on =
            vec![wanted("blog/web", &publishing), wanted("shop/web", &ServiceSpec::default())];
        apply(&state, passed_on).expect("it is free by then");
    }
}
