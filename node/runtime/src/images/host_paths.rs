//! Whether the host paths exist that containers mount, before something is stopped for them. Members ask each other over the streams
//! of images, as both are about what a node has.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use futures::future::join_all;
use tokio::time::timeout;
use vc_crdt::View;
use vc_protocol::image::{MAX_PATHS, PathKind, Request, Response};
use vc_protocol::node::RuntimeKind;
use vc_protocol::spec::{Attribute, ContainerSpec, Mount, ServiceSpec};
use vc_protocol::{ApiError, ErrorCode, NodeId, ServiceKey};

use super::blocking::blocking;
use super::node_images::{Images, QUERY_TIMEOUT};
use super::rpc::request;

/// A service is pinned to a node that does not have a path which it mounts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{service}: the host path {path} does not exist on {node}, which the service is pinned to")]
pub struct PathMissing {
    /// The service.
    pub service: ServiceKey,
    /// The path.
    pub path: String,
    /// The node's name.
    pub node: String,
}

impl From<PathMissing> for ApiError {
    fn from(error: PathMissing) -> Self {
        let hint = format!(
            "make it there ('mkdir -p {}' for a directory), mount a named volume instead, or use --force to try anyway",
            error.path
        );
        Self::new(ErrorCode::FailedPrecondition, error.to_string()).with_hint(hint)
    }
}

/// Returns whether a path is made when the container starts.
fn is_created(container: &ContainerSpec, path: &str) -> bool {
    container.host_path_roots.is_empty() && container.created_host_paths.contains(path)
}

impl Images {
    /// Checks that the host paths which a service mounts exist on the node that it is pinned to, if that is up and answers. Nothing
    /// is checked for a container that is deployed already.
    ///
    /// # Errors
    /// The first path that does not exist.
    pub async fn check_host_paths(
        &self,
        view: &View,
        own: NodeId,
        service: &ServiceKey,
        spec: &ServiceSpec,
    ) -> Result<(), PathMissing> {
        let sources = spec.container.mounts.iter().filter_map(|mount| match mount {
            Mount::Bind { source, .. } if !is_created(&spec.container, source) => {
                Some(source.clone())
            }
            _ => None,
        });
        let paths: Vec<String> = sources.take(MAX_PATHS).collect();
        if paths.is_empty() || view.spec(service).is_some_and(|it| it.container == spec.container) {
            return Ok(());
        }
        let Some(node) = pinned_node(view, spec) else { return Ok(()) };
        let missing = match node == own {
            true => self.missing_paths(paths).await,
            false => {
                let query = Request::MissingPaths(paths);
                match timeout(QUERY_TIMEOUT, request(&self.0.open, node, &query)).await {
                    Ok(Ok(Response::MissingPaths(missing))) => missing,
                    // An older one, or one that went down: its start says it.
                    _ => Vec::new(),
                }
            }
        };
        match missing.into_iter().next() {
            None => Ok(()),
            Some(path) => {
                Err(PathMissing { service: service.clone(), path, node: view.name(node) })
            }
        }
    }

    /// Asks all nodes that are up and run Docker what they have at these paths, at most [`MAX_PATHS`]. Returns a kind for each path
    /// of each node; `None` for a node that does not answer.
    pub async fn look_up_paths(
        &self,
        view: &View,
        own: NodeId,
        paths: Vec<String>,
    ) -> BTreeMap<NodeId, Option<Vec<PathKind>>> {
        let nodes = view.up.iter().copied().filter(|&node| runs_docker(view, node));
        let asked = nodes.map(async |node| {
            let paths = paths.clone();
            let count = paths.len();
            let kinds = match node == own {
                true => Some(self.kinds_of_paths(paths).await),
                false => {
                    let query = Request::HostPaths(paths);
                    match timeout(QUERY_TIMEOUT, request(&self.0.open, node, &query)).await {
                        Ok(Ok(Response::HostPaths(kinds))) => Some(kinds),
                        _ => None,
                    }
                }
            };
            (node, kinds.filter(|kinds| kinds.len() == count))
        });
        join_all(asked).await.into_iter().collect()
    }

    /// Returns what is at each of `paths` on this host; nothing if the Docker engine is on another one, and an empty list if a file
    /// system does not answer.
    pub(super) async fn kinds_of_paths(&self, mut paths: Vec<String>) -> Vec<PathKind> {
        paths.truncate(MAX_PATHS);
        if self.0.docker.as_ref().is_none_or(|docker| !docker.is_local()) {
            return vec![PathKind::Missing; paths.len()];
        }
        let kind = |path: &String| match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => PathKind::Directory,
            Ok(_) => PathKind::File,
            Err(error) if is_missing(&error) => PathKind::Missing,
            // Something is there that cannot be read.
            Err(_) => PathKind::File,
        };
        let look = move || Ok(paths.iter().map(kind).collect());
        timeout(QUERY_TIMEOUT, blocking(look)).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Returns those of `paths` that do not exist on this host; none if the Docker engine is on another one.
    pub(super) async fn missing_paths(&self, mut paths: Vec<String>) -> Vec<String> {
        if self.0.docker.as_ref().is_none_or(|docker| !docker.is_local()) {
            return Vec::new();
        }
        paths.truncate(MAX_PATHS);
        let look = move || {
            // One that cannot be read is not missing.
            paths.retain(|path| Path::new(path).try_exists().is_ok_and(|exists| !exists));
            Ok(paths)
        };
        // A file system may hang.
        timeout(QUERY_TIMEOUT, blocking(look)).await.ok().and_then(Result::ok).unwrap_or_default()
    }
}

/// Returns the node that a service is pinned to by its name or id, if it is up and runs Docker.
fn pinned_node(view: &View, spec: &ServiceSpec) -> Option<NodeId> {
    let names = |node: NodeId, attribute: &Attribute| match attribute {
        Attribute::Name => Some(view.name(node)),
        Attribute::Id => Some(node.to_string()),
        _ => None,
    };
    let pins = || spec.constraints.iter().filter(|it| it.equal);
    let is_pin = |node: NodeId| {
        let mut values =
            pins().filter_map(|it| Some((names(node, &it.attribute)?, &it.value))).peekable();
        values.peek().is_some() && values.all(|(has, value)| has == *value)
    };
    view.up.iter().copied().filter(|&node| runs_docker(view, node)).find(|&node| is_pin(node))
}

fn runs_docker(view: &View, node: NodeId) -> bool {
    let info = view.nodes.get(&node).and_then(|state| state.info.as_ref());
    info.is_some_and(|info| info.runtime == RuntimeKind::Docker)
}

/// Returns whether an error of a path says that nothing is there.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
