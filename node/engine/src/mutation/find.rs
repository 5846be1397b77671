//! Finds the services and nodes that a user names.

use vc_crdt::{ClusterState, View};
use vc_protocol::{ApiError, ErrorCode, NodeId, ServiceKey};

/// A name matches nothing, or several things.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// No service belongs to this project, written as `shop/`.
    #[error("no project '{0}'")]
    NoProject(String),
    /// No service has this name.
    #[error("no service '{0}'")]
    NoService(String),
    /// The text is the name of a project.
    #[error("'{0}' is a project, not a service")]
    IsProject(String),
    /// Several projects have a service of this name, or the text names a whole project where one service is needed.
    #[error("'{name}' matches several services")]
    AmbiguousService {
        /// The text.
        name: String,
        /// The services that it matches.
        matches: Vec<ServiceKey>,
    },
    /// No node has this name or id.
    #[error("no node '{0}'")]
    NoNode(String),
    /// Several nodes have this name.
    #[error("several nodes are called '{0}'")]
    AmbiguousNode(String),
}

impl From<FindError> for ApiError {
    fn from(error: FindError) -> Self {
        let (code, hint) = match &error {
            FindError::NoProject(_) | FindError::NoService(_) => {
                (ErrorCode::NotFound, "see 'vc services'".to_owned())
            }
            FindError::IsProject(project) => (
                ErrorCode::NotFound,
                format!("'{project}/' names all of its services; see 'vc services'"),
            ),
            FindError::NoNode(_) => (ErrorCode::NotFound, "see 'vc nodes'".to_owned()),
            FindError::AmbiguousService { matches, .. } => {
                let list: Vec<String> = matches.iter().map(ToString::to_string).collect();
                (ErrorCode::InvalidArgument, format!("name one of {}", list.join(", ")))
            }
            FindError::AmbiguousNode(_) => {
                (ErrorCode::InvalidArgument, "use the id from 'vc nodes --output json'".to_owned())
            }
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

/// Returns the services that a text names: `web` where only one project has such a service, `shop/web`, or `shop/` for
/// all services of a project. Errors: none matches, or `web` matches in several projects.
pub fn find_services(cluster: &ClusterState, text: &str) -> Result<Vec<ServiceKey>, FindError> {
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
    match found.as_slice() {
        [] if project.is_some() && service.is_empty() => Err(FindError::NoProject(text.to_owned())),
        [] if project.is_none()
            && cluster.services.keys().any(|it| it.project.as_str() == text) =>
        {
            Err(FindError::IsProject(text.to_owned()))
        }
        [] => Err(FindError::NoService(text.to_owned())),
        [_] => Ok(found),
        _ if project.is_some() => Ok(found),
        _ => Err(FindError::AmbiguousService { name: text.to_owned(), matches: found }),
    }
}

/// Returns the one service that a text names. Errors: none matches, or several do.
pub fn find_service(cluster: &ClusterState, text: &str) -> Result<ServiceKey, FindError> {
    let matches = find_services(cluster, text)?;
    match matches.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(FindError::AmbiguousService { name: text.to_owned(), matches }),
    }
}

/// Returns the node that a text names by its name, its id or the short form of its id. Errors: none matches, or several
/// do.
pub fn find_node(view: &View, text: &str) -> Result<NodeId, FindError> {
    let mut found = view
        .nodes
        .keys()
        .copied()
        .filter(|&id| view.name(id) == text || id.to_string() == text || id.short() == text);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(FindError::NoNode(text.to_owned())),
        (Some(_), Some(_)) => Err(FindError::AmbiguousNode(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vc_crdt::{KnownVersions, NodeState, ServiceRecord};
    use vc_protocol::Keypair;
    use vc_protocol::node::NodeInfo;
    use vc_protocol::spec::ServiceSpec;

    use super::*;

    fn view() -> View {
        let mut cluster = ClusterState::default();
        for service in ["shop/web", "blog/web"] {
            let (spec, deployed_by) = (ServiceSpec::default().into(), "ada".to_owned());
            let record = ServiceRecord {
                spec,
                previous: None,
                revision: 1,
                updated: 1,
                deployed_by,
                trace: None,
            };
            cluster.services.insert(service.parse().expect("a service"), record.into());
        }
        let node = |number: u8| {
            let key = Keypair::ed25519_from_bytes([number; 32]).expect("32 bytes");
            let info = Some(NodeInfo::for_tests("desk"));
            let state = NodeState { info, ..NodeState::default() };
            (NodeId::of(&key.public()).expect("ed25519"), state)
        };
        View::from_states(cluster, BTreeMap::from([node(1), node(2)]), &KnownVersions::default())
    }

    #[test]
    fn an_ambiguous_name_is_an_invalid_argument() {
        let view = view();
        let service = find_service(&view.cluster, "web").expect_err("two services");
        let error = ApiError::from(service);
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        assert_eq!(
            error.to_string(),
            "'web' matches several services: name one of blog/web, shop/web"
        );
        let node = find_node(&view, "desk").expect_err("two nodes");
        assert_eq!(ApiError::from(node).code, ErrorCode::InvalidArgument);
    }

    #[test]
    fn the_name_of_a_project_is_no_service_and_the_way_to_name_all_is_said() {
        let error = find_services(&view().cluster, "shop").expect_err("a project");
        assert_eq!(
            ApiError::from(error).to_string(),
            "'shop' is a project, not a service: 'shop/' names all of its services; see 'vc services'"
        );
    }

    #[test]
    fn an_unknown_name_is_not_found() {
        let view = view();
        let codes = [
            ApiError::from(find_service(&view.cluster, "db").expect_err("none")).code,
            ApiError::from(find_services(&view.cluster, "wiki/").expect_err("none")).code,
            ApiError::from(find_node(&view, "attic").expect_err("none")).code,
        ];
        assert_eq!(codes, [ErrorCode::NotFound; 3]);
    }
}
